# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a single look of an audit cannot show, and what a shared block does not allow."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.audit import (
    AuditMode,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.findings import (
    assess,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.judge import judge
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    Behaviour,
    Endpoint,
    Hook,
    Outlook,
    Policy,
    SharedBlock,
    Verdict,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.audits import (
    HEALTHY,
    MISMATCH,
    named,
    run,
    verdicts,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.build import (
    at,
    endpoint,
    ours,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.fake_kernel import (
    Kernel,
    Program,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.strategies import endpoints


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    made.patch(monkeypatch)
    return made


# --- what one look cannot show --------------------------------------------------------------------


def felix_loads(kernel: Kernel, *programs: int, seconds_ago: float = 0.0) -> None:
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - round(seconds_ago * 1e9)
    for program in programs:
        kernel.programs[program] = Program("cali_tc_preambl", now)


def between_the_hooks(kernel: Kernel) -> Callable[[], None]:
    """A Felix that adds, then deletes: hooks at 1 and 2, of which ingress moved to 2 just now.

    :returns: what Felix does during the first wait: egress moves to 1.
    """
    felix_loads(kernel, 30)
    kernel.put(endpoint(at(2, program=30), at(2, program=20)))

    def finish_the_pass() -> None:
        if kernel.programs.setdefault(40, Program("cali_tc_preambl", 0)).loaded_at == 0:
            felix_loads(kernel, 30, 40, seconds_ago=1.5)
            kernel.put(endpoint(at(2, program=30), at(1, program=40)))

    return finish_the_pass


def test_an_endpoint_between_the_hooks_of_a_pass_is_not_called_healthy(kernel: Kernel) -> None:
    seen = run(kernel, AuditMode.AUDIT, between_the_hooks(kernel))
    assert verdicts(seen) == {MISMATCH.interface: Verdict.DRIFTED}
    assert seen.outcomes[0].found.outlook is Outlook.STUCK


def test_a_repair_finds_what_the_first_look_hid(kernel: Kernel) -> None:
    seen = run(kernel, AuditMode.REPAIR, between_the_hooks(kernel))
    assert verdicts(seen) == {MISMATCH.interface: Verdict.REPAIRED}


def test_drift_between_the_hooks_of_the_next_pass_is_not_called_healthy(kernel: Kernel) -> None:
    """The first look shows drift, the second falls between the hooks."""
    kernel.put(MISMATCH)
    finish: list[Callable[[], None]] = []

    def felix_works() -> None:
        if finish:
            finish[0]()
        else:
            finish.append(between_the_hooks(kernel))

    seen = run(kernel, AuditMode.AUDIT, felix_works)
    assert verdicts(seen) == {MISMATCH.interface: Verdict.DRIFTED}


def test_a_pass_that_ends_well_is_healthy(kernel: Kernel) -> None:
    """Read after one hook of two: first a mismatch, then both hooks have moved."""
    felix_loads(kernel, 30)
    kernel.put(endpoint(at(2, program=30), at(1, program=20)))

    def finish_the_pass() -> None:
        felix_loads(kernel, 30, 40, seconds_ago=1.5)
        kernel.put(endpoint(at(2, program=30), at(2, program=40)))

    seen = run(kernel, AuditMode.AUDIT, finish_the_pass)
    assert verdicts(seen) == {MISMATCH.interface: Verdict.CONSISTENT}


def test_an_endpoint_that_is_attached_again_before_each_look_is_not_healthy(
    kernel: Kernel,
) -> None:
    kernel.put(HEALTHY)
    felix_loads(kernel, 10, 20)
    seen = run(kernel, AuditMode.AUDIT, lambda: felix_loads(kernel, 10, 20))
    assert verdicts(seen) == {HEALTHY.interface: Verdict.CONTENDED}
    assert "tc_churn_info" in seen.outcomes[0].notes[0]


def test_a_pass_after_the_repair_is_waited_for(kernel: Kernel) -> None:
    """The last look falls between the hooks of a pass that ends well."""
    kernel.put(MISMATCH)
    last = [endpoint(at(2, program=30), at(2, program=40)), endpoint(at(2, program=30), at(1))]

    def felix_comes_late() -> None:
        if kernel.writes and last:
            kernel.put(last.pop())
            felix_loads(kernel, 30, 40, seconds_ago=0 if last else 1.5)

    seen = run(kernel, AuditMode.REPAIR, felix_comes_late)
    assert verdicts(seen) == {MISMATCH.interface: Verdict.REPAIRED}


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(endpoints())
def test_what_fails_again_and_again_is_drift_in_each_of_its_states(state: Endpoint) -> None:
    """An endpoint whose passes fail and succeed in turn is drifted after either."""
    for behaviour in Behaviour:
        judged = assess(state, Policy(behaviour))
        assert judged.drifted or not judged.outlook.lasts


# --- shared blocks --------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", Hook)
def test_a_plan_that_a_shared_block_refuses_is_not_begun(kernel: Kernel, hook: Hook) -> None:
    """In check mode and in a real run, with the same words; the audit says it too."""
    shared = replace(needs_both_hooks(), shared_blocks=(SharedBlock(hook, 3),))
    kernel.put(named("cali1", 1, shared))
    kernel.put(named("cali2", 2, MISMATCH))
    predicted, did = run(kernel, AuditMode.PREDICT), run(kernel, AuditMode.REPAIR)
    expected = {"cali1": Verdict.DRIFTED, "cali2": Verdict.REPAIRED}
    assert verdicts(predicted) == verdicts(did) == expected
    assert str(predicted.error) == str(did.error) == predicted.outcomes[0].error
    assert did.outcomes[0] == predicted.outcomes[0]
    assert "ENOTSUP" in str(did.error)
    assert "shared block 3. Nothing was changed at this endpoint." in str(did.error)
    assert kernel.endpoints["cali1"] == named("cali1", 1, shared)


def needs_both_hooks() -> Endpoint:
    return endpoint((ours(1, 10, direct_action=False),), (ours(1, 20, direct_action=False),))


def test_an_audit_says_that_a_shared_block_prevents_the_repair(kernel: Kernel) -> None:
    kernel.put(replace(needs_both_hooks(), shared_blocks=(SharedBlock(Hook.EGRESS, 3),)))
    seen = run(kernel)
    assert (seen.error, seen.outcomes[0].error, seen.outcomes[0].found.plan) == (None, "", ())
    for finding in seen.outcomes[0].found.findings:
        assert not finding.repairable
        assert "NOT REPAIRED: cali0123456789a egress: " in finding.message


def test_a_plan_beside_a_shared_block_is_carried_out(kernel: Kernel) -> None:
    (step, *_others) = judge(MISMATCH, Policy()).plan
    other = Hook.INGRESS if step.hook is Hook.EGRESS else Hook.EGRESS
    kernel.put(replace(MISMATCH, shared_blocks=(SharedBlock(other, 3),)))
    assert verdicts(run(kernel, AuditMode.REPAIR)) == {MISMATCH.interface: Verdict.REPAIRED}
