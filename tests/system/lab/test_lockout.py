# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout leaves itself room: it keeps no node cordoned on which nothing was evicted."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.annotations import (
    CORDONED_BY,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import ready
from ansible_collections.dataplane.calico_bpf.tests.support.lab.rollout import Rollout, new_rollout

pytestmark = pytest.mark.timeout(900)

OLD = "v3.28.1"
#: What the preflight refuses, for what a run does that begins nevertheless.
ACCEPTED: dict[str, Any] = {"calico_bpf_overrides": ["no_room", "budget_never_met"]}
NOTHING = "Nothing was evicted, so this run does not keep the node cordoned."


def test_a_batch_of_all_nodes_that_stops_after_one_eviction() -> None:
    """The budget lets one of the three go; the next run is not in its own way."""
    with new_rollout("embedded", nodes=3, endpoints=1, version=OLD) as lab:
        # Shorter than the 5 s after which a refused eviction is asked for again.
        code, output = lab.upgrade(calico_bpf_batches=[3], drain_timeout=4, **ACCEPTED)
        assert code == 2, output
        drained = [name for name in lab.cluster.nodes if f"{name} is not empty" not in output]
        assert len(drained) == 1, output
        assert lab.cordoned() == set(drained)
        assert output.count("evicted: 0 pods; still there:") >= 2
        assert NOTHING in output
        report = lab.report()
        assert report["verdict"] == "stopped"
        assert {n["name"] for n in report["nodes"] if n["cordoned"]} == set(drained)
        assert NOTHING in report["stop"]["message"]
        assert any(f"uncordoned since: {drained[0]} " in step for step in report["next"])
        lab.cluster.wait(lambda: len(healthy(lab)) == 3, "the evicted pod runs on another node")
        code, output = lab.upgrade()
        assert code == 0, output
        lab.must_be_complete()


def test_a_node_that_had_nothing_to_evict_is_uncordoned_when_the_run_stops() -> None:
    """The other node of its batch can't be drained."""
    with new_rollout("embedded", nodes=2, endpoints=1, version=OLD) as lab:
        all_web_pods_to(lab, "worker-1")
        demand_all(lab)
        code, output = lab.upgrade(calico_bpf_batches=[2], drain_timeout=4, **ACCEPTED)
        assert code == 2, output
        assert "worker-2 is not empty" not in output
        assert lab.cordoned() == set()
        says = (
            "Another node of the same batch failed. worker-2 was uncordoned again: nothing was"
            " evicted there and calico-node was not replaced"
        )
        assert f"{says}." in output
        report = lab.report()
        assert says in [note["message"] for note in report["notes"] if note["node"] == "worker-2"]
        assert NOTHING in report["stop"]["message"]
        assert not any(node["cordoned"] for node in report["nodes"])
        assert not any("ordoned by this run" in step for step in report["next"])


def test_the_cordons_of_a_killed_run_are_recognized_and_named() -> None:
    """It left every node cordoned after one eviction: the evicted pod can't start anywhere."""
    with new_rollout("embedded", nodes=3, endpoints=1, version=OLD) as lab:
        for name in lab.cluster.nodes:
            cordon(lab, name)
        (evicted,) = [pod for pod in web_pods(lab) if pod["spec"]["nodeName"] == "worker-2"]
        lab.cluster.client.do(
            "DELETE", f"/api/v1/namespaces/demo/pods/{evicted['metadata']['name']}"
        )
        lab.cluster.wait(lambda: len(healthy(lab)) == 2, "the evicted pod is gone")
        lab.cluster.wait(lambda: len(web_pods(lab)) == 3, "another one waits for a node")
        code, output = lab.upgrade()
        assert code == 2, output
        assert (
            "no_room: with worker-1 drained, no node is left for the evicted pods: demo/web:"
            " minAvailable 2; 2 of 3 pods are healthy, 2 are required: 0 of the 1 here may be"
            " evicted now. Cordoned by an earlier run of this collection: worker-1, worker-2,"
            " worker-3. Uncordon those whose calico-node was not replaced (kubectl uncordon"
            " worker-1 worker-2 worker-3): each is cordoned again when its drain begins"
        ) in output
        assert lab.strategy() == "RollingUpdate"
        for name in lab.cluster.nodes:
            cordon(lab, name, None)
        lab.cluster.wait(lambda: len(healthy(lab)) == 3, "all web pods are Ready")
        code, output = lab.upgrade()
        assert code == 0, output
        lab.must_be_complete()


def cordon(lab: Rollout, node: str, unschedulable: bool | None = True) -> None:
    """As a run does; or, without the annotation's end, what ``kubectl uncordon`` does."""
    body: dict[str, Any] = {"spec": {"unschedulable": unschedulable}}
    if unschedulable:
        body["metadata"] = {"annotations": {CORDONED_BY: "a run that was killed"}}
    lab.cluster.client.do("PATCH", f"/api/v1/nodes/{node}", body)


def web_pods(lab: Rollout) -> list[dict[str, Any]]:
    pods = lab.cluster.pods("demo")
    return [pod for pod in pods if pod["metadata"]["name"].startswith("web-")]


def healthy(lab: Rollout) -> list[dict[str, Any]]:
    return [pod for pod in web_pods(lab) if ready(pod)]


def all_web_pods_to(lab: Rollout, node: str) -> None:
    client = lab.cluster.client
    others = set(lab.cluster.nodes) - {node}
    for other in others:
        client.do("PATCH", f"/api/v1/nodes/{other}", {"spec": {"unschedulable": True}})
    for pod in web_pods(lab):
        if pod["spec"]["nodeName"] != node:
            client.do("DELETE", f"/api/v1/namespaces/demo/pods/{pod['metadata']['name']}")

    def moved() -> bool:
        return [pod["spec"].get("nodeName") for pod in healthy(lab)] == [node] * 2

    lab.cluster.wait(moved, f"all web pods are on {node}")
    for other in others:
        client.do("PATCH", f"/api/v1/nodes/{other}", {"spec": {"unschedulable": None}})


def demand_all(lab: Rollout) -> None:
    """Have the budget of the web pods let none go."""
    client = lab.cluster.client
    policy = client.do("GET", "/apis/policy")["preferredVersion"]["groupVersion"]
    path = f"/apis/{policy}/namespaces/demo/poddisruptionbudgets/web"
    held = client.do("PATCH", path, {"spec": {"minAvailable": 2}})

    def counted() -> bool:
        seen = client.do("GET", path)["status"].get("observedGeneration")
        return bool(seen == held["metadata"]["generation"])

    lab.cluster.wait(counted, "the budget is counted")
