# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A repair killed after each of its writes and of its system calls.

No hook is worse off, and a second run finishes it. Every program drops, so a packet that gets
through afterwards passed a hook without a program.
"""

from __future__ import annotations

import os
import signal
from itertools import count
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.outlook import predict
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.netlink import TcSocket
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.snapshot import Reader
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    Behaviour,
    Outlook,
    Policy,
    Verdict,
)
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab
from ansible_collections.dataplane.calico_bpf.tests.support.netns.ptrace import killed_at
from ansible_collections.dataplane.calico_bpf.tests.support.traffic.traffic import (
    AUTO,
    DRIFTS,
    HOOKS,
    Drift,
    Place,
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

    def replace_filter(self, *args: Any) -> None:
        super().replace_filter(*args)
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


#: It deletes in chain 0 what it lists in another one, so it fails as long as chain 0 holds a copy.
#: Nothing but a copy there repairs the endpoint.
_CHAINLESS = Behaviour.ADD_WITHOUT_COMPARE


def _severities(stage: Stage, policy: Policy) -> dict[Behaviour, int]:
    """How grave the outlook is for each behaviour that counts."""
    with entered(stage.lab.netns), TcSocket() as tc:
        (found,) = Reader(tc).read([stage.interface]).endpoints
    behaviours = (policy.behaviour, *policy.also_safe_for)
    return {behaviour: predict(found, behaviour)[0].severity for behaviour in behaviours}


_BLIND = Place(direct_action=False)
#: Symmetric drift, through which a plan that finishes one hook first would pass a mismatch.
_SYMMETRIC = {
    "not direct-action at both, handle 1": Drift((_BLIND,), (_BLIND,), 2, enforced=False),
    "not direct-action at both, handle 2": Drift(
        (_BLIND._replace(handle=2),), (_BLIND._replace(handle=2),), 2, enforced=False
    ),
    "not direct-action, foreign at handle 9": Drift(
        (_BLIND, Place(handle=9, program="foreign")), (Place(),), 1, enforced=False
    ),
}
_KILLED = {**DRIFTS, **_SYMMETRIC}


@pytest.mark.parametrize("kind", _KILLED)
def test_killed_after_each_write(kind: str, lab: Lab) -> None:
    """By SIGKILL; hooks that hold a filter drop from the first write on, if not before.

    And Felix is no worse off: no outlook is graver than it was.
    """
    drift = _KILLED[kind]
    stage = Stage(lab, _INTERFACE, "deny")
    hooks = [hook for hook in HOOKS if drift.at(hook)]
    with streams(lab, _INTERFACE) as flows:
        for writes in range(1, drift.writes + 1):
            stage.set_out(drift)
            before = _severities(stage, drift.policy)
            _killed_after(stage, drift.policy, writes)
            now = _severities(stage, drift.policy)
            worse = [b for b, severity in now.items() if severity > before[b]]
            assert worse == ([_CHAINLESS] if kind == "wrong chain" and writes == 1 else []), writes
            for hook in hooks if writes == drift.writes or not _blind(drift) else ():
                _assert_denied(stage, hook, flows[hook])
            _assert_finished(stage, drift.policy, hooks)
            for hook in hooks:
                _assert_denied(stage, hook, flows[hook])


#: Of the states that were attacked, those that a repair may change; the others are not touched.
_AT_EACH_CALL = [*_SYMMETRIC, "handles 1 and 2", "detour past protocol ip"]


@pytest.mark.parametrize("kind", _AT_EACH_CALL)
def test_killed_after_each_system_call(kind: str, lab: Lab) -> None:
    """Nothing is worse after any call. What is left is repaired by the next run."""
    drift = _KILLED[kind]
    hooks = [hook for hook in HOOKS if drift.at(hook)]
    stage = Stage(lab, _INTERFACE, "deny")
    stage.set_out(drift)
    before = _severities(stage, drift.policy)
    left: dict[str, int] = {}
    for calls in count(1):
        if not killed_at(calls, lambda: stage.repair(drift.policy)):
            break
        state = str([lab.filters(_INTERFACE, hook) for hook in HOOKS])
        if state not in left:
            left[state] = calls
            now = _severities(stage, drift.policy)
            assert [b for b, severity in now.items() if severity > before[b]] == [], calls
            for hook in hooks if drift.enforced else ():
                filters = lab.filters(_INTERFACE, hook)
                assert any(f.direct_action and f.name.startswith("cali_tc") for f in filters), calls
            _assert_finished(stage, drift.policy, hooks)
        stage.set_out(drift)
    assert calls > 40
    assert len(left) == drift.writes + 1


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


def _blind(drift: Drift) -> bool:
    """Neither hook enforces anything yet: each does once its own write is made."""
    return not any(place.direct_action for hook in HOOKS for place in drift.at(hook))


@pytest.mark.parametrize("policy", [AUTO, Policy(Behaviour.ADD_THEN_DELETE)])
def test_what_no_kill_would_leave_repairable_is_not_touched(policy: Policy, lab: Lab) -> None:
    """Two of Calico's programs around a stranger: after one delete and a pass of Felix, the hooks
    would be on different sides of it for good."""
    around = (Place(49150), Place(49151, program="foreign"), Place(49152, program="older"))
    stage = Stage(lab, _INTERFACE, "deny")
    stage.set_out(Drift(around, around, 0))
    before = [lab.filters(_INTERFACE, hook) for hook in HOOKS]
    outcome = stage.repair(policy)
    assert (outcome.done, outcome.verdict) == ((), Verdict.DRIFTED)
    assert all("NOT REPAIRED" in f.message for f in outcome.found.findings)
    assert [lab.filters(_INTERFACE, hook) for hook in HOOKS] == before


def test_the_kill_is_real(lab: Lab) -> None:
    """The control: killed after one write of two, the endpoint is half-way, with both copies."""
    stage = Stage(lab, _INTERFACE, "deny")
    stage.set_out(DRIFTS["handles 1 and 2"])
    _killed_after(stage, DRIFTS["handles 1 and 2"].policy, 1)
    ingress, egress = (stage.program_ids[hook]["newer"] for hook in HOOKS)
    assert lab.program_ids(_INTERFACE, "ingress") == [ingress]
    assert lab.program_ids(_INTERFACE, "egress") == [egress, egress]
