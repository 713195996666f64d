# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""felix_info with real processes, a real server, a log, and real changes of filters."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel import processes
from ansible_collections.dataplane.calico_bpf.tests.support.felix import actors
from ansible_collections.dataplane.calico_bpf.tests.support.lab.pod_cgroup import (
    entering,
    pod_cgroup,
    remove_cgroups,
)
from ansible_collections.dataplane.calico_bpf.tests.support.netns.answers import answering
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab, run_module

POD = "2f0f5d4e-8a51-4b43-9f0e-1d4f6f0a7c11"
HEALTH = ("127.0.0.1", 9099)
METRICS = ("127.0.0.1", 9091)
UNREADY = """\
+--------------------+---------+----------------+---------------------+--------------------------+
|     COMPONENT      | TIMEOUT |    LIVENESS    |      READINESS      |          DETAIL          |
+--------------------+---------+----------------+---------------------+--------------------------+
| BPFEndpointManager | -       | -              | reporting non-ready | Failed to configure some |
|                    |         |                |                     | interfaces.              |
| FelixStartup       | -       | reporting live | reporting ready     |                          |
+--------------------+---------+----------------+---------------------+--------------------------+"""
GAUGES = """\
# TYPE felix_bpf_dataplane_endpoints gauge
felix_bpf_dataplane_endpoints 3
# TYPE felix_bpf_dirty_dataplane_endpoints gauge
felix_bpf_dirty_dataplane_endpoints 1
# TYPE felix_bpf_happy_dataplane_endpoints gauge
felix_bpf_happy_dataplane_endpoints 2
"""
LINE = (
    "2026-11-23T22:00:05.000000001Z stdout F 2026-11-23 22:00:05.000 [WARNING][60] "
    "felix/bpf_ep_mgr.go 2100: Failed to apply policy to endpoint, leaving it dirty error=oops "
    'name="cali1" wepID=orchestrator_id:"k8s" workload_id:"default/{}" endpoint_id:"eth0" \n'
)


def log_of(folder: Path, pod: str, uid: str) -> Path:
    """A container's log where the kubelet would have it, below ``folder``."""
    log = folder / f"kube-system_{pod}_{uid}" / "calico-node" / "0.log"
    log.parent.mkdir(parents=True)
    log.write_text(LINE.format(pod))
    return log


@dataclass(frozen=True)
class Node:
    """A network namespace, and a pid namespace that is entered with ``prefix``."""

    lab: Lab
    prefix: tuple[str, ...]
    logs: Path

    def look(self, **options: Any) -> dict[str, Any]:
        globs = [f"{self.logs}/*_calico-node-*/calico-node/*.log"]
        options = {"netns": self.lab.netns, "log_files": globs, **options}
        result = run_module("felix_info", options, prefix=self.prefix)
        assert not result.get("failed"), result
        return result


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Node]:
    with actors.alone() as prefix:
        yield Node(lab, prefix, tmp_path)


@contextmanager
def reattached(lab: Lab, interface: str) -> Iterator[None]:
    """``tc`` attaches and detaches at an interface all the time."""
    pin, done = lab.pin(), threading.Event()

    def work() -> None:
        while not done.wait(0.1):
            lab.attach(interface, "egress", 1, pin=pin)
            lab.detach(interface, "egress", 1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_sick_node_seen_from_all_sides_at_once(node: Node) -> None:
    log = log_of(node.logs, "calico-node-1", "u1")
    for interface in ("cali1", "cali2", "cali3"):
        node.lab.endpoint(interface)
    with ExitStack() as stack:
        stack.enter_context(answering(node.lab.netns, HEALTH, {"/readiness": (503, UNREADY)}))
        stack.enter_context(answering(node.lab.netns, METRICS, {"/metrics": (200, GAUGES)}))
        (pid, _process) = stack.enter_context(actors.felix(node.prefix, burns=True))
        stack.enter_context(actors.hanging_tc(node.prefix, 3))
        stack.enter_context(reattached(node.lab, "cali1"))
        stack.enter_context(reattached(node.lab, "cali2"))
        result = node.look(window=2, exclude=["cali2"])
    (felix,) = result["felix"]
    assert felix["pid"] == pid
    assert 0.1 < felix["cpu"] < 1.1
    assert felix["age_seconds"] >= 2
    assert (result["tc"]["now"], result["tc"]["most"], len(result["tc"]["pids"])) == (3, 3, 3)
    assert result["tc"]["oldest_seconds"] >= 2
    assert result["health"] == {
        "reachable": True, "ready": False, "status": 503, "error": None,
        "reporters": [
            {"component": "BPFEndpointManager", "ready": False, "live": None,
             "detail": "Failed to configure some interfaces."},
            {"component": "FelixStartup", "ready": True, "live": True, "detail": ""},
        ],
    }  # fmt: skip
    assert result["metrics"] == {"endpoints": 3, "dirty": 1, "happy": 2}
    assert result["metrics_error"] is None
    assert result["log"]["files"] == [str(log)]
    (dirty,) = result["log"]["dirty"]
    assert (dirty["interface"], dirty["workload"]) == ("cali1", "default/calico-node-1")
    churn = result["churn"]
    (cali1,) = churn["interfaces"]
    assert cali1["interface"] == "cali1"
    assert cali1["attached"] >= 3
    assert abs(cali1["attached"] - cali1["detached"]) <= 1
    assert set(cali1["by"]) <= {"tc", "gone"}
    assert churn["changes"] == cali1["attached"] + cali1["detached"]
    assert churn["seconds"] >= 2
    assert churn["per_minute"] == pytest.approx(60 * churn["changes"] / churn["seconds"], rel=0.1)
    assert churn["overrun"] is False
    assert (result["changed"], result["waited_seconds"]) == (False, 0)


def test_missing_data_is_not_an_error(node: Node) -> None:
    result = node.look()
    health = result["health"]
    assert (result["felix"], result["churn"], result["log"]) == ([], None, None)
    assert (health["reachable"], health["ready"], health["status"]) == (False, False, None)
    assert "Connection refused; no Felix runs on this node" in health["error"]
    assert result["metrics"] is None
    assert "prometheusMetricsEnabled is false by default" in result["metrics_error"]
    assert "no file matches" in result["log_error"]
    assert result["elapsed_ms"] < 5_000


def test_a_closed_port_differs_from_no_felix(node: Node) -> None:
    with actors.felix(node.prefix):
        result = node.look()
    assert len(result["felix"]) == 1
    assert result["felix"][0]["cpu"] is None
    assert (
        "Felix runs: it is still starting, or healthEnabled is false" in result["health"]["error"]
    )


def test_another_server_at_the_port_is_not_taken_for_felix(node: Node) -> None:
    for answer in ((404, "404 page not found\n"), (200, "welcome")):
        with answering(node.lab.netns, HEALTH, {"/readiness": answer}):
            health = node.look()["health"]
        assert (health["reachable"], health["ready"]) == (True, False)
        assert health["status"] == answer[0]
        assert f"the answer is not Felix's health: {answer[1].strip()!r}" in health["error"]


def test_a_felix_without_detail_is_ready_all_the_same(node: Node) -> None:
    with answering(node.lab.netns, HEALTH, {"/readiness": (204, "")}):
        health = node.look()["health"]
    assert (health["reachable"], health["ready"], health["error"]) == (True, True, None)


def test_felixes_are_seen_in_their_containers(node: Node) -> None:
    """Two at once is what an upgrade must never see."""
    with actors.felix(node.prefix, container=True), actors.felix(node.prefix) as (pid, _process):
        pids = [felix["pid"] for felix in node.look()["felix"]]
    assert len(pids) == 2
    assert pid in pids


@pytest.fixture
def pod_prefix(node: Node) -> Iterator[tuple[str, ...]]:
    """What runs a command in the cgroup of the pod with the uid ``POD``."""
    lab = f"test-{os.getpid()}"
    yield (*entering(pod_cgroup(lab, POD)), *node.prefix)
    remove_cgroups(lab)


def test_the_processes_of_a_pod_that_has_ended(node: Node, pod_prefix: tuple[str, ...]) -> None:
    """Another pod's Felix is not waited for."""
    with actors.felix(pod_prefix) as (pid, process), actors.felix(node.prefix) as (other, _felix):
        start = time.monotonic()
        stays = node.look(exited_pod_uid=POD, wait_gone=0.5)
        took = time.monotonic() - start
        pods = {felix["pid"]: felix["pod_uid"] for felix in stays["felix"]}
        assert pods == {pid: POD, other: None}
        assert {"pid": pid, "name": "sh"} in stays["exited_pod_processes"]
        assert other not in [process["pid"] for process in stays["exited_pod_processes"]]
        assert 0.5 <= stays["waited_seconds"] < 10
        # The module waits by then, however slow the machine is.
        timer = threading.Timer(3 + 2 * took, process.communicate, ("\n",))
        timer.start()
        goes = node.look(exited_pod_uid=POD, wait_gone=60)
        timer.join()
        assert [felix["pid"] for felix in goes["felix"]] == [other]
    assert goes["exited_pod_processes"] == []
    assert 0.1 < goes["waited_seconds"] < 40


def test_without_a_pod_to_look_for_nothing_is_waited_for(node: Node) -> None:
    with actors.felix(node.prefix):
        seen = node.look(wait_gone=60)
    assert (seen["exited_pod_processes"], seen["waited_seconds"]) == (None, 0.0)


def test_the_log_of_one_pod(node: Node) -> None:
    """The newest by default; after it what the kubelet rotated away counts too."""
    old = log_of(node.logs, "calico-node-1", "u1")
    new = log_of(node.logs, "calico-node-2", "u2")
    rotated = Path(f"{new}.20261123-210000")
    rotated.write_text(LINE.format("calico-node-2"))
    Path(f"{new}.20261123-200000.gz").write_bytes(b"packed")
    past = time.time() - 100
    os.utime(old, (past, past))
    assert node.look()["log"]["files"] == [str(rotated), str(new)]
    assert node.look()["log"]["dirty"][0]["count"] == 2
    one = node.look(pod_uid="u1")["log"]
    assert one["files"] == [str(old)]
    assert one["dirty"][0]["workload"] == "default/calico-node-1"
    assert node.look(pod_uid="u3")["log"] is None


def test_bad_options_are_refused(lab: Lab) -> None:
    for options in ({"health_url": "localhost:9099"}, {"window": -1}, {"wait_gone": 4000}):
        result = lab.module("felix_info", **options)
        assert result.get("failed"), options
        assert str(*options.values()) in result["msg"]


def test_a_tc_that_has_ended_is_not_counted() -> None:
    with actors.dead_tc():
        sampler = processes.Sampler()
        sampler.look()
    assert sampler.tc.now == 0
