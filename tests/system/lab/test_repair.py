# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""audit.yml and repair.yml on nodes broken as in production; neither uses the Kubernetes API."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.felix.maps import CONNTRACK
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import ready
from ansible_collections.dataplane.calico_bpf.tests.support.lab.node import Node
from ansible_collections.dataplane.calico_bpf.tests.support.lab.rollout import (
    QUICK,
    Rollout,
    new_rollout,
)

pytestmark = pytest.mark.timeout(900)

#: Felix's, in seconds: long beside what a repair must see hold still, as it is in the field.
RETRY = 2.0


def test_a_permanently_dirty_endpoint_is_reported_then_repaired_in_place() -> None:
    """#10143 at 3.29.1, with Felix at work all the time. Churn does not fail the run."""
    with new_rollout(
        "embedded", nodes=2, endpoints=2, version="v3.29.1", heartbeat=3600
    ) as rollout:
        cluster, node = rollout.cluster, rollout.cluster.node("worker-1")
        (interface,) = cluster.seed_mismatch("worker-1")
        stays_dirty(rollout, node, interface)
        pods, programs = uids(rollout), other_programs(rollout, interface)

        code, output = play(rollout, "audit.yml")
        assert code == 0, output
        assert re.search(
            rf"1 of \d .* Felix is not ready;.* {interface} is drifted, outlook stuck: handle_mis",
            output,
        )
        assert re.search(r"0 of \d .* Felix is ready", output)
        code, output = play(rollout, "audit.yml", calico_bpf_fail_on_drift=True)
        assert code == 2, output
        assert f"{interface} is drifted, outlook stuck" in output
        assert re.findall(r"^(\S+) .* failed=1", output, re.M) == ["worker-1"]

        code, output = play(rollout, "repair.yml", "--check")
        assert code == 0, output
        assert changed(output) == {"worker-1": 1, "worker-2": 0}
        assert rollout.broken() == {"worker-1": {interface}}
        assert (uids(rollout), other_programs(rollout, interface)) == (pods, programs)

        code, output = play(rollout, "repair.yml")
        assert code == 0, output
        assert changed(output) == {"worker-1": 1, "worker-2": 0}
        must_be_healthy(rollout)
        assert (uids(rollout), other_programs(rollout, interface)) == (pods, programs)
        with beating(node):
            code, output = play(rollout, "repair.yml")
        assert code == 0, output
        assert changed(output) == {"worker-1": 0, "worker-2": 0}
        must_be_healthy(rollout)
        assert uids(rollout) == pods


@pytest.mark.parametrize("how", ["programs", "clsact"])
def test_a_node_stripped_of_all_its_programs_is_never_called_healthy(how: str) -> None:
    """Another agent removed everything; the Felix that runs has no reason to attach again."""
    with new_rollout(
        "embedded", nodes=2, endpoints=2, version="v3.29.5", heartbeat=3600
    ) as rollout:
        node = rollout.cluster.node("worker-1")
        for interface in node.interfaces():
            strip(node, interface, how)
        bare = len(node.interfaces())
        code, output = play(rollout, "audit.yml", calico_bpf_fail_on_drift=True)
        assert code == 2, output
        assert re.findall(r"^(\S+) .* failed=1", output, re.M) == ["worker-1"]
        assert output.count("NO POLICY IS ENFORCED") >= bare
        code, output = play(rollout, "audit.yml")
        assert code == 0, output
        assert f"{bare} of {bare} endpoints drifted" in output
        code, output = play(rollout, "repair.yml", calico_bpf_batches=["100%"])
        assert code == 2, output
        assert f"parity is bad: {bare} of {bare} drifted" in output
        code, output = play(rollout, "repair.yml", calico_bpf_verify=False)
        assert code == 2, output
        assert "NO POLICY IS ENFORCED" in output


def test_a_host_without_calico_passes_only_if_the_run_says_so() -> None:
    with new_rollout("embedded", nodes=1, endpoints=1, version="v3.29.5") as rollout:
        node = rollout.cluster.node("worker-1")
        for interface in node.interfaces():
            strip(node, interface, "clsact")
        rollout.cluster.kubelet.paused.set()
        for pid in node.felix_processes():
            node.exec("kill", "-9", str(pid))
        node.exec("rm", str(CONNTRACK))
        code, output = play(rollout, "audit.yml", calico_bpf_fail_on_drift=True)
        assert code == 2, output
        assert "there is no trace of Calico's eBPF dataplane on this node" in output
        assert "For hosts without Calico, set calico_bpf_allow_no_calico" in output
        allowed = {"calico_bpf_fail_on_drift": True, "calico_bpf_allow_no_calico": True}
        for name in ("audit.yml", "repair.yml"):
            code, output = play(rollout, name, **allowed)
            assert code == 0, output
        code, output = play(rollout, "audit.yml")
        assert code == 0, output
        assert "NOT JUDGED: there is no trace of Calico" in output


def test_what_a_short_result_does_not_list_still_counts() -> None:
    with new_rollout(
        "embedded", nodes=1, endpoints=3, version="v3.29.5", heartbeat=3600
    ) as rollout:
        broken = rollout.cluster.seed_mismatch("worker-1", 2)
        assert len(broken) == 2
        short = {"calico_bpf_max_endpoints": 1}
        code, output = play(rollout, "audit.yml", **short)
        assert code == 0, output
        assert re.search(r"2 of \d endpoints drifted", output)
        assert "and 1 more that are not listed (findings of all: handle_mismatch: 2)" in output
        code, output = play(rollout, "audit.yml", calico_bpf_fail_on_drift=True, **short)
        assert code == 2, output
        assert "2 endpoints of worker-1 are not consistent" in output
        code, output = play(rollout, "repair.yml", **short)
        assert code == 0, output
        assert not rollout.broken()


def test_an_audit_and_a_repair_write_a_report() -> None:
    with new_rollout(
        "embedded", nodes=2, endpoints=2, version="v3.29.5", heartbeat=3600
    ) as rollout:
        folder = rollout.cluster.folder / "reports"
        rollout.cluster.seed_mismatch("worker-1")
        code, output = play(rollout, "repair.yml", "--check")
        assert code == 0, output
        assert not folder.exists(), "check mode writes no report"

        code, output = play(rollout, "audit.yml")
        assert code == 0, output
        audit = report_in(folder, output)
        assert (audit["title"], audit["kind"], audit["verdict"]) == ("Audit", "audit", "partial")
        assert audit["totals"]["left"] == 1
        assert {n["name"]: n["state"] for n in audit["nodes"]} == {
            "worker-1": "done",
            "worker-2": "done",
        }
        code, output = play(rollout, "audit.yml", calico_bpf_fail_on_drift=True)
        assert code == 2, output
        failed = report_in(folder, output)
        assert (failed["verdict"], failed["stop"]["node"]) == ("stopped", "worker-1")

        code, output = play(rollout, "repair.yml")
        assert code == 0, output
        repair = report_in(folder, output)
        assert (repair["title"], repair["verdict"]) == ("Repair", "completed")
        assert repair["totals"]["repaired"] == 1
        assert repair["next"] == ["Nothing is left to do."]


def report_in(folder: Path, output: str) -> dict[str, Any]:
    """The report whose path the end of the output shows."""
    shown = re.findall(r"Report: (\S+)/report\.html", output)
    assert len(shown) == 1, output
    assert Path(shown[0]).parent == folder
    found: dict[str, Any] = json.loads((Path(shown[0]) / "report.json").read_text())
    return found


def strip(node: Node, interface: str, how: str) -> None:
    if how == "clsact":
        node.exec("tc", "qdisc", "del", "dev", interface, "clsact")
        return
    for hook in ("ingress", "egress"):
        node.exec("tc", "filter", "del", "dev", interface, hook)


def play(rollout: Rollout, name: str, *args: str, **extra: Any) -> tuple[int, str]:
    return rollout.cluster.playbook(name, {**QUICK, "verify_window": 2.2 * RETRY, **extra}, *args)


def stays_dirty(rollout: Rollout, node: Node, interface: str) -> None:
    """It stays dirty from the next heartbeat on, although Felix retries."""
    node.heartbeat_file.touch()
    rollout.cluster.wait(rollout.cluster.dirty, "Felix noticed")
    time.sleep(3 * RETRY)
    assert rollout.cluster.dirty() == {node.name: [interface]}


def uids(rollout: Rollout) -> set[str]:
    pods = [*rollout.cluster.pods("kube-system"), *rollout.cluster.pods("demo")]
    return {pod["metadata"]["uid"] for pod in pods}


def other_programs(rollout: Rollout, but: str) -> dict[tuple[str, str], list[int]]:
    """The programs of all endpoints except ``but``, which nothing has to change."""
    return {at: ids for at, ids in rollout.programs().items() if at[1] != but}


def changed(output: str) -> dict[str, int]:
    """How many tasks each node reported as a change."""
    return {name: int(n) for name, n in re.findall(r"^(\S+) +: ok=.* changed=(\d+)", output, re.M)}


def must_be_healthy(rollout: Rollout) -> None:
    cluster = rollout.cluster
    cluster.wait(lambda: all(map(ready, cluster.pods("kube-system"))), "all Felixes are ready")
    assert not cluster.dirty()
    cluster.wait(lambda: not rollout.broken(), "all endpoints are in step")


@contextmanager
def beating(node: Node) -> Iterator[None]:
    """Trigger heartbeats continuously; this release re-attaches everything at each."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(RETRY):
            node.heartbeat_file.touch()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    node.heartbeat_file.touch()
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
