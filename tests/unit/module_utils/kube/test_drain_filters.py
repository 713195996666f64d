# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which pods are evicted and which budgets block an eviction, from the objects alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.drain_filters import (
    RemovalOptions,
    choose,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.pdb import (
    Budget,
    Budgets,
    never_met,
    obstacles,
    selects,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.pods import container_states

Object = dict[str, Any]
ALL = RemovalOptions(force=True, delete_emptydir_data=True)


def pod(name: str = "a", owner: str | None = "ReplicaSet", **more: Any) -> Object:
    metadata: Object = {"name": name, "namespace": "shop", "labels": {"app": "web"}}
    if owner:
        metadata["ownerReferences"] = [{"kind": owner, "name": "one", "controller": True}]
    metadata |= more.get("metadata", {})
    ready = [{"type": "Ready", "status": more.get("ready", "True")}]
    status = {"phase": more.get("phase", "Running"), "conditions": ready}
    return {"metadata": metadata, "spec": {"volumes": more.get("volumes", [])}, "status": status}


DATA = [{"name": "scratch", "emptyDir": {}}]
DELETED = {"deletionTimestamp": "2026-11-23T22:00:00Z"}


@pytest.mark.parametrize(
    ("each", "why"),
    [
        (pod(owner="DaemonSet"), "DaemonSet one"),
        (pod(owner="DaemonSet", volumes=DATA), "DaemonSet one"),
        (pod(owner="DaemonSet", phase="Failed", metadata=DELETED), "DaemonSet one"),
        (pod(owner=None, metadata={"annotations": {"kubernetes.io/config.mirror": "x"}}), "static"),
    ],
)
def test_which_pods_are_kept(each: Object, why: str) -> None:
    for removal in (RemovalOptions(), ALL):
        choice = choose([each], removal)
        assert why in choice.skip["shop/a"]
        assert not choice.evict
        assert not choice.refuse


@pytest.mark.parametrize(
    "each",
    [
        pod(owner=None, phase="Succeeded", volumes=DATA),
        pod(owner="DaemonSet", phase="Failed"),
    ],
)
def test_a_finished_pod_is_always_evicted(each: Object) -> None:
    assert choose([each], RemovalOptions()).evict == [each]


@pytest.mark.parametrize(
    ("each", "needs"),
    [
        (pod(owner=None), {"force"}),
        (pod(volumes=DATA), {"delete_emptydir_data"}),
        (pod(owner=None, volumes=DATA), {"force", "delete_emptydir_data"}),
        (pod(), set()),
    ],
)
def test_which_option_a_pod_needs(each: Object, needs: set[str]) -> None:
    why = choose([each], RemovalOptions()).refuse.get("shop/a", "")
    assert {word for word in ("force", "delete_emptydir_data") if word in why} == needs
    removal = RemovalOptions(**dict.fromkeys(needs, True))
    assert choose([each], removal).evict == [each]
    for word in needs:
        less = RemovalOptions(**dict.fromkeys(needs - {word}, True))
        assert word in choose([each], less).refuse["shop/a"]


def budget(name: str = "web", v1: bool = True, **spec: Any) -> Budget:
    status = spec.pop("status", {"observedGeneration": 1})
    spec = {"selector": {"matchLabels": {"app": "web"}}, **spec}
    metadata = {"name": name, "namespace": "shop", "generation": 1}
    return Budget({"metadata": metadata, "spec": spec, "status": status}, v1)


def counted(allowed: int, healthy: int, desired: int, expected: int) -> Mapping[str, int]:
    return {
        "observedGeneration": 1,
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
    }


@pytest.mark.parametrize(
    "strict",
    [
        budget(maxUnavailable=0, status=counted(0, 2, 2, 2)),
        budget(maxUnavailable="0%", status=counted(0, 2, 2, 2)),
        budget(minAvailable="100%", status=counted(0, 2, 2, 2)),
        budget(minAvailable=2, status=counted(0, 2, 2, 2)),
        budget(minAvailable=3, status=counted(0, 2, 3, 2)),
        budget(maxUnavailable=0),
    ],
)
def test_budgets_that_are_never_met(strict: Budget) -> None:
    (found,) = never_met(Budgets([strict]).covered([pod("a"), pod("b")]))
    assert found.budget == "shop/web"
    assert found.pods == ("shop/a", "shop/b")
    assert "relax the budget" in found.text


def test_a_budget_that_refuses_now_is_met_later() -> None:
    waiting = budget(minAvailable=2, status=counted(0, 2, 2, 3))
    (found,) = obstacles([waiting], [pod()])
    assert not found.never
    assert "2 of 3 pods are healthy" in found.text
    assert not never_met(Budgets([waiting]).covered([pod()]))


def test_a_budget_that_allows_less_than_all() -> None:
    one = budget(maxUnavailable=1, status=counted(1, 3, 2, 3))
    assert not obstacles([one], [pod("a")])
    (found,) = obstacles([one], [pod("a"), pod("b")])
    assert "1 of the 2 here" in found.text


def test_pods_that_need_no_permission() -> None:
    strict = budget(maxUnavailable=0)
    terminating = pod(metadata={"deletionTimestamp": "2026-11-23T22:00:00Z"})
    other = pod(metadata={"labels": {"app": "db"}})
    elsewhere = pod(metadata={"namespace": "bank"})
    free = [terminating, other, elsewhere, pod(phase="Succeeded"), pod(phase="Pending")]
    assert not obstacles([strict], free)
    lenient = budget(maxUnavailable=0, unhealthyPodEvictionPolicy="AlwaysAllow")
    assert not obstacles([lenient], [pod(ready="False")])
    assert obstacles([lenient], [pod()])


def test_two_budgets_over_one_pod() -> None:
    two = [budget(name, status=counted(5, 5, 0, 5)) for name in "ab"]
    (found,) = never_met(Budgets(two).covered([pod()]))
    assert found.budget == "shop/a, shop/b"
    assert found.pods == ("shop/a",)


def test_an_empty_selector_by_version() -> None:
    assert budget(selector={}).covers(pod())
    assert not budget(selector={}, v1=False).covers(pod())
    assert not budget(selector=None).covers(pod())


@pytest.mark.parametrize(
    ("operator", "values", "expected"),
    [
        ("In", ["web"], True),
        ("In", ["db"], False),
        ("NotIn", ["db"], True),
        ("NotIn", ["web"], False),
        ("Exists", None, True),
        ("DoesNotExist", None, False),
    ],
)
def test_match_expressions(operator: str, values: list[str] | None, expected: bool) -> None:
    expression = {"key": "app", "operator": operator, "values": values}
    assert selects({"matchExpressions": [expression]}, {"app": "web"}) is expected


def test_container_states() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    running = {"running": {"startedAt": "2026-11-23T22:00:00Z"}}
    held = pod()
    held["status"] |= {
        "initContainerStatuses": [{"name": "install-cni", "state": waiting}],
        "containerStatuses": [
            {"name": "calico-node", "state": running, "ready": False, "restartCount": 2},
            {"name": "more", "state": running, "ready": True},
            {"name": "late"},
        ],
    }
    assert container_states(held) == {
        "install-cni": "waiting: ImagePullBackOff: no such image",
        "calico-node": "running, not ready, restarted 2 times",
        "more": "ready",
        "late": "not started",
    }
