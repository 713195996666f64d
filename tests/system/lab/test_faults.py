# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of a node or the API while upgrade.yml runs, and how the run ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.embedded import EmbeddedApi
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.serving import BOTH
from ansible_collections.dataplane.calico_bpf.tests.support.lab.node import Node
from ansible_collections.dataplane.calico_bpf.tests.support.lab.rollout import (
    FINALIZER,
    FIXED,
    Rollout,
    new_rollout,
)

pytestmark = pytest.mark.timeout(900)

OLD = "v3.28.1"
#: Requests of each kind that a run makes: by our own actions, and by those of kubernetes.core.
FAILING = (
    ("POST", r"/selfsubjectaccessreviews$"),
    ("GET", r"/leases/"),
    ("PUT", r"/leases/"),
    ("GET", r"/pods\?"),
    ("POST", r"/eviction$"),
    ("PATCH", r"/pods/calico-node-\w+$"),
    ("DELETE", r"/pods/calico-node-\w+$"),
    ("PATCH", r"/nodes/worker-1$"),
    ("PATCH", r"/daemonsets/calico-node$"),
)
#: How a DaemonSet is left that the new version did not get into.
NOT_SWITCHED = (
    "No node was touched by this run; the DaemonSet may be at OnDelete already, or not:"
    " check its updateStrategy. Rerun the same command: the run resumes here."
)
SWITCHED = (
    "No node was touched by this run; the DaemonSet is left at OnDelete, so that no pod is"
    " replaced unattended. Rerun the same command: the run resumes here."
)


def repaired(lab: Rollout, name: str, *phases: str) -> list[str]:
    """The codes of the findings that the phases repaired on a node."""
    (node,) = [node for node in lab.report()["nodes"] if node["name"] == name]
    parities = [phase["result"]["parity"] for phase in node["phases"] if phase["phase"] in phases]
    assert len(parities) == len(phases)
    assert [parity["found"] for parity in parities] == [parity["repaired"] for parity in parities]
    endpoints = [endpoint for parity in parities for endpoint in parity["endpoints"]]
    return [finding["code"] for endpoint in endpoints for finding in endpoint["findings"]]


def must_have_stopped(
    lab: Rollout, code: int, output: str, at: str, phase: str, *says: str
) -> None:
    """The run stopped at one node, which stays cordoned, with the reason; no endpoint is broken."""
    assert code == 2, output
    report = lab.report()
    assert report["verdict"] == "stopped"
    assert (report["stop"]["node"], report["stop"]["phase"]) == (at, phase), report["stop"]
    for text in says:
        assert text in report["stop"]["message"], report["stop"]["message"]
        assert text in output
    assert at in lab.cordoned()
    assert lab.strategy() == "OnDelete"
    assert not lab.holder()
    assert not lab.broken()


# --- the API --------------------------------------------------------------------------------------


def test_an_upgrade_survives_temporary_failures_of_the_api() -> None:
    """The new Felix would freeze an existing mismatch, so it is repaired before."""
    with new_rollout("embedded", nodes=1, endpoints=1, version="v3.29.4") as lab:
        api = lab.cluster.api
        assert isinstance(api, EmbeddedApi)
        (seeded,) = lab.cluster.seed_mismatch("worker-1")
        assert lab.broken() == {"worker-1": {seeded}}
        for method, path in FAILING:
            for status in (429, 500):
                api.faults.refuse(method, path, status)
            api.faults.cut(method, path)
        code, output = lab.upgrade()
        assert code == 0, output
        assert not api.faults.unmet
        lab.must_be_complete()
        assert lab.report()["verdict"] == "completed"
        assert repaired(lab, "worker-1", "qdisc_parity") == ["handle_mismatch"]


def test_a_refused_patch_of_the_daemonset_stops_the_run() -> None:
    """The API refuses the switch to OnDelete; then the patch after it."""
    with new_rollout("embedded", nodes=2, endpoints=1, version=OLD) as lab:
        before = lab.programs()
        refusals = (0, "RollingUpdate", NOT_SWITCHED), (1, "OnDelete", SWITCHED)
        for spare, strategy, left in refusals:
            says = f"{FIXED} did not get into the DaemonSet", left
            patches_are_refused(lab, lab.upgrade, *says, spare=spare)
            assert (lab.strategy(), lab.cluster.version()) == (strategy, OLD)
            assert lab.states() == {"worker-1": "untouched", "worker-2": "untouched"}
        assert lab.programs() == before
        code, output = lab.upgrade()
        assert code == 0, output
        lab.must_be_complete()


def test_a_refused_restore_of_the_strategy_and_a_refused_rollback_can_be_rerun() -> None:
    """The API refuses either; the run reports it, and a rerun completes it."""
    with new_rollout("embedded", nodes=1, endpoints=1, version=OLD) as lab:
        says = (
            "The update strategy of the DaemonSet was not restored",
            "the DaemonSet may still be at OnDelete",
        )
        patches_are_refused(lab, lab.upgrade, *says, spare=2)
        assert (lab.strategy(), lab.versions()) == ("OnDelete", {"worker-1": FIXED})
        code, output = lab.upgrade()
        assert code == 0, output
        assert lab.states() == {"worker-1": "skipped"}
        lab.must_be_complete()

        before = lab.programs()
        says = f"{OLD} did not get into the DaemonSet", SWITCHED
        patches_are_refused(lab, lab.rollback, *says, spare=1)
        assert (lab.strategy(), lab.cluster.version()) == ("OnDelete", FIXED)
        assert lab.states() == {"worker-1": "untouched"}
        assert lab.programs() == before
        code, output = lab.rollback()
        assert code == 0, output
        lab.must_be_complete(OLD)


def patches_are_refused(
    lab: Rollout, run: Callable[..., tuple[int, str]], *says: str, spare: int
) -> None:
    """The API refuses all but the first patches of the DaemonSet; the run stops and reports it."""
    api = lab.cluster.api
    assert isinstance(api, EmbeddedApi)
    api.faults.refuse("PATCH", r"/daemonsets/calico-node$", 403, spare=spare)
    code, output = run()
    assert code == 2, output
    assert not api.faults.unmet, output
    for text in says:
        assert text in " ".join(output.split()), output
    report = lab.report()
    assert report["verdict"] == "stopped"
    assert "ordered: Forbidden" in report["stop"]["message"]
    assert not lab.cordoned()
    assert not lab.holder()


# --- a Felix that is killed, with no grace, by our own deletion -----------------------------------


@pytest.mark.parametrize(
    ("api", "version", "to", "accepted", "mismatch"),
    [
        ("real", OLD, FIXED, (), "priority_mismatch"),
        ("embedded", "v3.29.3", "v3.29.4", ("known_bad_path",), "handle_mismatch"),
    ],
)
def test_endpoints_of_a_felix_that_dies_in_mid_pass_are_repaired(
    api: str, version: str, to: str, accepted: tuple[str, ...], mismatch: str
) -> None:
    """Between its hooks on one node, between its add and its delete on the other."""
    with new_rollout(api, nodes=2, endpoints=1, version=version) as lab:
        for name, point in (("worker-1", "between_hooks"), ("worker-2", "after_add")):
            where = {"interface": "cali*", "hook": "ingress", "point": point}
            lab.cluster.node(name).faults.killed_in_pass = where
        code, output = lab.upgrade(version=to, calico_bpf_overrides=list(accepted))
        assert code == 0, output
        lab.must_be_complete(to)
        # The repair runs while the new Felix works. If that re-attached first, the old program is
        # stale, and the new one is in another slot.
        after = ("reattach",)
        assert repaired(lab, "worker-1", *after) == [mismatch]
        left = {"duplicate_program", "stale_program", mismatch}
        assert set(repaired(lab, "worker-2", *after)) <= left


# --- never two Felixes ----------------------------------------------------------------------------


class Felixes(threading.Thread):
    """Counts the Felix processes of some nodes continuously."""

    def __init__(self, *nodes: Node) -> None:
        super().__init__(name="felixes")
        self._nodes = nodes
        self._over = threading.Event()
        self.looks = 0
        self.most = 0

    def run(self) -> None:
        while not self._over.wait(0.02):
            for node in self._nodes:
                self.most = max(self.most, len(node.felix_processes()))
            self.looks += 1

    def stop(self) -> None:
        self._over.set()
        self.join()


@contextmanager
def never_two_felixes(lab: Rollout) -> Iterator[None]:
    counting = Felixes(*lab.cluster.nodes.values())
    counting.start()
    try:
        yield
    finally:
        counting.stop()
    assert counting.looks > 100
    assert counting.most == 1


@pytest.mark.parametrize("api", BOTH)
def test_two_felixes_never_run_on_a_node(api: str) -> None:
    """Even if the old one does not end: its pod is left unchanged, and the run stops."""
    with new_rollout(api, nodes=2, endpoints=1, version=OLD) as lab:
        node = lab.cluster.node("worker-1")
        node.faults.linger = 3600
        (old,) = node.felix_processes()
        with never_two_felixes(lab):
            code, output = lab.upgrade(node_upgrade_timeout=3)
            must_have_stopped(lab, code, output, "worker-1", "node_upgrade", *does_not_end(old))
            assert lab.cordoned() == {"worker-1"}
            assert lab.finalizers("worker-1") == [FINALIZER]
            assert node.felix_processes() == [old]
            assert lab.versions() == {"worker-1": "none", "worker-2": OLD}
            node.faults.linger = 0
            code, output = lab.upgrade()
        assert code == 0, output
        lab.must_be_complete()
        assert not lab.finalizers("worker-1")


def does_not_end(felix: int) -> tuple[str, ...]:
    return (
        "was deleted, but the kubelet has not reported within 3 s that its containers have ended",
        "the node is Ready. No second calico-node is started on the node",
        "Processes of that pod on the node: ",
        f"calico-node {felix}",
        "rerun: the run resumes here",
    )


def test_a_felix_that_the_runtime_lost_is_found() -> None:
    """The kubelet reports its end, so the successor starts too: only the node shows it."""
    with new_rollout("embedded", nodes=2, endpoints=1, version=OLD, heartbeat=3600) as lab:
        node = lab.cluster.node("worker-1")
        node.faults.runtime_loses_felix = True
        (lost,) = node.felix_processes()
        pod = lab.cluster.calico_node("worker-1")
        assert pod
        says = f"of {pod['metadata']['name']} have ended, but 2 s later", f"calico-node {lost}"
        code, output = lab.upgrade(node_upgrade_felix_timeout=2)
        must_have_stopped(lab, code, output, "worker-1", "node_upgrade", *says, "kill -9")
        assert not lab.finalizers("worker-1")
        assert lost in node.felix_processes()

        says = f"process {lost} of the pod with the uid {pod['metadata']['uid']}", "kill -9"
        code, output = lab.upgrade()
        must_have_stopped(lab, code, output, "worker-1", "node_upgrade", *says)
        assert lab.states() == {"worker-1": "failed", "worker-2": "untouched"}

        node.faults.runtime_loses_felix = False
        node.exec("kill", "-9", str(lost))
        code, output = lab.upgrade()
        assert code == 0, output
        lab.must_be_complete()


# --- a new Felix that is not well -----------------------------------------------------------------


def test_a_canary_that_never_becomes_ready_is_rolled_back() -> None:
    with new_rollout("real", nodes=2, endpoints=1, version=OLD) as lab:
        canary, before = lab.cluster.node("worker-1"), lab.programs()
        canary.faults.felix(never_ready=True)
        code, output = lab.upgrade(reattach_patience=4, reattach_timeout=4)
        must_have_stopped(lab, code, output, "worker-1", "reattach", "not Ready within 4 s")
        assert "run rollback.yml" in output
        assert lab.versions() == {"worker-1": FIXED, "worker-2": OLD}
        assert lab.cordoned() == {"worker-1"}
        assert lab.states() == {"worker-1": "failed", "worker-2": "untouched"}
        assert lab.programs() == before
        is_not_rolled_back_while_unreachable(lab, canary)
        rollback = lab.start_rollback()
        lab.cluster.wait(lambda: lab.versions()["worker-1"] == OLD, "the former revision is back")
        canary.faults.felix()
        code, output = rollback.wait()
        assert code == 0, output
        lab.must_be_complete(OLD)
        of_the_other = {place: ids for place, ids in before.items() if place[0] == "worker-2"}
        assert of_the_other.items() <= lab.programs().items()


def is_not_rolled_back_while_unreachable(lab: Rollout, canary: Node) -> None:
    """Ansible can't reach it; its kubelet works. Nothing is changed, and the Lease expires."""
    before = lab.programs()
    away = canary.init_file.rename(canary.folder / "away")
    code, output = lab.rollback()
    away.rename(canary.init_file)
    assert code == 4, output
    assert "fatal: [worker-1]: UNREACHABLE!" in output
    assert "drain: begun" not in output
    assert (lab.cluster.version(), lab.strategy()) == (FIXED, "OnDelete")
    assert lab.cordoned() == {"worker-1"}
    assert lab.programs() == before
    lab.await_free_lease()


def test_a_node_that_fails_verification_stops_its_batch() -> None:
    """It stays dirty; then it re-attaches all the time, with many ``tc`` processes."""
    with new_rollout("embedded", nodes=3, endpoints=1, version=OLD, heartbeat=0.5) as lab:
        bad = lab.cluster.node("worker-2")
        pairs: dict[str, Any] = {"calico_bpf_batches": [2, 1]}
        bad.faults.felix(dirty=["cali*"])
        code, output = lab.upgrade(reattach_patience=10, reattach_timeout=10, **pairs)
        says: tuple[str, ...] = ("not Ready within 10 s", "leaving it dirty")
        must_have_stopped(lab, code, output, "worker-2", "reattach", *says)
        the_other_nodes_are_unchanged(lab)
        bad.faults.felix(churn=True, hold_tc=6)
        code, output = lab.upgrade(**pairs)
        says = (
            "worker-2 does not verify: ",
            "tc processes is bad: at most ",
            "(wanted: up to 4). churn is bad: ",
        )
        must_have_stopped(lab, code, output, "worker-2", "verify", *says)
        the_other_nodes_are_unchanged(lab)
        bad.faults.felix()
        code, output = lab.upgrade(**pairs)
        assert code == 0, output
        lab.must_be_complete()


def the_other_nodes_are_unchanged(lab: Rollout) -> None:
    """The other node of the batch is interrupted, not failed; the last one is untouched."""
    assert lab.states() == {
        "worker-1": "interrupted",
        "worker-2": "failed",
        "worker-3": "untouched",
    }
    assert lab.cordoned() == {"worker-1", "worker-2"}
    assert lab.versions() == {"worker-1": FIXED, "worker-2": FIXED, "worker-3": OLD}
