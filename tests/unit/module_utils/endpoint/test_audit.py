# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Audits of many endpoints: drift, unmanaged endpoints, and the prediction of check mode."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint import (
    audit as audit_module,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.audit import (
    Audit,
    AuditMode,
    AuditOptions,
    audit,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.findings import (
    assess,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.judge import judge
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import KernelError
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.dataplane import (
    Dataplane,
    Mode,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.snapshot import Reader
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    AttachType,
    Behaviour,
    Endpoint,
    Hook,
    Outlook,
    Plan,
    Policy,
    Qdisc,
    SharedBlock,
    Verdict,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.build import (
    at,
    endpoint,
    foreign,
    ours,
    tcx,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.fake_kernel import (
    Kernel,
    Program,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.strategies import endpoints

HEALTHY = endpoint(at(1), at(1, program=20))
MISMATCH = endpoint(at(1), at(2, program=20))
BARE = endpoint((), ())


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    made.patch(monkeypatch)
    return made


def named(name: str, ifindex: int, state: Endpoint) -> Endpoint:
    return replace(state, interface=name, ifindex=ifindex)


def run(
    kernel: Kernel,
    mode: AuditMode = AuditMode.AUDIT,
    while_settling: Callable[[], object] = lambda: None,
    mode_of_node: Mode = Mode.EBPF,
    **options: Any,
) -> Audit:
    order = AuditOptions(**{"interfaces": ("cali*",), "mode": mode, **options})
    reader = Reader(kernel, look_into_programs=True, tcx_pins="/nowhere")

    def sleep(seconds: float) -> None:
        if seconds:
            while_settling()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            audit_module, "read_dataplane", lambda *_: Dataplane(mode_of_node, "no trace")
        )
        return audit(order, kernel, reader, sleep)


def verdicts(audited: Audit) -> dict[str, Verdict]:
    return {o.before.interface: o.verdict for o in audited.outcomes}


# --- which endpoints ------------------------------------------------------------------------------


def test_only_the_wanted_interfaces_are_judged(kernel: Kernel) -> None:
    for n, name in enumerate(("cali1", "cali2", "caliX", "eth0")):
        kernel.put(named(name, n + 1, MISMATCH))
    seen = run(kernel, interfaces=("cali[0-9]", "lo"), exclude=("*2",))
    assert verdicts(seen) == {"cali1": Verdict.DRIFTED}


def test_a_node_without_a_trace_of_calico_is_unmanaged_and_not_judged(kernel: Kernel) -> None:
    kernel.put(named("cali1", 1, BARE))
    kernel.put(named("cali2", 2, endpoint((foreign(100),), (tcx(60, "cil_from_netdev"),))))
    for mode in (AuditMode.AUDIT, AuditMode.REPAIR):
        seen = run(kernel, mode, mode_of_node=Mode.ABSENT)
        assert set(verdicts(seen).values()) == {Verdict.UNMANAGED}
        assert seen.not_judged == ("no trace",)
    assert kernel.writes == 0


@pytest.mark.parametrize("qdisc", [Qdisc.CLSACT, Qdisc.NONE])
def test_a_node_in_ebpf_mode_on_which_every_endpoint_is_bare_is_drifted(
    kernel: Kernel, qdisc: Qdisc
) -> None:
    for n in (1, 2, 3):
        kernel.put(named(f"cali{n}", n, endpoint((), (), qdisc)))
    seen = run(kernel)
    assert set(verdicts(seen).values()) == {Verdict.DRIFTED}
    assert seen.not_judged == ()
    messages = [f.message for o in seen.outcomes for f in o.found.findings]
    assert all("NO POLICY IS ENFORCED" in message for message in messages)


@pytest.mark.parametrize(
    "options", [{"managed": True}, {"policy": Policy(attach_type=AttachType.TC)}]
)
def test_bare_endpoints_are_drifted_where_the_caller_says_so(
    kernel: Kernel, options: dict[str, Any]
) -> None:
    kernel.put(named("cali1", 1, BARE))
    assert verdicts(run(kernel, mode_of_node=Mode.ABSENT, **options)) == {"cali1": Verdict.DRIFTED}


def test_a_bare_endpoint_among_others_is_drifted(kernel: Kernel) -> None:
    kernel.put(named("cali1", 1, BARE))
    kernel.put(named("cali2", 2, HEALTHY))
    assert verdicts(run(kernel)) == {"cali1": Verdict.DRIFTED, "cali2": Verdict.CONSISTENT}


# --- settling -------------------------------------------------------------------------------------


def test_drift_that_heals_before_the_second_read_does_not_count(kernel: Kernel) -> None:
    kernel.put(MISMATCH)
    seen = run(kernel, AuditMode.REPAIR, lambda: kernel.put(HEALTHY))
    assert verdicts(seen) == {MISMATCH.interface: Verdict.CONSISTENT}
    assert seen.outcomes[0].found.findings == ()
    assert kernel.writes == 0


def test_drift_that_lasts_counts(kernel: Kernel) -> None:
    kernel.put(MISMATCH)
    assert verdicts(run(kernel)) == {MISMATCH.interface: Verdict.DRIFTED}


def test_without_a_settle_time_one_look_counts(kernel: Kernel) -> None:
    kernel.put(MISMATCH)
    seen = run(kernel, AuditMode.AUDIT, lambda: pytest.fail("it slept"), settle=0.0)
    assert verdicts(seen) == {MISMATCH.interface: Verdict.DRIFTED}


def test_a_consistent_node_is_read_once(kernel: Kernel) -> None:
    kernel.put(HEALTHY)
    seen = run(kernel, AuditMode.REPAIR, lambda: pytest.fail("it slept"))
    assert verdicts(seen) == {HEALTHY.interface: Verdict.CONSISTENT}


@pytest.mark.parametrize("mode", AuditMode)
@pytest.mark.parametrize("back", [False, True], ids=["gone", "back with another ifindex"])
def test_an_interface_deleted_between_two_reads_has_vanished(
    kernel: Kernel, back: bool, mode: AuditMode
) -> None:
    kernel.put(named("cali1", 1, MISMATCH))
    kernel.put(named("cali2", 2, HEALTHY))

    def go() -> None:
        kernel.endpoints.pop("cali1", None)
        if back:
            kernel.put(named("cali1", 9, MISMATCH))

    seen = run(kernel, mode, go)
    assert verdicts(seen) == {"cali1": Verdict.VANISHED, "cali2": Verdict.CONSISTENT}
    assert kernel.writes == 0


def test_an_interface_deleted_during_a_read_has_vanished(kernel: Kernel) -> None:
    """The dump of a gone interface is empty and no error: that is not a bare endpoint."""
    kernel.put(named("cali1", 1, HEALTHY))
    kernel.put(named("cali2", 2, HEALTHY))

    def before(number: int) -> None:
        if kernel.calls[number] == "read egress":
            kernel.endpoints.pop("cali1", None)

    kernel.before_call = before
    assert verdicts(run(kernel)) == {"cali1": Verdict.VANISHED, "cali2": Verdict.CONSISTENT}


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


# --- what is done ---------------------------------------------------------------------------------


def test_an_audit_writes_nothing(kernel: Kernel) -> None:
    kernel.put(MISMATCH)
    seen = run(kernel)
    assert (kernel.writes, seen.outcomes[0].done) == (0, ())
    assert seen.outcomes[0].found.outlook is Outlook.STUCK


def test_a_second_repair_writes_nothing(kernel: Kernel) -> None:
    kernel.put(MISMATCH)
    assert verdicts(run(kernel, AuditMode.REPAIR)) == {MISMATCH.interface: Verdict.REPAIRED}
    written = kernel.writes
    assert verdicts(run(kernel, AuditMode.REPAIR)) == {MISMATCH.interface: Verdict.CONSISTENT}
    assert (written, kernel.writes) == (2, 2)


def test_an_endpoint_that_drifts_after_its_repair_is_not_repaired(kernel: Kernel) -> None:
    kernel.put(MISMATCH)

    def felix_comes_late() -> None:
        if kernel.writes:
            kernel.put(MISMATCH)

    seen = run(kernel, AuditMode.REPAIR, felix_comes_late)
    assert verdicts(seen) == {MISMATCH.interface: Verdict.CONTENDED}
    assert seen.outcomes[0].notes


def test_a_refusal_reports_the_steps_done(kernel: Kernel) -> None:
    """The result includes the steps done at the refused endpoint."""
    needs_four = endpoint(at(1), (ours(1, 20, protocol=0x0800),))
    kernel.put(named("cali1", 1, needs_four))
    kernel.refuse = {3: errno.EPERM}
    seen = run(kernel, AuditMode.REPAIR)
    assert "EPERM" in str(seen.error)
    assert kernel.writes == 3
    assert len(seen.outcomes[0].done) == 2
    assert "EPERM" in seen.outcomes[0].error


def test_endpoints_after_a_refused_one_are_repaired(kernel: Kernel) -> None:
    for n in (1, 2, 3):
        kernel.put(named(f"cali{n}", n, MISMATCH))
    kernel.refuse = {3: errno.EOPNOTSUPP}
    seen = run(kernel, AuditMode.REPAIR)
    assert verdicts(seen) == {
        "cali1": Verdict.REPAIRED,
        "cali2": Verdict.DRIFTED,
        "cali3": Verdict.REPAIRED,
    }
    assert [o.before.interface for o in seen.outcomes if o.error] == ["cali2"]
    assert "cali2 egress: add egress 49152/1: ENOTSUP" in str(seen.error)
    assert "ingress_block" in str(seen.error)


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


def test_the_error_names_all_refused_endpoints(kernel: Kernel) -> None:
    for n in (1, 2, 3):
        kernel.put(named(f"cali{n}", n, MISMATCH))
    kernel.refuse = {1: errno.EPERM, 4: errno.EPERM}
    seen = run(kernel, AuditMode.REPAIR)
    assert "the repair of 2 endpoints failed: cali1, cali3" in str(seen.error)


def test_endpoints_after_a_refusal_are_still_reported(kernel: Kernel) -> None:
    for n in (1, 2, 3):
        kernel.put(named(f"cali{n}", n, MISMATCH))
    kernel.refuse = dict.fromkeys(range(3, 99), errno.EPERM)
    seen = run(kernel, AuditMode.REPAIR)
    assert verdicts(seen) == {
        "cali1": Verdict.REPAIRED,
        "cali2": Verdict.DRIFTED,
        "cali3": Verdict.DRIFTED,
    }


@settings(
    max_examples=300,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(endpoints())
def test_check_mode_predicts(state: Endpoint) -> None:
    """Over random endpoints: the same findings, plan, verdict and end as the real run's."""
    state = replace(state, dead_pins=())
    predicted, nothing = _undisturbed(state, AuditMode.PREDICT)
    did, writes = _undisturbed(state, AuditMode.REPAIR)
    assert predicted == did
    assert nothing == 0
    assert writes == len(did[0])


def _undisturbed(state: Endpoint, mode: AuditMode) -> tuple[tuple[Plan, object], int]:
    """The steps done, the rest of the result, and the number of writes."""
    kernel = Kernel()
    kernel.put(state)
    with pytest.MonkeyPatch.context() as patch:
        kernel.patch(patch)
        o = run(kernel, mode, policy=Policy(also_safe_for=()), managed=True).outcomes[0]
    assert o.after is not None
    assert o.left is not None
    end = [[a._replace(loaded_at=0) for a in hook] for hook in (o.after.ingress, o.after.egress)]
    return (o.done, (o.verdict, o.found, o.left.findings, o.notes, end)), kernel.writes


def test_a_missing_clsact_is_a_finding(kernel: Kernel) -> None:
    kernel.put(endpoint((), (), Qdisc.NONE))
    outcome = run(kernel, managed=True).outcomes[0]
    assert [f.code.value for f in outcome.found.findings] == ["missing_clsact"]


# --- what must not get lost -----------------------------------------------------------------------


def test_repairs_are_reported_if_the_last_read_fails(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.put(MISMATCH)
    links = kernel.links

    def restless() -> dict[str, int]:
        if kernel.writes:
            raise KernelError("list the links", errno.EINTR)
        return links()

    monkeypatch.setattr(kernel, "links", restless)
    seen = run(kernel, AuditMode.REPAIR)
    assert "EINTR" in str(seen.error)
    assert len(seen.outcomes[0].done) == 2


def test_steps_are_reported_if_an_endpoint_cannot_be_read_again(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A contended repair whose next reading fails; the endpoints after it are reported too."""
    kernel.put(named("cali1", 1, MISMATCH))
    kernel.put(named("cali2", 2, MISMATCH))
    links = kernel.links

    def felix_is_there() -> dict[str, int]:
        if kernel.writes:
            raise KernelError("list the links", errno.EINTR)
        return links()

    monkeypatch.setattr(kernel, "links", felix_is_there)
    kernel.refuse = {2: errno.ENOENT}
    seen = run(kernel, AuditMode.REPAIR)
    assert "holds an unknown state (list the links" in str(seen.error)
    assert verdicts(seen) == {"cali1": Verdict.DRIFTED, "cali2": Verdict.REPAIRED}
    assert [step.action.value for step in seen.outcomes[0].done][:1] == ["add"]


def test_a_repair_waits_until_the_endpoint_holds_still(kernel: Kernel) -> None:
    """Between Felix's attach and its deletes nothing is written."""
    kernel.put(MISMATCH)
    states = [endpoint(at(1), at(2, program=20) + at(3, program=21)), endpoint(at(1), at(3))]

    def felix_goes_on() -> None:
        assert kernel.writes == 0 or not states
        if states:
            kernel.put(states.pop(0))

    seen = run(kernel, AuditMode.REPAIR, felix_goes_on)
    assert verdicts(seen) == {MISMATCH.interface: Verdict.REPAIRED}
    assert seen.outcomes[0].before == endpoint(at(1), at(3))


def test_an_endpoint_that_keeps_changing_is_not_written(kernel: Kernel) -> None:
    kernel.put(MISMATCH)
    handles = iter(range(3, 99))

    def felix_goes_on() -> None:
        kernel.put(endpoint(at(1), at(next(handles), program=20)))

    seen = run(kernel, AuditMode.REPAIR, felix_goes_on)
    assert verdicts(seen) == {MISMATCH.interface: Verdict.CONTENDED}
    assert kernel.writes == 0
