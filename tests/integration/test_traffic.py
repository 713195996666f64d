# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repairs under traffic: an allowed packet is never lost, and a denied one never gets through.

Every packet must be in the counter of one of the endpoint's own programs: what met none was let
through unjudged, even where it arrived as it should.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, islice
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.repair import Outcome
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.netlink import TcSocket
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import Outlook
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab
from ansible_collections.dataplane.calico_bpf.tests.support.traffic.traffic import (
    DRIFTS,
    HOOKS,
    Drift,
    Stage,
    Stream,
    streams,
    until,
)

_INTERFACE = "cali0123456789a"
Streams = dict[str, Stream]


class Watched(TcSocket):
    """Lets a caller know of every write, once the kernel has acknowledged it."""

    def __init__(self, wrote: Callable[[], None]) -> None:
        super().__init__()
        self._wrote = wrote

    def add_filter(self, *args: Any, **options: Any) -> None:
        super().add_filter(*args, **options)
        self._wrote()

    def replace_filter(self, *args: Any, **options: Any) -> None:
        super().replace_filter(*args, **options)
        self._wrote()

    def delete_filter(self, *args: Any, **options: Any) -> Any:
        gone = super().delete_filter(*args, **options)
        self._wrote()
        return gone


def _drained(stage: Stage, flows: Streams) -> None:
    """Pause the streams, and wait until each packet sent has met a program."""
    for stream in flows.values():
        stream.pause()
    for hook, stream in flows.items():
        until(lambda h=hook, s=stream: stage.met(h) >= s.sent, f"{hook}: all packets met a program")  # type: ignore[misc]
        assert stage.met(hook) == stream.sent, hook


def _assert_undisturbed(stage: Stage, flows: Streams) -> None:
    """None lost, none doubled, each judged by one program of the endpoint's own."""
    for hook, stream in flows.items():
        stream.pause()
        until(lambda s=stream: s.received >= s.sent, f"{hook}: all {stream.sent} packets arrive")  # type: ignore[misc]
        counted = (stream.received, stream.duplicates, stage.met(hook))
        assert counted == (stream.sent, 0, stream.sent), hook


def _assert_mended(outcome: Outcome, drift: Drift) -> None:
    assert len(outcome.done) == drift.writes, outcome
    assert outcome.left is not None
    assert (outcome.left.plan, outcome.left.outlook) == ((), Outlook.OK), outcome


def test_the_wire_by_itself_loses_nothing(lab: Lab) -> None:
    """The control to the tests below: at this rate, no loss is the machine's."""
    stage = Stage(lab, _INTERFACE, "allow")
    with streams(lab, _INTERFACE) as flows:
        for stream in flows.values():
            stream.start()
        for stream in flows.values():
            stream.flow(50_000)
        _assert_undisturbed(stage, flows)


def test_repairs_do_not_disturb_allowed_packets(lab: Lab) -> None:
    """Hundreds of repairs at full speed, of each drift that enforces at both hooks."""
    stage = Stage(lab, _INTERFACE, "allow")
    drifts = [d for d in DRIFTS.values() if d.enforced and d.ingress and d.egress]
    with streams(lab, _INTERFACE) as flows:
        for stream in flows.values():
            stream.start()
        for drift in islice(cycle(drifts), 300):
            stage.set_out(drift)
            _assert_mended(stage.repair(drift.policy), drift)
        _assert_undisturbed(stage, flows)


@pytest.mark.parametrize("kind", DRIFTS)
def test_denied_packets_never_pass(kind: str, lab: Lab) -> None:
    """Not one, at any moment of a repair: each write waits until packets met what the last left.

    Where the drift itself lets packets through, they are held back up to the first write.
    """
    drift = DRIFTS[kind]
    stage = Stage(lab, _INTERFACE, "deny")
    with streams(lab, _INTERFACE) as made:
        flows = {hook: made[hook] for hook in HOOKS if drift.at(hook)}

        def wrote() -> None:
            for stream in flows.values():
                stream.start()
            for stream in flows.values():
                stream.flow(60)  # one write may be all of a repair

        for _unused in range(10):
            if not drift.enforced:
                _drained(stage, flows)
            stage.set_out(drift)
            if drift.enforced:
                wrote()
            _assert_mended(stage.repair(drift.policy, lambda: Watched(wrote)), drift)
        _drained(stage, flows)
        assert all(stream.sent > 500 for stream in flows.values())
        assert {hook: s.received for hook, s in flows.items()} == dict.fromkeys(flows, 0)


def test_modules_repair_under_traffic(lab: Lab) -> None:
    """As a user runs it: one endpoint whose packets are allowed, one whose packets are denied."""
    stages = [Stage(lab, "cali00000000aaa", "allow"), Stage(lab, "cali00000000ddd", "deny")]
    with streams(lab, "cali00000000aaa") as allowed, streams(lab, "cali00000000ddd") as denied:
        for stream in (*allowed.values(), *denied.values()):
            stream.start()
        for kind in ("handles 1 and 2", "duplicate", "detour past protocol ip"):
            for stage in stages:
                stage.set_out(DRIFTS[kind])
            result = lab.module("qdisc_consistency", state="consistent", settle=0)
            assert result["summary"]["verdicts"]["repaired"] == 2, result
        _assert_undisturbed(stages[0], allowed)
        _drained(stages[1], denied)
        assert [stream.received for stream in denied.values()] == [0, 0]


def test_delete_then_add_lets_denied_packets_through(lab: Lab) -> None:
    """The control to all of the above: a gap of some 50 us is seen."""
    stage = Stage(lab, _INTERFACE, "deny")
    with streams(lab, _INTERFACE) as flows:
        for hook, stream in flows.items():
            stream.start()
            for _unused in range(500):
                stage.delete_then_add(hook)
                if stream.received:
                    break
            stream.pause()
            assert 0 < stream.received < stream.sent, hook
            # No packet is misclassified: those that got through are those that met no program.
            until(
                lambda h=hook, s=stream: s.received + stage.met(h) == s.sent,  # type: ignore[misc]
                f"{hook}: each packet either met the program or got through",
            )
