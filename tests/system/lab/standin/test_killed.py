# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fault: endpoints that a Felix killed in a pass leaves out of step, and its successor."""

from __future__ import annotations

import re

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin import faults
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin_node import (
    BOTH,
    Node,
    both,
    until,
)
from ansible_collections.dataplane.calico_bpf.tests.support.tc import tcx

SLOT = re.compile(r"\{true (\d+) (\d+)\}")


@pytest.mark.parametrize("point", faults.POINTS)
def test_killed_at_3_28_1_permanently_dirty_at_3_29_1(node: Node, point: str) -> None:
    name = node.lab.endpoint("cali0")
    node.ready("v3.28.1").kill()
    node.killed("v3.28.1", hook="ingress", point=point)
    pod = node.start("v3.29.1")
    pod.wait_for_errors(6)
    assert not pod.is_ready()
    line = pod.errors()[0]
    assert re.search(
        r"stdout F \S+ \S+ \[WARNING\]\[\d+\] felix/bpf_ep_mgr\.go \d+: Failed to apply policy to "
        r"endpoint, leaving it dirty error=ingress qdisc info \(\{true \d+ \d\}\) does not equal "
        r"egress qdisc info \(\{true \d+ \d\}\) name=\"cali0\" wepID=orchestrator_id:\"k8s\" "
        r"workload_id:\"shop/web-0\" endpoint_id:\"eth0\" $",
        line,
    ), line
    ingress, egress = node.lab.slots(name)
    assert ingress[0][0] != egress[0][0], "the priorities differ"


def test_killed_between_hooks_at_3_29_1_alternates_permanently(node: Node) -> None:
    node.lab.endpoint("cali0")
    node.ready("v3.29.1").kill()
    node.killed("v3.29.1", hook="ingress", point="between_hooks")
    assert node.lab.slots("cali0") == ([(49152, 2)], [(49152, 1)])
    pod = node.start("v3.29.1")
    pod.wait_for_errors(6)
    handles = [tuple(h for _priority, h in SLOT.findall(line)) for line in pod.errors()[:6]]
    # Felix's "ingress" is the egress hook of the host's veth.
    assert handles == [("2", "1"), ("1", "2")] * 3


@pytest.mark.parametrize("hook", BOTH)
def test_killed_after_the_add(node: Node, hook: str) -> None:
    """That hook has both programs; the other hook is done."""
    node.lab.endpoint("cali0")
    node.ready("v3.29.1").kill()
    node.killed("v3.29.1", hook=hook, point="after_add")
    slots = dict(zip(BOTH, node.lab.slots("cali0"), strict=True))
    assert sorted(slots.pop(hook)) == [(49152, 1), (49152, 2)]
    assert list(slots.values()) == [[(49152, 2)]]


def test_a_mismatch_of_3_29_4_is_frozen_by_3_29_5_and_ignored_by_3_31(node: Node) -> None:
    name = node.lab.endpoint("cali0")
    node.ready("v3.29.4").kill()
    node.killed("v3.29.4", hook="egress", point="between_hooks")
    frozen = ([(49152, 1)], [(49152, 2)])
    pod = node.start("v3.29.5")
    pod.wait_for_errors(5)
    slots = {" ".join(map(":".join, SLOT.findall(line))) for line in pod.errors()}
    assert slots == {"49152:2 49152:1"}
    assert node.lab.slots(name) == frozen
    pod.kill()
    pod = node.ready("v3.31.0", "TC")
    assert node.lab.slots(name) == frozen
    assert pod.errors() == []
    pod.kill()
    node.ready("v3.31.0", "TCX")
    assert [len(tcx.programs(node.lab, name, hook)) for hook in BOTH] == [1, 1]
    assert node.lab.slots(name) == both()


def test_the_wep_id_of_3_30(node: Node) -> None:
    """It logs a struct instead of a message; and an interface without an endpoint."""
    for name in ("cali0", "cali1"):
        node.lab.endpoint(name)
        node.lab.attach(name, "ingress", 2)
        node.lab.attach(name, "egress", 1)
    pod = node.start("v3.30.4")
    pod.wait_for_errors(2)
    first, second = pod.errors()[:2]
    assert first.endswith(
        'name="cali0" wepID=&types.WorkloadEndpointID{OrchestratorId:"k8s", '
        'WorkloadId:"shop/web-0", EndpointId:"eth0"}'
    )
    assert second.endswith('name="cali1" wepID=(*types.WorkloadEndpointID)(nil)')


@pytest.mark.parametrize("version", ["v3.29.1", "v3.29.5"])
def test_the_module_repairs_what_it_broke_while_it_runs(node: Node, version: str) -> None:
    node.lab.endpoint("cali0")
    node.ready("v3.29.1").kill()
    node.killed("v3.29.1", hook="ingress", point="between_hooks")
    pod = node.start(version, retry=2.0)
    pod.wait_for_errors(1)
    result = node.lab.module("qdisc_consistency", state="consistent", settle=0.1)
    assert result["summary"]["verdicts"]["repaired"] == 1, result
    pod.wait_until_ready()
    ingress, egress = node.lab.slots("cali0")
    assert len(ingress) == 1
    assert ingress == egress


def test_two_felixes_at_once(node: Node) -> None:
    """Neither knows of the other's changes, and only one has the port."""
    node.lab.endpoint("cali0")
    node.ready("v3.29.1").kill()
    old = node.start("v3.29.1", pass_delay=60.0)
    until(lambda: node.lab.slots("cali0")[0] == [(49152, 2)], "its first hook")
    new = node.start("v3.29.1")
    until(lambda: new.lines("Health endpoint failed"), "the port is taken")
    old.kill()
    new.wait_for_errors(3)
    until(lambda: new.get("/readiness")[0] == 503, "the port taken over")
    assert new.lines("Updated workload interface.") == []
