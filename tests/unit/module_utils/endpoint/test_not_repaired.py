# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is not repaired, why the finding says so, and programs that cannot run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.judge import judge
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.plan import apply_plan
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    Behaviour,
    Code,
    Hook,
    MissingTarget,
    Policy,
    Severity,
    Target,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.build import (
    around_a_stranger,
    at,
    endpoint,
    in_words,
    listed,
    ours,
)

B = Policy(Behaviour.ADD_THEN_DELETE)
EGRESS_1 = at(1, program=20)


def missing(hook: Hook, program_id: int, target: Target = Target.MAIN) -> MissingTarget:
    return MissingTarget(hook, program_id, target, "index 8 of cali_progs3 (map 3)")


#: Packets reach program 10, at the lower priority; program 11 is the newest.
OLD_FIRST = listed(ours(1, 10, 49151, loaded_at=1), ours(1, 11, 49152, loaded_at=2))


def test_a_newest_program_that_cannot_run_does_not_replace_one_that_can() -> None:
    state = endpoint(OLD_FIRST, EGRESS_1, missing_targets=(missing(Hook.INGRESS, 11),))
    judged = judge(state, B)
    assert judged.plan == ()
    remarks = [f.message for f in judged.findings if "NOT REPAIRED" in f.message]
    assert len(remarks) == len([f for f in judged.findings if f.severity is Severity.DRIFT])
    assert "pref 49152 handle 1 direct-action at ingress is the newest program" in remarks[0]
    assert not any(f.repairable for f in judged.findings)


@pytest.mark.parametrize("broken", [(), (10,), (10, 11)])
def test_a_repair_that_cuts_nothing_off_keeps_the_newest_program(broken: tuple[int, ...]) -> None:
    targets = tuple(missing(Hook.INGRESS, program) for program in broken)
    state = endpoint(OLD_FIRST, EGRESS_1, missing_targets=targets)
    end = apply_plan(state, judge(state, B).plan)
    assert [a.program_id for a in end.ingress] == [11]


@pytest.mark.parametrize(
    ("interface", "target", "severity"),
    [
        ("cali0123456789a", Target.POLICY, Severity.DRIFT),
        ("eth0", Target.POLICY, Severity.NOTICE),
        ("eth0", Target.MAIN, Severity.DRIFT),
    ],
)
def test_a_host_interface_may_lack_a_policy_program(
    interface: str, target: Target, severity: Severity
) -> None:
    state = replace(
        endpoint(at(1), EGRESS_1, missing_targets=(missing(Hook.INGRESS, 10, target),)),
        interface=interface,
    )
    (finding,) = judge(state, B).findings
    assert finding.severity is severity
    assert ("restart this node's calico-node pod" in finding.message) is (
        severity is Severity.DRIFT
    )


def test_a_surplus_program_that_cannot_run_goes_with_its_finding() -> None:
    state = endpoint(at(1, 2), EGRESS_1, missing_targets=(missing(Hook.INGRESS, 10),))
    judged = judge(state, B)
    assert in_words(judged.plan) == [
        "replace ingress 49152/1 id 11",
        "delete ingress 49152/2 id 11",
    ]
    assert {f.code: f.repairable for f in judged.findings} == {
        Code.DUPLICATE_PROGRAM: True,
        Code.MISSING_JUMP_TARGET: True,
        Code.HANDLE_MISMATCH: True,
    }


def test_why_nothing_is_repaired_that_no_kill_would_leave_repairable() -> None:
    state = endpoint(around_a_stranger(11, 10), around_a_stranger(21, 20))
    for finding in judge(state, B).findings:
        assert "NOT REPAIRED: after an interrupted repair, Felix could leave" in finding.message
        assert "(cil_from_contai:[90] id 90 at pref 49151 handle 1" in finding.message
        assert finding.message.endswith("then repair again")
