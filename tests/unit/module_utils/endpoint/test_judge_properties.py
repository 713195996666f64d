# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds of every judgement and every plan, over random states that a kernel can hold."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint import (
    judge,
    plan_search,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.findings import (
    attach_type_of,
    survivor,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.outlook import (
    FelixError,
    felix_pass,
    predict,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.plan import (
    apply_plan,
    apply_step,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.plan_search import plain
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
#: Each of these judges some hundred states.
few_states = settings(every_state, max_examples=300)
AUTO = Policy(Behaviour.ADD_THEN_DELETE, also_safe_for=tuple(Behaviour))
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
    Code.MISSING_JUMP_TARGET,
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


@few_states
@given(endpoints(), policies)
@example(endpoint((ours(2, direct_action=False),), (ours(2, 20, direct_action=False),)), AUTO)
@example(endpoint(at(1, 2), at(1, 2, program=20)), AUTO)
def test_a_repair_that_is_killed(state: Endpoint, policy: Policy) -> None:
    """After any step no outlook is worse; and after some passes of Felix, a second run finishes.

    Where no plan achieves the former, the least harmful one is taken. Where none achieves the
    latter, nothing is moved. Before the first step it is Felix alone that makes the state.
    """
    moves = tuple(s for s in judge.judge(state, policy).plan if s.action is not Action.UNPIN)
    killed = tuple(states_after_each_step(state, moves))
    if moves and _harmless_plan_exists(state, policy):
        for now, behaviour in product(killed, Behaviour):
            assert predict(now, behaviour)[0].severity <= predict(state, behaviour)[0].severity
    later = {
        plain(s)
        for now, behaviour in product(killed, Behaviour)
        if behaviour is not Behaviour.ADD_WITHOUT_COMPARE or _has_priorities_left(now)
        for s in after_passes(now, behaviour)
    }
    for found in later:
        end = apply_plan(found, judge.judge(found, policy).plan)
        assert predict(end, policy.behaviour)[0] is Outlook.OK, found


def _has_priorities_left(state: Endpoint) -> bool:
    """For a Felix that counts down to 32768, and is stuck there."""
    used = [a.priority for hook in Hook for a in state.at(hook) if a.priority >= 32768]
    return min(used, default=49152) > 32768 + 8


def _harmless_plan_exists(state: Endpoint, policy: Policy) -> bool:
    options = plan_search._options(plain(state), policy)
    return any(not any(option.harm) for option in options)


def after_passes(state: Endpoint, behaviour: Behaviour) -> Iterator[Endpoint]:
    """After 0 to 3 passes, each of which attaches a program of its own at each hook."""
    yield state
    for number in range(3):
        for hook in Hook:
            tcx = tuple(a for a in state.at(hook) if a.attach_type is AttachType.TCX)
            filters = state.at(hook)[len(tcx) :]
            try:
                now, _slot = felix_pass(filters, behaviour, hook)
            except FelixError as failed:
                now = failed.filters
            new = {f: f._replace(program_id=1000 + number, loaded_at=1000 + number) for f in now}
            now = tuple(f if f in filters else new[f] for f in now)
            state = state.with_hook(hook, tcx + now)
        yield state


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
