# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of upgrade.yml that end in the middle, and the next run, which resumes there."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import terminates
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.serving import BOTH
from ansible_collections.dataplane.calico_bpf.tests.support.lab.lab_cluster import Playbook
from ansible_collections.dataplane.calico_bpf.tests.support.lab.rollout import (
    FINALIZER,
    FIXED,
    Rollout,
    new_rollout,
)

pytestmark = pytest.mark.timeout(900)

OLD = "v3.28.1"
#: What shows that a run waits for the Lease of one that ended without a word.
WATCHES = "waiting to see whether it is renewed"
NOTHING = "Nothing was evicted, so this run does not keep the node cordoned."


@contextmanager
def kubelets_paused(lab: Rollout) -> Iterator[None]:
    """No pod ends and none starts."""
    lab.cluster.kubelet.paused.set()
    try:
        yield
    finally:
        lab.cluster.kubelet.paused.clear()


def must_have_stopped(
    lab: Rollout,
    code: int,
    output: str,
    at: str,
    *,
    unreachable: bool = False,
    evicted: bool = True,
) -> None:
    """The run stopped at one node, cordoned if a pod was evicted there; no endpoint is broken."""
    assert code == (4 if unreachable else 2), output
    report = lab.report()
    assert (report["verdict"], report["stop"]["node"]) == ("stopped", at), report["stop"]
    assert not lab.holder()
    must_be_left_at(lab, at, evicted)


def must_be_left_at(lab: Rollout, node: str, evicted: bool = True) -> None:
    assert (node in lab.cordoned()) is evicted
    assert lab.strategy() == "OnDelete"
    assert not lab.broken()


# --- a budget -------------------------------------------------------------------------------------


def test_a_budget_that_refuses_evictions_delays_the_drain_until_its_deadline() -> None:
    """It can never be met, which the user accepted; the second run drains once it is relaxed."""
    with new_rollout("real", nodes=2, endpoints=1, version=OLD) as lab:
        before = lab.programs()
        require_available(lab, 2)
        accepted: dict[str, Any] = {"calico_bpf_overrides": ["budget_never_met"]}
        code, output = lab.upgrade(drain_timeout=7, **accepted)
        must_have_stopped(lab, code, output, "worker-1", evicted=False)
        stop = lab.report()["stop"]
        assert stop["phase"] == "drain"
        assert NOTHING in stop["message"]
        assert not any("ordoned by this run" in step for step in lab.report()["next"])
        assert "worker-1 is not empty after 7 s; evicted: 0 pods; still there:" in stop["message"]
        left = web_pods(lab, "worker-1")
        assert left
        for name in left:
            assert f"demo/{name}: refused by a budget: The disruption budget" in stop["message"]
        assert "retried every 5 s" in output
        assert lab.states() == {"worker-1": "failed", "worker-2": "untouched"}
        assert lab.cordoned() == set()
        assert set(lab.versions().values()) == {OLD}
        assert lab.programs() == before
        playbook = lab.start(**accepted)
        lab.seen(playbook, "refused by a budget")
        require_available(lab, 1)
        code, output = playbook.wait()
        assert code == 0, output
        lab.must_be_complete()


def require_available(lab: Rollout, minimum: int) -> None:
    """Set minAvailable of the web pods' budget, and wait until its status is current."""
    client = lab.cluster.client
    policy = client.do("GET", "/apis/policy")["preferredVersion"]["groupVersion"]
    path = f"/apis/{policy}/namespaces/demo/poddisruptionbudgets/web"
    budget = client.do("PATCH", path, {"spec": {"minAvailable": minimum}})

    def counted() -> bool:
        seen = client.do("GET", path)["status"].get("observedGeneration")
        return bool(seen == budget["metadata"]["generation"])

    lab.cluster.wait(counted, "the budget is counted")


def web_pods(lab: Rollout, node: str) -> list[str]:
    here = (pod for pod in lab.cluster.pods("demo") if pod["spec"].get("nodeName") == node)
    return [name for pod in here if (name := pod["metadata"]["name"]).startswith("web-")]


# --- a node that is lost --------------------------------------------------------------------------


def test_no_node_is_changed_after_a_lost_one() -> None:
    """A node is lost during its drain in a batch of two; then before its turn."""
    with new_rollout("real", nodes=3, endpoints=1, version=OLD) as lab:
        node, before = lab.cluster.node("worker-2"), lab.programs()
        # Time for the budget to let a pod of each node go, one after the other.
        playbook = lab.start(calico_bpf_batches=[2, 1], drain_timeout=13)
        with kubelets_paused(lab):
            for name in ("worker-1", "worker-2"):
                lab.seen(playbook, f"{name}: waiting for ")
            node.kill()
        code, output = playbook.wait()
        must_have_stopped(lab, code, output, "worker-2")
        assert "worker-2 (the node is NotReady: its kubelet cannot end the pods)" in output
        stop = lab.report()["stop"]
        assert (stop["node"], stop["phase"]) == ("worker-2", "drain")
        wanted = {"worker-1": "interrupted", "worker-2": "failed", "worker-3": "untouched"}
        assert lab.states() == wanted
        assert lab.cordoned() == {"worker-1", "worker-2"}
        assert set(lab.versions().values()) == {OLD}
        assert of(before, "worker-1", "worker-3").items() <= lab.programs().items()
        restart(lab, "worker-2")

        playbook = lab.start()
        lab.seen(playbook, "worker-1] verify: begun")
        node.kill()
        code, output = playbook.wait()
        must_have_stopped(lab, code, output, "worker-2", unreachable=True)
        assert "worker-2 became unreachable in this run" in output
        wanted = {"worker-1": "done", "worker-2": "unreachable", "worker-3": "untouched"}
        assert lab.states() == wanted
        assert lab.cordoned() == {"worker-2"}
        assert lab.versions() == {"worker-1": FIXED, "worker-2": OLD, "worker-3": OLD}
        assert of(before, "worker-3").items() <= lab.programs().items()
        restart(lab, "worker-2")

        code, output = lab.upgrade()
        assert code == 0, output
        lab.must_be_complete()


def test_a_node_that_dies_while_its_pod_ends_stops_the_run() -> None:
    """The state of the old Felix is unknown then, and no successor is started."""
    with new_rollout("embedded", nodes=2, endpoints=1, version=OLD) as lab:
        node, before = lab.cluster.node("worker-1"), lab.programs()
        node.faults.linger = 3600
        playbook = lab.start(node_upgrade_timeout=5)
        lab.cluster.wait(lambda: leaving(lab, "worker-1"), "the old pod is deleted", 120)
        node.kill()
        code, output = playbook.wait()
        must_have_stopped(lab, code, output, "worker-1")
        stop = lab.report()["stop"]
        assert stop["phase"] == "node_upgrade"
        assert "the node is NotReady" in stop["message"]
        assert "Processes of that pod on the node: unknown (" in stop["message"]
        assert lab.finalizers("worker-1") == [FINALIZER]
        assert lab.versions() == {"worker-1": "none", "worker-2": OLD}
        assert of(before, "worker-2").items() <= lab.programs().items()
        node.faults.linger = 0
        node.start()
        lab.cluster.wait(lambda: lab.versions()["worker-1"] == FIXED, "there is a successor")
        lab.cluster.wait(node.agents, "the endpoint is there again")
        code, output = lab.upgrade()
        assert code == 0, output
        lab.must_be_complete()
        assert not lab.finalizers("worker-1")


def of(programs: Mapping[tuple[str, str], Any], *nodes: str) -> dict[tuple[str, str], Any]:
    return {place: ids for place, ids in programs.items() if place[0] in nodes}


def restart(lab: Rollout, name: str) -> None:
    """Start a node again, and wait for all its pods."""
    lab.cluster.node(name).start()
    lab.cluster.wait(lab.cluster.all_ready, "all pods are Ready again")


# --- a run that is broken off ---------------------------------------------------------------------


@pytest.mark.parametrize("api", BOTH)
def test_an_interrupted_run_is_resumed(api: str) -> None:
    """By SIGINT and SIGKILL, in mid-drain and while a pod ends; at last a second run is refused."""
    with new_rollout(api, nodes=2, endpoints=1, version=OLD) as lab:
        before = lab.programs()
        run = interrupt_in_mid_drain(lab, lab.start(), "worker-1", signal.SIGINT)
        assert lab.programs() == before
        assert set(lab.versions().values()) == {OLD}
        interrupt_while_a_pod_ends(lab, run, "worker-1", signal.SIGKILL)

        run = interrupt_in_mid_drain(lab, lab.start(), "worker-2", signal.SIGKILL)
        assert lab.versions() == {"worker-1": FIXED, "worker-2": OLD}
        interrupt_while_a_pod_ends(lab, run, "worker-2", signal.SIGINT)

        run = lab.start()
        lab.seen(run, "worker-2] drain: begun")
        rival_is_refused(lab)
        code, output = run.wait()
        assert code == 0, output
        lab.must_be_complete()
        assert not [found for name in lab.cluster.nodes for found in lab.finalizers(name)]


def interrupt_in_mid_drain(lab: Rollout, run: Playbook, node: str, how: signal.Signals) -> Playbook:
    """End a run while it waits for pods that don't end; the next run, which takes its Lease.

    If a process of the ended run still worked, it would keep renewing that Lease.
    """
    lab.seen(run, f"{node}] drain: begun")
    with kubelets_paused(lab):
        lab.seen(run, f"{node}: waiting for ")
        interrupt(run, how)
        must_be_left_at(lab, node)
        following_run = lab.start()
        lab.seen(following_run, WATCHES)
        lab.seen(following_run, f"{node}] drain: begun")
    return following_run


def interrupt_while_a_pod_ends(lab: Rollout, run: Playbook, name: str, how: signal.Signals) -> None:
    """End a run between the deletion of the old pod and the removal of the finalizer.

    The old pod stays, terminated: with a successor, or before 1.27 without one.
    """
    node = lab.cluster.node(name)
    node.faults.linger = 3600
    lab.seen(run, f"{name}] node_upgrade: begun")
    lab.cluster.wait(lambda: leaving(lab, name), "the old pod is deleted")
    interrupt(run, how)
    assert lab.finalizers(name) == [FINALIZER]
    node.faults.linger = 0
    lab.cluster.wait(lambda: ended(lab, name), "the end of the old Felix is reported")
    left = FIXED if lab.replaces_terminal else "none"
    lab.cluster.wait(lambda: lab.versions()[name] == left, f"calico-node is {left}")
    must_be_left_at(lab, name)
    assert lab.finalizers(name) == [FINALIZER]
    running = 1 if lab.replaces_terminal else 0
    lab.cluster.wait(lambda: len(node.felix_processes()) == running, f"{running} Felix runs")


def leaving(lab: Rollout, node: str) -> list[dict[str, Any]]:
    """The calico-node pods of the node that are being deleted."""
    pods = [pod for pod in lab.cluster.pods("kube-system") if terminates(pod)]
    return [pod for pod in pods if pod["spec"].get("nodeName") == node]


def ended(lab: Rollout, node: str) -> bool:
    """Whether the containers of the node's deleted pod are reported as terminated."""
    (pod,) = leaving(lab, node)
    return all("terminated" in status["state"] for status in pod["status"]["containerStatuses"])


def interrupt(run: Playbook, how: signal.Signals) -> None:
    """Signal a run. Python loses a SIGINT that arrives in a finalizer, so it is sent again."""
    run.signal(how)
    try:
        run.process.wait(20)
    except subprocess.TimeoutExpired:
        run.signal(how)
    code, output = run.wait(60)
    assert code == {signal.SIGINT: 99, signal.SIGKILL: -signal.SIGKILL}[how], output


def rival_is_refused(lab: Rollout) -> None:
    holder = lab.holder()
    assert holder
    code, output = lab.upgrade()
    assert code == 2, output
    assert "another rollout works on this cluster: Lease kube-system/calico-bpf-rollout" in output
    assert f"is held by {holder}, since" in output
    assert "nothing was changed" in output
