# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A repair killed after each of its writes: no hook is worse off, and a second run finishes it.

Every program drops, so a packet that gets through afterwards passed a hook without a program.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.netlink import TcSocket
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import Outlook, Policy
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab
from ansible_collections.dataplane.calico_bpf.tests.support.traffic.traffic import (
    DRIFTS,
    HOOKS,
    Stage,
    Stream,
    streams,
    until,
)

_INTERFACE = "cali0123456789a"


class Doomed(TcSocket):
    """Kills its process once the kernel has acknowledged the n-th write."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self._last = last

    def _survive(self) -> None:
        if self.writes == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def add_filter(self, *args: Any, **options: Any) -> None:
        super().add_filter(*args, **options)
        self._survive()

    def delete_filter(self, *args: Any) -> Any:
        gone = super().delete_filter(*args)
        self._survive()
        return gone


def _killed_after(stage: Stage, policy: Policy, writes: int) -> None:
    child = os.fork()
    if child == 0:
        try:
            stage.repair(policy, lambda: Doomed(writes))
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, f"there is no write {writes}"


def _assert_denied(stage: Stage, hook: str, stream: Stream) -> None:
    """Some more packets: each meets a program, and none gets through."""
    met, sent = stage.met(hook), stream.sent
    stream.start()
    stream.flow(20)
    stream.pause()
    until(
        lambda: stage.met(hook) - met >= stream.sent - sent,
        f"{hook}: the packets meet a program: {stage.lab.filters(stage.interface, hook)}",
    )
    assert stream.received == 0, hook


@pytest.mark.parametrize("kind", DRIFTS)
def test_killed_after_each_write(kind: str, lab: Lab) -> None:
    """By SIGKILL; hooks that hold a filter drop from the first write on, if not before."""
    drift = DRIFTS[kind]
    stage = Stage(lab, _INTERFACE, "deny")
    hooks = [hook for hook in HOOKS if drift.at(hook)]
    with streams(lab, _INTERFACE) as flows:
        for writes in range(1, drift.writes + 1):
            stage.set_out(drift)
            _killed_after(stage, drift.policy, writes)
            for hook in hooks:
                _assert_denied(stage, hook, flows[hook])
            _assert_finished(stage, drift.policy, hooks)
            for hook in hooks:
                _assert_denied(stage, hook, flows[hook])


def _assert_finished(stage: Stage, policy: Policy, hooks: list[str]) -> None:
    """A second run does the rest, and a third finds nothing to do."""
    stage.repair(policy)
    again = stage.repair(policy)
    assert (again.done, again.found.plan, again.found.outlook) == ((), (), Outlook.OK)
    ours = {}
    for hook in hooks:
        found = stage.lab.filters(stage.interface, hook)
        ours[hook] = [f for f in found if f.name.startswith("cali_tc_preambl")]
        assert [f.program_id for f in ours[hook]] == [stage.program_ids[hook]["newer"]]
    assert len({f.slot for filters in ours.values() for f in filters}) == 1


def test_the_kill_is_real(lab: Lab) -> None:
    """The control: killed after one write of two, the endpoint is half-way, with both copies."""
    stage = Stage(lab, _INTERFACE, "deny")
    stage.set_out(DRIFTS["handles 1 and 2"])
    _killed_after(stage, DRIFTS["handles 1 and 2"].policy, 1)
    ingress, egress = (stage.program_ids[hook]["newer"] for hook in HOOKS)
    assert lab.program_ids(_INTERFACE, "ingress") == [ingress]
    assert lab.program_ids(_INTERFACE, "egress") == [egress, egress]
