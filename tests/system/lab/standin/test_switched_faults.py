# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults that are switched while the stand-in runs."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin_node import (
    Node,
    Pod,
    both,
    cpu_time,
    until,
)


@pytest.mark.parametrize(
    ("version", "churn", "again"),
    [("v3.29.1", False, True), ("v3.29.4", False, False), ("v3.29.4", True, True)],
)
def test_churn(node: Node, version: str, churn: bool, again: bool) -> None:
    """The effect of a heartbeat; all releases log that the host IP has changed."""
    node.lab.endpoint("cali0")
    pod = node.ready(version)
    if churn:
        pod.fault(churn=True)
    before = len(pod.lines("Host IP changed"))
    for count in (1, 2, 3):
        pod.beat()
        until(lambda more=count: len(pod.lines("Host IP changed")) == before + more, "logged")  # type: ignore[misc]
        if again:
            until(lambda more=count: _passes(pod) == 1 + more, "re-attached")  # type: ignore[misc]
    time.sleep(0.5)
    assert _passes(pod) == (4 if again else 1)
    assert pod.errors() == []


def _passes(pod: Pod) -> int:
    return len(pod.lines("Finished applying BPF programs"))


def test_dirty(node: Node) -> None:
    """Only interfaces of the glob, as in health and metrics; without the fault they heal."""
    for name in ("cali0", "cali1"):
        node.lab.endpoint(name)
    pod = node.ready("v3.29.5")
    pod.fault(dirty=("*0",))
    pod.wait_for_errors(3)
    assert {re.search('name="(.*?)"', line)[1] for line in pod.errors()} == {"cali0"}  # type: ignore[index]
    assert "error=object error opening libbpf object no such file" in pod.errors()[0]
    until(lambda: not pod.is_ready(), "not ready")
    assert _gauges(pod) == {"": 2, "dirty_": 1, "happy_": 0}
    pod.fault()
    pod.wait_until_ready()
    assert _gauges(pod) == {"": 2, "dirty_": 0, "happy_": 1}


def _gauges(pod: Pod) -> dict[str, int]:
    status, text = pod.get("/metrics", 9091)
    assert status == 200, text
    found = re.findall(r"^felix_bpf_(\w*)dataplane_endpoints (\d+)$", text, re.MULTILINE)
    return {name: int(value) for name, value in found}


def test_never_ready(node: Node) -> None:
    node.lab.endpoint("cali0")
    pod = node.start("v3.29.5", never_ready=True)
    until(lambda: pod.get("/readiness")[0] == 503, "an answer")
    assert pod.get("/liveness")[0] == 200
    assert re.search(r"\| CalculationGraph .* reporting non-ready", pod.get("/readiness")[1])
    assert node.lab.slots("cali0") == both(), "it does not know yet what to do"
    pod.fault()
    pod.wait_until_ready()


def test_tc_processes_that_hang_go_with_it(node: Node) -> None:
    pod = node.start("v3.29.5", hold_tc=3)
    # Between its fork and its exec a child still has its parent's name.
    until(lambda: [_comm(pid) for pid in _children(pod)] == ["tc"] * 3, "started")
    children = _children(pod)
    pod.fault(hold_tc=1)
    until(lambda: len(_children(pod)) == 1, "let go")
    pod.kill()
    until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in children), "gone")


def _children(pod: Pod) -> list[str]:
    pid = pod.process.pid
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _comm(pid: str) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def test_burn(node: Node) -> None:
    pod = node.ready("v3.29.5")
    until(lambda: _cpu(pod, 1.0) < 0.1, "started")
    pod.fault(burn=0.5)
    until(lambda: _cpu(pod, 1.0) > 0.2, "busy")
    pod.fault()
    until(lambda: _cpu(pod, 1.0) < 0.1, "idle")


def _cpu(pod: Pod, seconds: float) -> float:
    """Cores used."""
    before = cpu_time(pod)
    time.sleep(seconds)
    return (cpu_time(pod) - before) / seconds


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_the_middle_of_a_pass(node: Node, number: signal.Signals) -> None:
    node.lab.endpoint("cali0")
    pod = node.start("v3.29.1", pass_delay=60.0)
    until(lambda: node.lab.slots("cali0") == ([(49152, 1)], []), "one hook done")
    pod.process.send_signal(number)
    assert pod.process.wait(2) == -number
    assert node.lab.slots("cali0") == ([(49152, 1)], [])
