# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The observable state of the stand-in: health, log, name and CPU time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin_node import (
    Node,
    cpu_time,
    until,
)

HEALTHY = """\
+---------------------------+---------+----------------+-----------------+--------+
|         COMPONENT         | TIMEOUT |    LIVENESS    |    READINESS    | DETAIL |
+---------------------------+---------+----------------+-----------------+--------+
| BPFEndpointManager        | -       | -              | reporting ready |        |
| CalculationGraph          | 30s     | reporting live | reporting ready |        |
| FelixStartup              | -       | reporting live | reporting ready |        |
| InternalDataplaneMainLoop | 1m30s   | reporting live | reporting ready |        |
+---------------------------+---------+----------------+-----------------+--------+"""
DIRTY = """\
| BPFEndpointManager        | -       | -              | reporting non-ready | Failed to configure some |
|                           |         |                |                     | interfaces.              |
| CalculationGraph          | 30s     | reporting live | reporting ready     |                          |
"""  # noqa: E501


def test_health(node: Node) -> None:
    node.lab.endpoint("cali0")
    pod = node.ready("v3.29.5")
    assert pod.get("/readiness") == (200, HEALTHY)
    assert pod.get("/liveness") == (200, HEALTHY)
    assert pod.get("/other")[0] == 404
    pod.fault(dirty=("cali0",))
    until(lambda: not pod.is_ready(), "not ready")
    status, table = pod.get("/readiness")
    assert status == 503
    assert DIRTY in table
    assert pod.get("/liveness") == (200, table)
    assert pod.lines("Overall health status changed: live=true ready=false")


def test_its_first_line_and_its_name(node: Node) -> None:
    pod = node.ready("v3.29.1")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z stdout F \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} "
        r"\[INFO\]\[\d+\] felix/daemon\.go \d+: Felix starting up GOMAXPROCS=\d+ builddate=\"\S+\" "
        r"gitcommit=\"\w+\" version=\"v3\.29\.1\"",
        pod.log.splitlines()[0],
    )
    proc = Path(f"/proc/{pod.process.pid}")
    assert (proc / "cmdline").read_bytes() == b"calico-node\0-felix\0"
    assert (proc / "comm").read_text() == "calico-node\n"


def test_it_starts_quickly(node: Node) -> None:
    """In user and system time relative to a bare Python: labs start many."""
    before = os.times()
    subprocess.run([sys.executable, "-c", ""], check=True)
    bare = _children_used(os.times()) - _children_used(before)
    assert cpu_time(node.ready("v3.29.1")) < 40 * max(bare, 0.01)


def _children_used(times: os.times_result) -> float:
    return times.children_user + times.children_system
