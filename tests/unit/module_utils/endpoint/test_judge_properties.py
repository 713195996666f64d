# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds of every judgement and every plan, over random states that a kernel can hold."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint import judge
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.findings import (
    attach_type_of,
    survivor,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.outlook import predict
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.plan import apply_step
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    Action,
    Attachments,
    AttachType,
    Behaviour,
    Code,
    Endpoint,
    Hook,
    Judgement,
    Outlook,
    Plan,
    Policy,
    Severity,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.build import (
    at,
    endpoint,
    ours,
    tcx,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.strategies import endpoints

every_state = settings(
    max_examples=2000,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
policies = st.builds(
    Policy,
    behaviour=st.sampled_from(Behaviour),
    attach_type=st.sampled_from((None, None, AttachType.TC, AttachType.TCX)),
    also_safe_for=st.sampled_from(((), (), tuple(Behaviour)[2:], tuple(Behaviour))),
)
#: In parity, but Felix 3.31 does not find its own at egress, and there is no priority below 32768.
BY_HAND = endpoint((ours(priority=32768),), (ours(1, 20, priority=32768, name="allow.o:[tc]"),))
NO_PLAN_MAKES = {
    Code.MISSING_CLSACT,
    Code.INGRESS_QDISC,
    Code.MISSING_PROGRAM,
    Code.MIXED_ATTACH_TYPES,
    Code.EMPTY_PROG_ARRAY,
}


def states_after_each_step(state: Endpoint, steps: Plan) -> Iterator[Endpoint]:
    for step in steps:
        state = apply_step(state, step)
        yield state


def foreign_filters(attachments: Attachments) -> Attachments:
    return tuple(a for a in attachments if not a.calico)


def before_our_program(attachments: Attachments) -> Attachments | None:
    """The foreign filters before Felix's program; None if packets do not reach that."""
    running = [a for a in attachments if a.calico and a.runs and a.attach_type is AttachType.TC]
    if not running:
        return None
    stays = survivor(tuple(running))
    return foreign_filters(attachments[: attachments.index(stays)])


@pytest.mark.timeout(600)  # thousands of states, on a machine that may be busy
@every_state
@given(endpoints(), policies)
@example(BY_HAND, Policy(Behaviour.REPLACE))
@example(endpoint((tcx(1),), (tcx(2),)), Policy(attach_type=AttachType.TC))
@example(endpoint(at(1), at(1)), Policy(attach_type=AttachType.TCX))
def test_every_judgement(state: Endpoint, policy: Policy) -> None:
    judged = judge.judge(state, policy)
    assert judge.judge(state, policy) == judged
    if attach_type_of(state, policy) is AttachType.TC:  # the behaviours know no TCX
        assert judged.outlook is predict(state, policy.behaviour)[0]
    _no_finding_no_fault(judged, state, policy)
    if not judged.plan:
        assert not any(f.repairable for f in judged.findings)
        return
    end = state
    for end in states_after_each_step(state, judged.plan):
        for hook in Hook:
            _no_gap(state.at(hook), end.at(hook))
            _foreign_filters_unchanged(state.at(hook), end.at(hook))
    _only_programs_that_ran_there(state, end)
    _mends_what_it_says(judged, end, policy)
    _helps_felix(judged, state, end, policy)


def _no_finding_no_fault(judged: Judgement, state: Endpoint, policy: Policy) -> None:
    if judged.findings:
        return
    assert judged.plan == ()
    enforcing = [[a for a in state.at(hook) if a.calico and a.enforces] for hook in Hook]
    assert [len(hook) for hook in enforcing] == [1, 1]
    types = {a.attach_type for hook in enforcing for a in hook}
    assert len(types) == 1
    assert types <= {policy.attach_type or AttachType.TC, policy.attach_type or AttachType.TCX}


def _no_gap(before: Attachments, now: Attachments) -> None:
    assert any(a.calico for a in now) or not any(a.calico for a in before)
    assert any(a.calico and a.enforces for a in now) or not any(
        a.calico and a.enforces for a in before
    )


def _foreign_filters_unchanged(before: Attachments, now: Attachments) -> None:
    assert foreign_filters(now) == foreign_filters(before)
    if before_our_program(before) is not None:
        assert before_our_program(now) == before_our_program(before)


def _only_programs_that_ran_there(before: Endpoint, end: Endpoint) -> None:
    for hook in Hook:
        present = {(a.program_id, a.name, a.attach_type) for a in before.at(hook)}
        assert {(a.program_id, a.name, a.attach_type) for a in end.at(hook)} <= present


def _mends_what_it_says(judged: Judgement, end: Endpoint, policy: Policy) -> None:
    left = judge.judge(end, policy)
    assert left.plan == ()
    assert not [f for f in judged.findings if f.repairable and f.code in NO_PLAN_MAKES]
    remaining = {(f.code, f.hook) for f in left.findings}
    assert remaining.isdisjoint((f.code, f.hook) for f in judged.findings if f.repairable)
    drift = {(f.code, f.hook) for f in judged.findings if f.severity is Severity.DRIFT}
    assert {(f.code, f.hook) for f in left.findings if f.severity is Severity.DRIFT} <= drift


def _helps_felix(judged: Judgement, before: Endpoint, end: Endpoint, policy: Policy) -> None:
    if any(s.action is not Action.UNPIN for s in judged.plan):
        assert predict(end, policy.behaviour)[0] is Outlook.OK
    for behaviour in policy.also_safe_for:
        assert predict(end, behaviour)[0].severity <= predict(before, behaviour)[0].severity
