# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Audits of many endpoints: drift, unmanaged endpoints, and the prediction of check mode."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.audit import (
    AuditMode,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import KernelError
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.dataplane import (
    Mode,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    AttachType,
    Endpoint,
    Outlook,
    Plan,
    Policy,
    Qdisc,
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
    foreign,
    ours,
    tcx,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.fake_kernel import (
    Kernel,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.strategies import endpoints

BARE = endpoint((), ())


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    made.patch(monkeypatch)
    return made


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
