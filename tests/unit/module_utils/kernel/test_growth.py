# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work for ten times the interfaces is ten times the work, not a hundred times."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.audit import (
    AuditMode,
    AuditOptions,
    audit,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.judge import judge
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel import bpf
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.filter_message import (
    RawFilter,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.netlink import TcSocket
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.snapshot import Reader
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    Behaviour,
    Hook,
    Policy,
    Qdisc,
    SharedBlock,
    Verdict,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.build import (
    at,
    endpoint,
    foreign,
    listed,
    ours,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.fake_kernel import Kernel

AUTO = Policy(also_safe_for=tuple(Behaviour))
#: Ten times the work may take this many times as long: a quadratic part takes a hundred times.
MOST = 25


class Links(TcSocket):
    """A namespace with so many interfaces that have nothing attached."""

    def __init__(self, count: int) -> None:
        self.held = {f"cali{n:07x}": n + 1 for n in range(count)}

    def links(self) -> dict[str, int]:
        return self.held

    def clsact_qdiscs(self) -> dict[int, Qdisc]:
        return {}

    def clsact_qdisc(self, ifindex: int) -> Qdisc:
        return Qdisc.NONE

    def shared_blocks(self, ifindex: int) -> tuple[SharedBlock, ...]:
        return ()

    def filters(self, ifindex: int, hook: Hook) -> list[RawFilter]:
        raise AssertionError("there is no qdisc to ask")


def seconds(work: Callable[[], object]) -> float:
    """CPU time, the least of three runs."""
    times = []
    for _run in range(3):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    made.patch(monkeypatch)
    return made


def read_all_by_name(links: Links) -> None:
    reader = Reader(links, look_into_programs=False, tcx_pins="/nowhere")
    assert len(reader.read_named(list(links.held)).endpoints) == len(links.held)


def test_interfaces_are_found_by_their_names_in_linear_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bpf, "tcx_programs", lambda *_: [])
    few, many = (seconds(partial(read_all_by_name, Links(n))) for n in (500, 5000))
    assert many / few < MOST


def test_a_repair_does_not_list_all_links_for_each_endpoint(kernel: Kernel) -> None:
    """One hook is bare, so that the endpoint is read again after its repair."""
    listed = {}
    for count in (2, 20):
        kernel.endpoints.clear()
        for n in range(count):
            state = endpoint(at(1, program=10 + n), ())
            kernel.put(replace(state, interface=f"cali{n}", ifindex=n + 1))
        kernel.calls.clear()
        options = AuditOptions(
            ("cali*",), policy=Policy(Behaviour.ADD_THEN_DELETE), mode=AuditMode.REPAIR, settle=0
        )
        reader = Reader(kernel, look_into_programs=False, tcx_pins="/nowhere")
        outcomes = audit(options, kernel, reader, lambda _seconds: None).outcomes
        assert {o.verdict for o in outcomes} == {Verdict.DRIFTED}
        assert all(o.done for o in outcomes)
        listed[count] = kernel.calls.count("links") + kernel.calls.count("qdiscs")
    assert listed[20] == listed[2]


AROUND = listed(ours(1, 11, 49150, loaded_at=9), foreign(49151), ours())
#: Drift of several shapes, one of which no plan repairs.
SHAPES = (
    endpoint(at(1), at(2, program=20)),
    endpoint(at(1), at(1, 2, program=20)),
    endpoint(at(1), (ours(1, 20, protocol=0x0800),)),
    endpoint(AROUND, AROUND),
)


def judge_drifted(count: int) -> None:
    for n in range(count):
        shape = SHAPES[n % len(SHAPES)]
        ingress, egress = (
            tuple(a._replace(program_id=a.program_id + 100 * n) for a in hook)
            for hook in (shape.ingress, shape.egress)
        )
        judged = judge(replace(shape, interface=f"cali{n}", ingress=ingress, egress=egress), AUTO)
        assert judged.drifted


def test_plans_are_searched_once_for_each_shape() -> None:
    """The programs of the endpoints do not matter: 5,000 drifted ones take seconds."""
    judge_drifted(len(SHAPES))
    few, many = (seconds(partial(judge_drifted, n)) for n in (500, 5000))
    assert many / few < MOST
    assert many < 10
