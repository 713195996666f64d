# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a module's parameters to its result, on a kernel in memory."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint import audit, commands
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import (
    DataplaneError,
    KernelError,
    Refusal,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel import bpf, privilege
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.dataplane import (
    Dataplane,
    Mode,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.snapshot import Reader
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.build import (
    INTERFACE,
    at,
    endpoint,
    foreign,
    tcx,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.fake_kernel import Kernel

CONSISTENCY: dict[str, Any] = {
    "netns": None, "calico_version": "auto", "settle": 0.0, "retries": 3, "interfaces": ["cali*"],
    "exclude": [], "state": "consistent", "attach_type": "auto", "fail_on_drift": False,
    "allow_no_calico": False, "jump_targets": True, "verbose_endpoints": False,
    "max_endpoints": None,
}  # fmt: skip
ENDPOINT: dict[str, Any] = {
    "netns": None, "calico_version": "auto", "settle": 0.0, "retries": 3, "interface": INTERFACE,
    "namespace": None, "pod": None, "interface_prefix": "cali", "state": "consistent",
    "ingress": None, "egress": None, "attach_type": "auto",
}  # fmt: skip
MISMATCH = endpoint(at(1), at(2, program=20))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """Where the commands work, with every privilege."""
    made = Kernel()
    made.patch(monkeypatch)
    made.put(MISMATCH)

    @contextmanager
    def node(netns: str | None, jump_targets: bool = True) -> Iterator[tuple[Kernel, Reader]]:
        yield made, Reader(made, look_into_programs=False, tcx_pins="/nowhere")

    monkeypatch.setattr(commands, "_node", node)
    monkeypatch.setattr(privilege, "require_for_writing", lambda purpose: None)
    return made


# --- refusing early -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "params"),
    [
        (commands.qdisc_consistency, {**CONSISTENCY, "settle": -1.0}),
        (commands.qdisc_consistency, {**CONSISTENCY, "retries": 101}),
        (commands.bpf_endpoint, {**ENDPOINT, "settle": 601.0}),
        (
            commands.bpf_endpoint,
            {**ENDPOINT, "state": "attached", "egress": {"priority": 0, "handle": None}},
        ),
        (commands.bpf_tc_program, {"priority": 49152, "handle": 0}),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_read(
    kernel: Kernel, command: Any, params: dict[str, Any]
) -> None:
    with pytest.raises(Refusal, match="nothing was changed"):
        command(params, False, False)
    assert kernel.calls == []


@pytest.mark.parametrize("state", ["consistent", "attached", "absent"])
def test_an_unknown_release_is_refused_whatever_the_state(kernel: Kernel, state: str) -> None:
    with pytest.raises(Refusal, match=r"calico_version is 'v9\.9\.9'"):
        commands.bpf_endpoint(
            {**ENDPOINT, "state": state, "calico_version": "v9.9.9"}, False, False
        )
    assert kernel.calls == []


def test_only_writing_needs_privilege(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(purpose: str) -> None:
        raise Refusal(f"{purpose} needs root")

    monkeypatch.setattr(privilege, "require_for_writing", refuse)
    commands.qdisc_consistency({**CONSISTENCY, "state": "audited"}, False, False)
    calls = len(kernel.calls)
    for command, params in (
        (commands.qdisc_consistency, CONSISTENCY),
        (commands.bpf_endpoint, ENDPOINT),
    ):
        with pytest.raises(Refusal, match="state=consistent needs root"):
            command(params, False, False)
    assert len(kernel.calls) == calls


# --- qdisc_consistency ----------------------------------------------------------------------------


def test_check_mode_the_run_and_the_second_run(kernel: Kernel) -> None:
    predicted = commands.qdisc_consistency(CONSISTENCY, True, True).values
    assert kernel.writes == 0
    did = commands.qdisc_consistency(CONSISTENCY, False, True).values
    assert kernel.writes == 2
    again = commands.qdisc_consistency(CONSISTENCY, False, True).values
    assert kernel.writes == 2
    assert [r["changed"] for r in (predicted, did, again)] == [True, True, False]
    for r in (predicted, did):
        assert r["elapsed_ms"] >= 0
    assert {**predicted, "elapsed_ms": 0} == {**did, "elapsed_ms": 0}
    assert again["endpoints"] == []
    assert "diff" not in again


@pytest.mark.parametrize("check_mode", [False, True])
def test_an_audit_changes_nothing(kernel: Kernel, check_mode: bool) -> None:
    params = {**CONSISTENCY, "state": "audited"}
    result = commands.qdisc_consistency(params, check_mode, True).values
    assert not result["changed"]
    assert result["endpoints"][0]["verdict"] == "drifted"
    assert result["endpoints"][0]["plan"]
    assert kernel.writes == 0


def test_drift_that_remains_fails_only_if_asked_to(kernel: Kernel) -> None:
    audit = {**CONSISTENCY, "state": "audited"}
    assert commands.qdisc_consistency(audit, False, False).failure is None
    failure = commands.qdisc_consistency({**audit, "fail_on_drift": True}, False, False).failure
    assert failure is not None
    assert f"1 of 1 endpoints are not consistent: {INTERFACE}: handle_mismatch" in failure
    repaired = commands.qdisc_consistency({**CONSISTENCY, "fail_on_drift": True}, False, False)
    assert repaired.failure is None


@pytest.mark.parametrize(
    ("mode", "allow", "fails"),
    [
        (Mode.ABSENT, False, True),
        (Mode.ABSENT, True, False),
        (Mode.UNKNOWN, False, True),
        (Mode.UNKNOWN, True, True),
    ],
)
def test_what_was_not_judged_fails(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, mode: Mode, allow: bool, fails: bool
) -> None:
    monkeypatch.setattr(audit, "read_dataplane", lambda *_: Dataplane(mode, "no trace"))
    kernel.put(endpoint((), ()))
    params = {**CONSISTENCY, "state": "audited", "fail_on_drift": True, "allow_no_calico": allow}
    result = commands.qdisc_consistency(params, False, False)
    assert (result.failure is not None) is fails
    assert "no endpoint was judged: no trace" in result.warnings
    assert result.values["dataplane"] == {"mode": mode.value, "why": "no trace"}
    assert result.values["not_judged_error"] == result.failure
    if fails:
        assert "the endpoints were not all judged: no trace" in str(result.failure)
        assert ("allow_no_calico" in str(result.failure)) is (mode is Mode.ABSENT)


def test_what_could_not_be_read_fails(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.put(endpoint(at(1), at(1, program=20)))

    def denied(ifindex: int, hook: object) -> None:
        raise KernelError("query TCX", errno.EPERM)

    monkeypatch.setattr(bpf, "tcx_programs", denied)
    params = {**CONSISTENCY, "state": "audited", "fail_on_drift": True, "allow_no_calico": True}
    result = commands.qdisc_consistency(params, False, False)
    failure = result.failure
    assert result.values["not_judged_error"] == failure
    assert "the endpoints were not all judged: could not read tcx (query TCX: EPERM" in str(failure)


def test_nothing_is_left_to_judge_on_a_healthy_node(kernel: Kernel) -> None:
    kernel.put(endpoint(at(1), at(1, program=20)))
    assert commands.qdisc_consistency(CONSISTENCY, False, False).values["not_judged_error"] is None


@pytest.mark.parametrize(
    ("options", "listed"),
    [
        ({}, 20),
        ({"max_endpoints": 3}, 3),
        ({"max_endpoints": 0}, 1_000),
        ({"verbose_endpoints": True}, 1_001),
        ({"verbose_endpoints": True, "max_endpoints": 7}, 7),
    ],
)
def test_a_result_of_many_endpoints_has_a_readable_size(
    kernel: Kernel, options: dict[str, Any], listed: int
) -> None:
    """The counts are those of all endpoints."""
    kernel.put(replace(MISMATCH, egress=at(1, program=20)))
    for n in range(1_000):
        kernel.put(replace(MISMATCH, interface=f"calib{n}", ifindex=20 + n))
    params = {**CONSISTENCY, "state": "audited", "fail_on_drift": True, **options}
    answer = commands.qdisc_consistency(params, False, False)
    summary, shown = answer.values["summary"], answer.values["endpoints"]
    wanted = 1_001 if options.get("verbose_endpoints") else 1_000
    assert (len(shown), summary["not_listed"]) == (listed, wanted - listed)
    assert sum(e["verdict"] == "drifted" for e in shown) == min(listed, 1_000)
    assert summary["verdicts"]["drifted"] == summary["left_by_outlook"]["stuck"] == 1_000
    assert "1000 of 1001 endpoints" in str(answer.failure)
    if not options:
        assert len(json.dumps(answer.values)) < 60_000


def test_failed_repairs_come_first_and_are_counted(kernel: Kernel) -> None:
    for n in range(50):
        kernel.put(replace(MISMATCH, interface=f"calib{n:02}", ifindex=20 + n))
    kernel.refuse = dict.fromkeys(range(20, 1_000), errno.EPERM)
    result = commands.qdisc_consistency(CONSISTENCY, False, False).values
    summary = result["summary"]
    assert summary["failed_total"] > len(summary["failed"]) == 20
    assert all("error" in e for e in result["endpoints"])


def test_many_drifted_endpoints_are_abbreviated(kernel: Kernel) -> None:
    for n in range(7):
        kernel.put(replace(MISMATCH, interface=f"calib{n}", ifindex=20 + n))
    params = {**CONSISTENCY, "state": "audited", "fail_on_drift": True}
    failure = commands.qdisc_consistency(params, False, False).failure
    assert failure is not None
    assert failure.startswith("8 of 8")
    assert "and 3 more" in failure


def test_a_refusal_by_the_kernel_fails_with_what_was_done(kernel: Kernel) -> None:
    kernel.refuse = {2: errno.EPERM}
    answer = commands.qdisc_consistency(CONSISTENCY, False, True)
    assert answer.failure is not None
    assert "EPERM" in answer.failure
    assert answer.values["changed"], "the kernel was written to"
    assert answer.values["summary"]["failed"] == [INTERFACE]
    assert answer.values["endpoints"][0]["error"] == answer.failure


def test_unread_objects_are_a_warning() -> None:
    warnings = commands._warnings(
        {"tcx": "query TCX: EPERM (Operation not permitted); run as root"}
    )
    assert "could not read tcx (query TCX: EPERM" in warnings[0]
    assert "root" in warnings[0]


# --- bpf_endpoint ---------------------------------------------------------------------------------


def test_one_endpoint_is_made_consistent(kernel: Kernel) -> None:
    result = commands.bpf_endpoint(ENDPOINT, False, True).values
    assert (result["changed"], result["verdict"]) == (True, "repaired")
    assert [result[when]["egress"][0]["handle"] for when in ("before", "after")] == [2, 1]
    assert result["plan"] == result["done"]
    again = commands.bpf_endpoint(ENDPOINT, False, True).values
    assert (again["changed"], again["verdict"]) == (False, "consistent")
    assert again["before"] == again["after"]


def test_an_unknown_interface_is_refused(kernel: Kernel) -> None:
    with pytest.raises(Refusal, match="there is no interface cali1"):
        commands.bpf_endpoint({**ENDPOINT, "interface": "cali1"}, False, False)


def test_an_interface_that_goes_before_the_survey_has_vanished(kernel: Kernel) -> None:
    """It was there when the module opened it."""

    def before(number: int) -> None:
        if kernel.calls[number] == "links" and number > 0:
            kernel.endpoints.clear()

    kernel.before_call = before
    result = commands.bpf_endpoint(ENDPOINT, False, False).values
    assert (result["verdict"], result["after"]) == ("vanished", None)


@pytest.mark.parametrize("check_mode", [True, False])
def test_absent_takes_all_of_calicos_and_nothing_else(kernel: Kernel, check_mode: bool) -> None:
    kernel.put(endpoint((*at(1), foreign(50000)), at(1, 2, program=20)))
    params = {**ENDPOINT, "state": "absent"}
    result = commands.bpf_endpoint(params, check_mode, True).values
    assert result["changed"]
    assert [a["priority"] for a in result["after"]["ingress"]] == [50000]
    assert result["after"]["egress"] == []
    assert kernel.writes == (0 if check_mode else 3)
    assert result["diff"]["after"].count("\n") == 1
    if not check_mode:
        again = commands.bpf_endpoint(params, False, True).values
        assert not again["changed"]
        assert kernel.writes == 3


def test_a_refusal_reports_the_changes_before_it(kernel: Kernel) -> None:
    kernel.put(endpoint(at(1), at(1, program=20)))
    kernel.refuse = {2: errno.EPERM}
    with pytest.raises(DataplaneError) as failed:
        commands.bpf_endpoint({**ENDPOINT, "state": "absent"}, False, False)
    text = str(failed.value)
    assert f"{INTERFACE} egress: " in text
    assert "EPERM" in text
    assert f"Changed before: {INTERFACE} ingress: cali_tc_preambl:[10]" in text
    assert failed.value.facts["changed"]
    assert failed.value.facts["after"]["ingress"] == []


def test_a_refused_first_change_changed_nothing(kernel: Kernel) -> None:
    kernel.refuse = {1: errno.EPERM}
    with pytest.raises(DataplaneError, match="This hook is unchanged") as failed:
        commands.bpf_endpoint({**ENDPOINT, "state": "absent"}, False, False)
    assert not failed.value.facts["changed"]


def test_a_read_that_fails_before_any_write_says_so(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Any:
        raise KernelError("list the links", errno.ENOBUFS)

    monkeypatch.setattr(kernel, "links", fail)
    with pytest.raises(DataplaneError, match=r"ENOBUFS.*Nothing was changed.*socket memory"):
        commands.qdisc_consistency(CONSISTENCY, False, False)


def test_a_read_that_fails_after_the_last_write_is_a_change(kernel: Kernel) -> None:
    def before(number: int) -> None:
        if kernel.writes and kernel.calls[number] == "links":
            raise KernelError("list the links", errno.ENOBUFS)

    kernel.before_call = before
    with pytest.raises(DataplaneError, match=r"changed as asked.*ENOBUFS") as failed:
        commands.bpf_endpoint({**ENDPOINT, "state": "absent"}, False, False)
    assert failed.value.facts["changed"]


def test_tcx_and_bare_endpoints_are_judged_even_alone(kernel: Kernel) -> None:
    kernel.put(endpoint((tcx(50),), ()))
    result = commands.bpf_endpoint(ENDPOINT, False, False).values
    assert result["verdict"] == "drifted"
    kernel.put(endpoint((), ()))
    result = commands.bpf_endpoint(ENDPOINT, False, False).values
    assert [f["code"] for f in result["findings"]] == ["missing_program"] * 2
