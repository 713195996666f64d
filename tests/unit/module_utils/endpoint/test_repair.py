# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repairs while others write, while the kernel refuses, and while we are killed.

At any event and at any point: a hook that had an enforcing program has one, foreign filters stay,
and Felix's newest program is attached at the end or the outcome says that it is not.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import combinations, combinations_with_replacement, zip_longest

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint import kernel_rules
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.audit import (
    AuditMode,
    AuditOptions,
    audit,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.judge import judge
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.plan import apply_plan
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.repair import (
    Outcome,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import DataplaneError
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    Action,
    Attachments,
    Behaviour,
    Code,
    Endpoint,
    Hook,
    Outlook,
    Qdisc,
    Slot,
    Verdict,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.build import (
    INTERFACE,
    endpoint,
    foreign,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.fake_kernel import (
    Felix,
    Kernel,
    Killed,
    Program,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.repairs import (
    BROKEN,
    POLICY,
    Patch,
    at_calls,
    kernel_with,
    reader_of,
    repair,
)

FELIX_BEHAVIOURS = (Behaviour.ADD_THEN_DELETE, Behaviour.REPLACE_AND_COMPARE)
every_broken = pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
every_felix = pytest.mark.parametrize("behaviour", FELIX_BEHAVIOURS)


@pytest.fixture(autouse=True)
def _no_real_bpf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test's kernel patches itself in; see ``kernel_with``."""
    Patch.now = monkeypatch


def calls_of(broken: Endpoint) -> int:
    """How many calls an undisturbed repair makes, and so at how many points to disturb it."""
    kernel = kernel_with(broken)
    repair(kernel, broken)
    return len(kernel.calls)


def no_times(attachments: Attachments) -> Attachments:
    return tuple(a._replace(loaded_at=0) for a in attachments)


def foreign_filters(e: Endpoint) -> list[Attachments]:
    return [tuple(a for a in e.at(hook) if not a.calico) for hook in Hook]


def assert_unharmed(kernel: Kernel, broken: Endpoint) -> None:
    """I1 and I3, at every moment so far. With add_then_delete Felix trips over another chain."""
    felix_trips = broken is BROKEN["wrong chain"]
    assert [gap for gap in kernel.gaps if not (felix_trips and gap.startswith("Felix"))] == []
    assert foreign_filters(kernel.endpoints[INTERFACE]) == foreign_filters(broken)


def assert_felix_won_or_it_is_said(kernel: Kernel, felix: Felix, outcome: Outcome) -> None:
    """I5: its newest program runs, and runs first; else the outcome is no success and says so."""
    for hook, program in felix.attached.items():
        running = [a.program_id for a in kernel.at(hook) if a.calico and a.runs]
        if running[:1] != [program]:
            assert outcome.verdict in (Verdict.CONTENDED, Verdict.DRIFTED), (hook, running)
            assert any(hook.value in note for note in outcome.notes)


# --- undisturbed ----------------------------------------------------------------------------------


@every_broken
def test_an_undisturbed_repair_does_what_the_plan_says(broken: Endpoint) -> None:
    kernel = kernel_with(broken)
    planned = judge(broken, POLICY).plan
    outcome = repair(kernel, broken)
    assert outcome.done == planned
    assert outcome.notes == ()
    assert kernel.writes == len(planned)
    assert_unharmed(kernel, broken)
    expected = apply_plan(broken, planned)
    for hook in Hook:
        assert no_times(kernel.at(hook)) == no_times(expected.at(hook))
    assert outcome.verdict is (Verdict.DRIFTED if broken.ingress == () else Verdict.REPAIRED)


@every_broken
def test_a_second_repair_writes_nothing(broken: Endpoint) -> None:
    kernel = kernel_with(broken)
    repair(kernel, broken)
    written = kernel.writes
    now = kernel.endpoints[INTERFACE]
    assert judge(now, POLICY).plan == ()
    outcome = repair(kernel, now)
    assert (outcome.done, kernel.writes) == ((), written)


# --- Felix writes during the repair ---------------------------------------------------------------


@every_felix
@every_broken
def test_felix_reattaches_before_any_one_call(broken: Endpoint, behaviour: Behaviour) -> None:
    for point in range(calls_of(broken)):
        kernel = kernel_with(broken)
        felix = Felix(kernel, behaviour)
        kernel.before_call = at_calls((point, felix.reattach))
        outcome = repair(kernel, broken)
        assert_unharmed(kernel, broken)
        assert_felix_won_or_it_is_said(kernel, felix, outcome)
        if outcome.verdict is Verdict.REPAIRED:
            assert judge(kernel.endpoints[INTERFACE], POLICY).outlook is Outlook.OK


@every_felix
@pytest.mark.parametrize("kind", ["handle mismatch", "duplicates at both", "wrong protocol"])
def test_felix_reattaches_before_any_two_calls(kind: str, behaviour: Behaviour) -> None:
    broken = BROKEN[kind]
    for first, second in combinations(range(calls_of(broken) + 8), 2):
        kernel = kernel_with(broken)
        felix = Felix(kernel, behaviour)
        kernel.before_call = at_calls((first, felix.reattach), (second, felix.reattach))
        outcome = repair(kernel, broken)
        assert_unharmed(kernel, broken)
        assert_felix_won_or_it_is_said(kernel, felix, outcome)


def finish(steps: Iterator[object]) -> None:
    for _unused in steps:
        pass


@every_felix
def test_repaired_needs_a_consistent_end(behaviour: Behaviour) -> None:
    """One pass of Felix, each of its steps at any point of the audit or after it.

    Felix deletes by priority and handle what it listed before. If the repair frees a handle in
    between, the kernel gives it to Felix's new filter, which Felix then deletes itself. That
    cannot be prevented; but it is over within the settle time, and the last read must detect it.
    """
    broken = BROKEN["handle mismatch"]
    wrong = []
    for points in combinations_with_replacement(range(6, 16), 4):
        kernel = kernel_with(broken)
        felix = Felix(kernel, behaviour)
        steps = zip_longest(*map(felix.steps, Hook))
        kernel.before_call = at_calls(*((p, partial(next, steps, None)) for p in points))

        def sleep(_unused: float, kernel: Kernel = kernel, steps: Iterator[object] = steps) -> None:
            if kernel.writes:
                finish(steps)

        order = AuditOptions(("cali*",), policy=POLICY, mode=AuditMode.REPAIR)
        outcome = audit(order, kernel, reader_of(kernel), sleep).outcomes[0]
        finish(steps)
        now = judge(kernel.endpoints[INTERFACE], POLICY)
        if outcome.verdict is Verdict.REPAIRED and now.drifted:
            wrong.append((points, [f.code.value for f in now.findings]))
    assert wrong == []


# --- the wrong filter is deleted ------------------------------------------------------------------


def felix_replaces_at(kernel: Kernel, hook: Hook, slot: Slot) -> int:
    new = kernel.load()._replace(priority=slot.priority, handle=slot.handle)
    kernel.write("Felix", hook, lambda filters: kernel_rules.replace(filters, new))
    return new.program_id


def test_a_program_that_a_delete_hit_by_chance_is_put_back() -> None:
    """Felix replaces at the old handle in the instant between our last look and our delete."""
    kernel = kernel_with(BROKEN["handle mismatch"])
    newer: list[int] = []

    def before(number: int) -> None:
        if kernel.calls[number] == "delete egress 49152/2" and not newer:
            newer.append(felix_replaces_at(kernel, Hook.EGRESS, Slot(49152, 2)))

    kernel.before_call = before
    outcome = repair(kernel, BROKEN["handle mismatch"])
    assert kernel.gaps == []
    assert [a.program_id for a in kernel.at(Hook.EGRESS)] == newer
    assert outcome.verdict is Verdict.REPAIRED
    assert any("put back" in note for note in outcome.notes)


def test_a_program_that_cannot_be_put_back_is_reported() -> None:
    kernel = kernel_with(BROKEN["handle mismatch"])
    kernel.forgets = True
    newer: list[int] = []

    def before(number: int) -> None:
        if kernel.calls[number] == "delete egress 49152/2" and not newer:
            newer.append(felix_replaces_at(kernel, Hook.EGRESS, Slot(49152, 2)))

    kernel.before_call = before
    outcome = repair(kernel, BROKEN["handle mismatch"])
    assert kernel.gaps == []
    assert [a.program_id for a in kernel.at(Hook.EGRESS)] == [20]
    assert outcome.verdict is Verdict.CONTENDED
    assert any(f"id {newer[0]} " in note and "restart" in note for note in outcome.notes)


# --- the wrong filter is replaced -----------------------------------------------------------------

IN_PLACE = BROKEN["not direct-action"]


@pytest.mark.parametrize("call", ["open program 20", "replace egress 49152/1"])
def test_a_program_that_a_replace_hit_by_chance_is_put_back(call: str) -> None:
    """Felix replaces at the same handle between our last look and our replace."""
    kernel = kernel_with(IN_PLACE)
    newer: list[int] = []

    def before(number: int) -> None:
        if kernel.calls[number] == call and not newer:
            newer.append(felix_replaces_at(kernel, Hook.EGRESS, Slot(49152, 1)))

    kernel.before_call = before
    outcome = repair(kernel, IN_PLACE)
    assert [a.program_id for a in kernel.at(Hook.EGRESS)] == newer
    assert kernel.gaps == []
    assert outcome.verdict is Verdict.REPAIRED
    assert any("put back" in note for note in outcome.notes)


def test_a_foreign_filter_that_a_replace_hit_by_chance_is_put_back() -> None:
    kernel = kernel_with(IN_PLACE)
    stranger = foreign(49152, 1)

    def before(number: int) -> None:
        if kernel.calls[number] == "replace egress 49152/1" and stranger not in kernel.at(
            Hook.EGRESS
        ):
            kernel.programs[stranger.program_id] = Program("cil_from_contai", 0)
            kernel.write("Felix", Hook.EGRESS, lambda _filters: (stranger,))
            kernel.before_call = lambda number: None

    kernel.before_call = before
    outcome = repair(kernel, IN_PLACE)
    assert kernel.at(Hook.EGRESS) == (stranger,)
    assert any("put back" in note for note in outcome.notes)


@pytest.mark.parametrize("how", ["it is gone", "changes are dropped"])
def test_a_program_that_is_replaced_for_good_is_reported(how: str) -> None:
    kernel = kernel_with(IN_PLACE)
    kernel.drops_changes = how == "changes are dropped"
    newer: list[int] = []

    def before(number: int) -> None:
        if kernel.calls[number] == "replace egress 49152/1" and not newer:
            newer.append(felix_replaces_at(kernel, Hook.EGRESS, Slot(49152, 1)))
        elif newer and how == "it is gone":
            kernel.programs.pop(newer[0], None)

    kernel.before_call = before
    outcome = repair(kernel, IN_PLACE)
    assert [a.program_id for a in kernel.at(Hook.EGRESS)] == [20]
    assert outcome.verdict is Verdict.CONTENDED
    assert any("restart" in note for note in outcome.notes)
    assert [s.action for s in outcome.done] == [Action.REPLACE]


def test_a_filter_that_goes_before_its_replacement_is_planned_again() -> None:
    """The replace never creates a filter."""
    kernel = kernel_with(IN_PLACE)
    felix = Felix(kernel, Behaviour.ADD_THEN_DELETE)

    def before(number: int) -> None:
        if kernel.calls[number] == "replace egress 49152/1" and not felix.attached:
            felix.reattach()

    kernel.before_call = before
    outcome = repair(kernel, IN_PLACE)
    assert_unharmed(kernel, IN_PLACE)
    assert_felix_won_or_it_is_said(kernel, felix, outcome)
    assert outcome.done == ()
    assert "ENOENT" in outcome.notes[0]


# --- the kernel refuses ---------------------------------------------------------------------------

WRITES = [
    pytest.param(broken, n, id=f"{name}, write {n}")
    for name, broken in BROKEN.items()
    for n in range(1, len(judge(broken, POLICY).plan) + 1)
]


@pytest.mark.parametrize(("broken", "write"), WRITES)
@pytest.mark.parametrize("number", [errno.EEXIST, errno.ENOENT, errno.EBUSY, errno.EAGAIN])
def test_a_temporary_refusal_is_planned_again(broken: Endpoint, write: int, number: int) -> None:
    kernel = kernel_with(broken)
    kernel.refuse = {write: number}
    outcome = repair(kernel, broken)
    assert_unharmed(kernel, broken)
    assert errno.errorcode[number] in outcome.notes[0]
    assert judge(kernel.endpoints[INTERFACE], POLICY).plan == ()
    assert outcome.verdict is (Verdict.DRIFTED if broken.ingress == () else Verdict.REPAIRED)


@pytest.mark.parametrize(("broken", "write"), WRITES)
@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL, errno.ENOMEM])
@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
def test_a_permanent_refusal_reports_the_steps_done_and_a_rerun_completes(
    broken: Endpoint, write: int, number: int, for_good: bool
) -> None:
    kernel = kernel_with(broken)
    kernel.refuse = dict.fromkeys(range(write, 100) if for_good else [write], number)
    with pytest.raises(DataplaneError) as failed:
        repair(kernel, broken)
    assert_unharmed(kernel, broken)
    assert_a_second_run_finishes(kernel, broken)
    for word in (INTERFACE, errno.errorcode[number], "run the task again"):
        assert word in str(failed.value)
    if not for_good:
        assert "Done before: " in str(failed.value)
        assert "now holds" in str(failed.value)


def assert_a_second_run_finishes(kernel: Kernel, broken: Endpoint) -> None:
    """The very programs that an undisturbed repair leaves, and nothing left to do."""
    kernel.refuse, kernel.kill_after = {}, None
    repair(kernel, reader_of(kernel).read([INTERFACE]).endpoints[0])
    assert_unharmed(kernel, broken)
    now = kernel.endpoints[INTERFACE]
    assert judge(now, POLICY).plan == ()
    ideal = apply_plan(broken, judge(broken, POLICY).plan)
    for hook in Hook:
        assert [a.program_id for a in now.at(hook)] == [a.program_id for a in ideal.at(hook)]


def test_a_missing_program_is_planned_again() -> None:
    """Felix replaced it between the snapshot and the repair."""
    broken = BROKEN["handle mismatch"]
    kernel = kernel_with(broken)
    felix = Felix(kernel, Behaviour.REPLACE_AND_COMPARE)

    def before(number: int) -> None:
        if kernel.calls[number] == "open program 20" and not felix.attached:
            felix.reattach()
            del kernel.programs[20]

    kernel.before_call = before
    outcome = repair(kernel, broken)
    assert_unharmed(kernel, broken)
    assert outcome.verdict is Verdict.REPAIRED
    assert_felix_won_or_it_is_said(kernel, felix, outcome)


# --- we are killed --------------------------------------------------------------------------------


@pytest.mark.parametrize(("broken", "write"), WRITES)
def test_a_second_run_completes_a_killed_one(broken: Endpoint, write: int) -> None:
    kernel = kernel_with(broken)
    kernel.kill_after = write
    with pytest.raises(Killed):
        repair(kernel, broken)
    assert_unharmed(kernel, broken)
    assert_a_second_run_finishes(kernel, broken)


# --- others keep writing, the interface goes ------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_endless_contention_ends_as_contended(retries: int) -> None:
    """A Felix that re-attaches in place each time that a step of ours is about to be made."""
    broken = BROKEN["handle mismatch"]
    kernel = kernel_with(broken)
    felix = Felix(kernel, Behaviour.REPLACE_AND_COMPARE)

    def before(number: int) -> None:
        if kernel.calls[number].startswith("add"):
            felix.reattach()

    kernel.before_call = before
    pauses: list[float] = []
    outcome = repair(kernel, broken, retries=retries, sleep=pauses.append)
    assert outcome.verdict is Verdict.CONTENDED
    assert len(outcome.notes) == len(pauses) == retries + 1
    assert pauses == sorted(set(pauses))
    assert_unharmed(kernel, broken)
    assert_felix_won_or_it_is_said(kernel, felix, outcome)


@every_broken
@pytest.mark.parametrize("back_again", [False, True], ids=["gone", "another one of its name"])
def test_the_interface_goes_before_any_call(broken: Endpoint, back_again: bool) -> None:
    other = replace(broken, ifindex=broken.ifindex + 1)

    def go(kernel: Kernel) -> None:
        kernel.endpoints.clear()
        if back_again:
            kernel.put(other)

    for point in range(calls_of(broken)):
        kernel = kernel_with(broken)
        kernel.before_call = at_calls((point, partial(go, kernel)))
        outcome = repair(kernel, broken)
        assert outcome.verdict is Verdict.VANISHED
        assert outcome.after is None
        assert kernel.endpoints == ({INTERFACE: other} if back_again else {})


@every_broken
def test_clsact_goes_before_any_call(broken: Endpoint) -> None:
    """With all that was on it, as Felix 3.31 does on its way to TCX."""

    def go(kernel: Kernel) -> None:
        kernel.endpoints[INTERFACE] = endpoint((), (), Qdisc.NONE)

    for point in range(calls_of(broken)):
        kernel = kernel_with(broken)
        kernel.before_call = at_calls((point, partial(go, kernel)))
        outcome = repair(kernel, broken)
        assert outcome.verdict is Verdict.DRIFTED
        assert outcome.left is not None
        assert {f.code for f in outcome.left.findings} <= {
            Code.MISSING_CLSACT,
            Code.MISSING_PROGRAM,
        }
