# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each release attaches."""

from __future__ import annotations

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin_node import (
    BOTH,
    Node,
    both,
    until,
)
from ansible_collections.dataplane.calico_bpf.tests.support.tc import tcx


@pytest.mark.parametrize(
    ("version", "after"),
    [("v3.28.1", (49151, 1)), ("v3.29.1", (49152, 2)), ("v3.29.5", (49152, 1)),
     ("v3.31.0", (49152, 1))],
)  # fmt: skip
def test_tc(node: Node, version: str, after: tuple[int, int]) -> None:
    """Fresh endpoints, with a clsact and without; and again at the next start."""
    names = [node.lab.endpoint("cali0"), node.lab.endpoint("cali1", clsact=False)]
    pod = node.ready(version)
    assert [node.lab.slots(name) for name in names] == [both((49152, 1))] * 2
    old = [node.lab.program_ids(name, hook) for name in names for hook in BOTH]
    pod.kill()
    pod = node.ready(version)
    assert [node.lab.slots(name) for name in names] == [both(after)] * 2
    new = [node.lab.program_ids(name, hook) for name in names for hook in BOTH]
    assert set(map(tuple, old)).isdisjoint(map(tuple, new))
    assert pod.errors() == []


def test_tcx(node: Node) -> None:
    """Its links are pinned and survive it; the next Felix updates them."""
    name = node.lab.endpoint("cali0.1", clsact=False)
    pod = node.ready("v3.31.0", "TCX")
    old = {hook: tcx.programs(node.lab, name, hook) for hook in BOTH}
    assert [len(programs) for programs in old.values()] == [1, 1]
    assert sorted(p.name for p in tcx.PINS.iterdir()) == ["cali01_egress", "cali01_ingress"]
    pod.kill()
    node.ready("v3.31.0", "TCX")
    for hook in BOTH:
        ((program, link),) = tcx.programs(node.lab, name, hook)
        assert link == old[hook][0][1]
        assert program != old[hook][0][0]
    node.lab.ip("link", "del", name)
    until(lambda: not list(tcx.PINS.iterdir()), "pins removed")


def test_from_tc_to_tcx_and_back(node: Node) -> None:
    name = node.lab.endpoint("cali0")
    node.ready("v3.30.7").kill()
    node.ready("v3.31.0", "TCX").kill()
    assert "clsact" not in node.lab.tc("qdisc", "show", "dev", name)
    assert [len(tcx.programs(node.lab, name, hook)) for hook in BOTH] == [1, 1]
    node.ready("v3.31.0", "TC")
    assert node.lab.slots(name) == both((49152, 1))
    assert [tcx.programs(node.lab, name, hook) for hook in BOTH] == [[], []]
    assert not list(tcx.PINS.iterdir())


def test_an_older_felix_leaves_the_links_of_a_newer_one(node: Node) -> None:
    name = node.lab.endpoint("cali0")
    node.ready("v3.31.0", "TCX").kill()
    node.ready("v3.30.7")
    assert node.lab.slots(name) == both((49152, 1))
    assert [len(tcx.programs(node.lab, name, hook)) for hook in BOTH] == [1, 1]


def test_interfaces_that_come_and_go(node: Node) -> None:
    pod = node.ready("v3.29.1")
    node.lab.endpoint("cali0", clsact=False)
    node.lab.endpoint("eth7", clsact=False)
    until(lambda: node.lab.slots("cali0") == both((49152, 1)), "attached")
    assert node.lab.slots("eth7") == both()
    node.lab.ip("link", "del", "cali0")
    node.lab.endpoint("cali0", clsact=False)
    until(lambda: len(pod.lines("Updated workload interface.")) == 2, "attached again")
    assert node.lab.slots("cali0") == both((49152, 1))
