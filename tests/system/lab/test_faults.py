# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong on a node or at the API while upgrade.yml runs, and what becomes of it."""

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
    """What was found, and repaired, at the endpoints of a node in phases: the findings' codes."""
    (node,) = [node for node in lab.report()["nodes"] if node["name"] == name]
    parities = [each["result"]["parity"] for each in node["phases"] if each["phase"] in phases]
    assert len(parities) == len(phases)
    assert [parity["found"] for parity in parities] == [parity["repaired"] for parity in parities]
    endpoints = [endpoint for parity in parities for endpoint in parity["endpoints"]]
    return [found["code"] for each in endpoints for found in each["findings"]]


def must_have_stopped(lab: Rollout, code: int, told: str, at: str, phase: str, *says: str) -> None:
    """A run stopped at one node, cordoned, for a reason that it gave; no endpoint is worse."""
    assert code == 2, told
    report = lab.report()
    assert report["verdict"] == "stopped"
    assert (report["stop"]["node"], report["stop"]["phase"]) == (at, phase), report["stop"]
    for each in says:
        assert each in report["stop"]["message"], report["stop"]["message"]
        assert each in told
    assert at in lab.cordoned()
    assert lab.strategy() == "OnDelete"
    assert not lab.holder()
    assert not lab.broken()


# --- the API --------------------------------------------------------------------------------------


def test_an_api_that_fails_for_a_while_is_outlived() -> None:
    """Felix inherits a mismatch, which replacing in place would freeze: it is repaired before."""
    with new_rollout("embedded", nodes=1, endpoints=1, version="v3.29.4") as lab:
        api = lab.cluster.api
        assert isinstance(api, EmbeddedApi)
        (seeded,) = lab.cluster.seed_mismatch("worker-1")
        assert lab.broken() == {"worker-1": {seeded}}
        for method, path in FAILING:
            for status in (429, 500):
                api.faults.refuse(method, path, status)
            api.faults.cut(method, path)
        code, told = lab.upgrade()
        assert code == 0, told
        assert not api.faults.unmet
        lab.must_be_complete()
        assert lab.report()["verdict"] == "completed"
        assert repaired(lab, "worker-1", "qdisc_parity") == ["handle_mismatch"]


def test_a_new_version_that_does_not_get_in_stops_the_run() -> None:
    """The API refuses to switch the DaemonSet to OnDelete; then what comes after that."""
    with new_rollout("embedded", nodes=2, endpoints=1, version=OLD) as lab:
        before = lab.programs()
        refusals = (0, "RollingUpdate", NOT_SWITCHED), (1, "OnDelete", SWITCHED)
        for spare, strategy, left in refusals:
            says = f"{FIXED} did not get into the DaemonSet", left
            patches_are_refused(lab, lab.upgrade, *says, spare=spare)
            assert (lab.strategy(), lab.cluster.version()) == (strategy, OLD)
            assert lab.states() == {"worker-1": "untouched", "worker-2": "untouched"}
        assert lab.programs() == before
        code, told = lab.upgrade()
        assert code == 0, told
        lab.must_be_complete()


def test_a_strategy_that_is_not_given_back_and_a_rollback_that_does_not_get_in() -> None:
    """The API refuses either; each is told, and the same again completes it."""
    with new_rollout("embedded", nodes=1, endpoints=1, version=OLD) as lab:
        says = (
            "The update strategy of the DaemonSet was not restored",
            "the DaemonSet may still be at OnDelete",
        )
        patches_are_refused(lab, lab.upgrade, *says, spare=2)
        assert (lab.strategy(), lab.versions()) == ("OnDelete", {"worker-1": FIXED})
        code, told = lab.upgrade()
        assert code == 0, told
        assert lab.states() == {"worker-1": "skipped"}
        lab.must_be_complete()

        before = lab.programs()
        says = f"{OLD} did not get into the DaemonSet", SWITCHED
        patches_are_refused(lab, lab.rollback, *says, spare=1)
        assert (lab.strategy(), lab.cluster.version()) == ("OnDelete", FIXED)
        assert lab.states() == {"worker-1": "untouched"}
        assert lab.programs() == before
        code, told = lab.rollback()
        assert code == 0, told
        lab.must_be_complete(OLD)


def patches_are_refused(
    lab: Rollout, run: Callable[..., tuple[int, str]], *says: str, spare: int
) -> None:
    """The patches of the DaemonSet, but for the first few; the run is stopped, and says so."""
    api = lab.cluster.api
    assert isinstance(api, EmbeddedApi)
    api.faults.refuse("PATCH", r"/daemonsets/calico-node$", 403, spare=spare)
    code, told = run()
    assert code == 2, told
    assert not api.faults.unmet, told
    for each in says:
        assert each in " ".join(told.split()), told
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
def test_a_felix_that_dies_in_mid_pass_leaves_nothing_behind(
    api: str, version: str, to: str, accepted: tuple[str, ...], mismatch: str
) -> None:
    """Between its hooks at one node, between its add and its delete at the other."""
    with new_rollout(api, nodes=2, endpoints=1, version=version) as lab:
        for name, point in (("worker-1", "between_hooks"), ("worker-2", "after_add")):
            where = {"interface": "cali*", "hook": "ingress", "point": point}
            lab.cluster.node(name).faults.killed_in_pass = where
        code, told = lab.upgrade(
            version=to, calico_bpf_overrides=list(accepted), reattach_patience=10
        )
        assert code == 0, told
        lab.must_be_complete(to)
        # What the old Felix left is repaired beside the new one, which may have been at work there:
        # the old program is then a stale one, and the new one's slot another.
        after = ("reattach",)
        assert repaired(lab, "worker-1", *after) == [mismatch]
        left = {"duplicate_program", "stale_program", mismatch}
        assert set(repaired(lab, "worker-2", *after)) <= left


# --- never two Felixes ----------------------------------------------------------------------------


class Felixes(threading.Thread):
    """Counts the Felixes of some nodes all the time."""

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
def test_there_are_never_two_felixes_on_a_node(api: str) -> None:
    """Not although the old one does not end: its pod is left as it is, and the run stops."""
    with new_rollout(api, nodes=2, endpoints=1, version=OLD) as lab:
        node = lab.cluster.node("worker-1")
        node.faults.linger = 3600
        (old,) = node.felix_processes()
        with never_two_felixes(lab):
            code, told = lab.upgrade(node_upgrade_timeout=3)
            must_have_stopped(lab, code, told, "worker-1", "node_upgrade", *does_not_end(old))
            assert lab.cordoned() == {"worker-1"}
            assert lab.finalizers("worker-1") == [FINALIZER]
            assert node.felix_processes() == [old]
            assert lab.versions() == {"worker-1": "none", "worker-2": OLD}
            node.faults.linger = 0
            code, told = lab.upgrade()
        assert code == 0, told
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
    """The kubelet reports its end, so the successor starts beside it: only the node shows it."""
    with new_rollout("embedded", nodes=2, endpoints=1, version=OLD, heartbeat=3600) as lab:
        node = lab.cluster.node("worker-1")
        node.faults.runtime_loses_felix = True
        (lost,) = node.felix_processes()
        pod = lab.cluster.calico_node("worker-1")
        assert pod
        says = f"of {pod['metadata']['name']} have ended, but 2 s later", f"calico-node {lost}"
        code, told = lab.upgrade(node_upgrade_felix_timeout=2)
        must_have_stopped(lab, code, told, "worker-1", "node_upgrade", *says, "kill -9")
        assert not lab.finalizers("worker-1")
        assert lost in node.felix_processes()

        says = f"process {lost} of the pod with the uid {pod['metadata']['uid']}", "kill -9"
        code, told = lab.upgrade()
        must_have_stopped(lab, code, told, "worker-1", "node_upgrade", *says)
        assert lab.states() == {"worker-1": "failed", "worker-2": "untouched"}

        node.faults.runtime_loses_felix = False
        node.exec("kill", "-9", str(lost))
        code, told = lab.upgrade()
        assert code == 0, told
        lab.must_be_complete()


# --- a new Felix that is not well -----------------------------------------------------------------


def test_a_canary_that_never_gets_ready_is_rolled_back() -> None:
    with new_rollout("real", nodes=2, endpoints=1, version=OLD) as lab:
        canary, before = lab.cluster.node("worker-1"), lab.programs()
        canary.faults.felix(never_ready=True)
        code, told = lab.upgrade(reattach_patience=4, reattach_timeout=4)
        must_have_stopped(lab, code, told, "worker-1", "reattach", "not Ready within 4 s")
        assert "run rollback.yml" in told
        assert lab.versions() == {"worker-1": FIXED, "worker-2": OLD}
        assert lab.cordoned() == {"worker-1"}
        assert lab.states() == {"worker-1": "failed", "worker-2": "untouched"}
        assert lab.programs() == before
        is_not_rolled_back_while_out_of_reach(lab, canary)
        rollback = lab.start_rollback()
        lab.cluster.wait(lambda: lab.versions()["worker-1"] == OLD, "the former revision is back")
        canary.faults.felix()
        code, told = rollback.wait()
        assert code == 0, told
        lab.must_be_complete(OLD)
        of_the_other = {place: held for place, held in before.items() if place[0] == "worker-2"}
        assert of_the_other.items() <= lab.programs().items()


def is_not_rolled_back_while_out_of_reach(lab: Rollout, canary: Node) -> None:
    """For Ansible, that is; its kubelet goes on. Nothing is changed, and the Lease runs out."""
    before = lab.programs()
    away = canary.init_file.rename(canary.folder / "away")
    code, told = lab.rollback()
    away.rename(canary.init_file)
    assert code == 4, told
    assert "fatal: [worker-1]: UNREACHABLE!" in told
    assert "drain: begun" not in told
    assert (lab.cluster.version(), lab.strategy()) == (FIXED, "OnDelete")
    assert lab.cordoned() == {"worker-1"}
    assert lab.programs() == before
    lab.await_free_lease()


def test_a_node_that_does_not_verify_stops_its_batch() -> None:
    """Dirty for ever; then with re-attachments that never end, and a pile of ``tc``."""
    with new_rollout("embedded", nodes=3, endpoints=1, version=OLD, heartbeat=0.5) as lab:
        bad = lab.cluster.node("worker-2")
        pairs: dict[str, Any] = {"calico_bpf_batches": [2, 1]}
        bad.faults.felix(dirty=["cali*"])
        code, told = lab.upgrade(reattach_patience=10, reattach_timeout=10, **pairs)
        says = "not Ready within 10 s", "leaving it dirty"
        must_have_stopped(lab, code, told, "worker-2", "reattach", *says)
        must_have_left_the_others(lab)
        bad.faults.felix(churn=True, hold_tc=6)
        code, told = lab.upgrade(**pairs)
        says = "worker-2 does not verify: tc processes: at most ", "(wanted: up to 4). churn: "
        must_have_stopped(lab, code, told, "worker-2", "verify", *says)
        must_have_left_the_others(lab)
        bad.faults.felix()
        code, told = lab.upgrade(**pairs)
        assert code == 0, told
        lab.must_be_complete()


def must_have_left_the_others(lab: Rollout) -> None:
    """The one of its batch is left as it is, and not said to have failed; the last is untouched."""
    assert lab.states() == {
        "worker-1": "interrupted",
        "worker-2": "failed",
        "worker-3": "untouched",
    }
    assert lab.cordoned() == {"worker-1", "worker-2"}
    assert lab.versions() == {"worker-1": FIXED, "worker-2": FIXED, "worker-3": OLD}
