# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each check is good, bad or not judged, for its own reason and for no other."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.filter.node_checks import node_checks
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.node_checks import (
    Bounds,
    Check,
    Result,
    verify,
)

BOUNDS = Bounds(cpu=2.0, tc=4, churn=0.0)
REPORTERS = [
    {"component": "BPFEndpointManager", "ready": True, "live": True, "detail": ""},
    {"component": "FelixStartup", "ready": True, "live": True, "detail": ""},
]
FELIX: dict[str, Any] = {
    "felix": [{"pid": 10, "age_seconds": 30.0, "cpu": 0.2}],
    "tc": {"now": 0, "most": 1, "oldest_seconds": 0.0, "pids": []},
    "health": {"reachable": True, "ready": True, "status": 200, "reporters": REPORTERS}
    | {"error": None},
    "metrics": {"endpoints": 4, "dirty": 0, "happy": 4},
    "metrics_error": None,
    "log": {
        "files": ["0.log"],
        "since": "2026-11-23T22:00:00Z",
        "version": None,
        "dirty": [],
        "load_failures": [],
    },
    "churn": {"seconds": 12.0, "changes": 0, "per_minute": 0.0, "interfaces": []}
    | {"overrun": False},
}
PARITY: dict[str, Any] = {
    "endpoints": [],
    "summary": {
        "endpoints": 4,
        "verdicts": {"consistent": 4, "drifted": 0, "contended": 0}
        | {"repaired": 0, "vanished": 0, "unmanaged": 0},
    },
    "not_judged": [],
}
PODS = ("demo/web-1", "demo/web-2")
DIRTY = {"interface": "cali1", "workload": "a/b", "count": 3, "message": "leaving it dirty"}
DIRTY |= {"load_failed": False}
DIRTY |= {"first_at": "2026-11-23T22:00:10Z", "last_at": "2026-11-23T22:00:40Z"}


FAILURE = {"message": "libbpf: failed to load object", "count": 3, "last_at": None}


def checks_of(
    felix: dict[str, Any], parity: dict[str, Any] | None = None, **how: Any
) -> tuple[Check, ...]:
    how = {"bounds": BOUNDS, "pods": PODS, **how}
    return verify(felix, parity or PARITY, **how)


def failed(felix: dict[str, Any], parity: dict[str, Any] | None = None, **how: Any) -> list[Check]:
    return [check for check in checks_of(felix, parity, **how) if not check.passes]


def with_changes(**changes: Any) -> dict[str, Any]:
    """FELIX with values put at dotted paths, written with two underscores."""
    felix = copy.deepcopy(FELIX)
    for path, value in changes.items():
        *folders, last = path.split("__")
        held = felix
        for folder in folders:
            held = held[folder]
        held[last] = value
    return felix


def test_a_healthy_node() -> None:
    assert {check.result for check in checks_of(FELIX)} == {Result.GOOD}
    shown = node_checks(FELIX, PARITY, {"cpu": 2, "tc": 4, "churn": 0}, (), PODS)
    assert len(shown) == 11
    assert {(check["result"], check["passes"]) for check in shown} == {("good", True)}


@pytest.mark.parametrize(
    ("changes", "name", "seen"),
    [
        ({"health__ready": False, "health__status": 503}, "readiness", "HTTP 503"),
        ({"log__dirty": [DIRTY]}, "log", "cali1 3 times: leaving it dirty"),
        ({"metrics__dirty": 2}, "dirty metric", "2 dirty endpoints"),
        ({"tc__most": 40}, "tc processes", "at most 40"),
        ({"churn__per_minute": 48.0}, "churn", "48 changes a minute"),
        ({"felix": [{"pid": 10, "age_seconds": 1.0, "cpu": 30.0}]}, "CPU of Felix", "30.00 cores"),
    ],
)
def test_a_fault_is_bad_and_says_what_was_seen(
    changes: dict[str, Any], name: str, seen: str
) -> None:
    only = failed(with_changes(**changes))
    assert [(check.name, check.result) for check in only] == [(name, Result.BAD)]
    assert seen in only[0].seen


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"health__reachable": False, "health__error": "refused"}, ["BPFEndpointManager"]),
        ({"health__reporters": REPORTERS[1:]}, ["BPFEndpointManager"]),
        ({"log": None}, ["log", "program loads"]),
        ({"log__load_failures": [FAILURE]}, ["program loads"]),
        ({"metrics": None, "metrics_error": "connection refused"}, ["dirty metric"]),
        ({"churn": None}, ["tc processes", "CPU of Felix", "churn"]),
        ({"churn__overrun": True}, ["churn"]),
        ({"felix": [{"pid": 10, "age_seconds": 1.0, "cpu": None}]}, ["CPU of Felix"]),
        ({"felix": []}, ["CPU of Felix"]),
    ],
)
def test_missing_evidence_is_not_judged_and_never_good(
    changes: dict[str, Any], names: list[str]
) -> None:
    checks = checks_of(with_changes(**changes))
    assert [c.name for c in checks if c.result is Result.NOT_JUDGED] == names
    # Metrics are off by default, and the log and readiness show the same.
    assert [c.name for c in checks if c.name in names and c.passes] == [
        name for name in names if name == "dirty metric"
    ]


def test_missing_evidence_of_parity_and_endpoints() -> None:
    unread = {**PARITY, "not_judged": ["could not read tcx (EPERM)"]}
    (parity,) = failed(FELIX, unread)
    assert (parity.name, parity.result) == ("parity", Result.NOT_JUDGED)
    assert parity.seen == "could not read tcx (EPERM)"
    unknown = [c for c in checks_of(FELIX, pods=None) if c.result is Result.NOT_JUDGED]
    assert [(c.name, c.required) for c in unknown] == [("endpoints", False)]


def test_a_pod_without_an_endpoint_is_bad() -> None:
    (only,) = failed(FELIX, pods=[f"demo/web-{n}" for n in range(5)])
    assert (only.name, only.result) == ("endpoints", Result.BAD)
    assert only.seen.startswith("4 endpoints, 5 pods: demo/web-0, ")


def test_long_lines_and_many_endpoints_are_cut_with_a_mark() -> None:
    long = {**FAILURE, "message": "libbpf: failed to load " + "x" * 100_000}
    (doubt,) = failed(with_changes(log__load_failures=[long]))
    assert "more characters]" in doubt.seen
    late = [{**DIRTY, "interface": f"cali{n}", "message": "m" * 5_000} for n in range(5_000)]
    (bad,) = failed(with_changes(log__dirty=late))
    assert bad.seen.endswith("and 4980 more interfaces")
    assert len(bad.seen) < 10_000


def test_load_failures_may_be_accepted() -> None:
    felix = with_changes(log__load_failures=[FAILURE])
    assert not failed(felix, bounds=Bounds(2, 4, 0, load_failures=3))
    (doubt,) = failed(felix, bounds=Bounds(2, 4, 0, load_failures=2))
    assert doubt.seen == "libbpf: failed to load object (3 times)"


def test_a_program_that_failed_to_load_is_not_called_a_mismatch() -> None:
    (only,) = failed(with_changes(log__dirty=[{**DIRTY, "load_failed": True}]))
    assert "the programs of one direction failed to load" in only.seen


def test_an_endpoint_to_which_felix_applied_no_policy_is_bad() -> None:
    (only,) = failed(with_changes(metrics__happy=0))
    assert (only.result, only.seen) == (Result.BAD, "0 dirty endpoints, 0 happy")
    few = [c for c in checks_of(with_changes(metrics__happy=3)) if c.result is not Result.GOOD]
    assert [(c.name, c.result, c.passes) for c in few] == [
        ("dirty metric", Result.NOT_JUDGED, True)
    ]


def test_unmanaged_endpoints_do_not_count() -> None:
    parity = copy.deepcopy(PARITY)
    parity["summary"]["verdicts"]["unmanaged"] = 4
    assert [check.name for check in failed(FELIX, parity)] == ["endpoints"]


def test_two_felixes() -> None:
    two = [{"pid": pid, "age_seconds": 1.0, "cpu": 0.1} for pid in (10, 11)]
    assert [check.seen for check in failed(with_changes(felix=two))] == ["processes: 10, 11"]


def test_a_felix_that_does_not_respond() -> None:
    felix = with_changes(health__reachable=False, health__error="connection refused")
    assert "connection refused" in failed(felix)[0].seen


def test_a_reporter_that_is_not_ready_or_missing() -> None:
    dirty = {**REPORTERS[0], "ready": False, "detail": "Failed to configure some interfaces."}
    (only,) = failed(with_changes(health__reporters=[dirty]))
    assert (only.name, only.result) == ("BPFEndpointManager", Result.BAD)
    assert "no such reporter" in failed(with_changes(health__reporters=REPORTERS[1:]))[0].seen


def test_lines_from_before_a_repair_do_not_count() -> None:
    felix = with_changes(log__dirty=[DIRTY])
    assert not failed(felix, bounds=Bounds(2, 4, 0, "2026-11-23T22:00:41Z"))
    assert failed(felix, bounds=Bounds(2, 4, 0, "2026-11-23T22:00:39Z"))


@pytest.mark.parametrize("verdict", ["drifted", "contended"])
def test_drift(verdict: str) -> None:
    parity = copy.deepcopy(PARITY)
    parity["summary"]["verdicts"][verdict] = 1
    found = [{"code": "handle_mismatch"}, {"code": "dead_pin"}]
    endpoint = {"interface": "cali1", "verdict": verdict, "outlook": "stuck", "remaining": found}
    parity["endpoints"] = [endpoint]
    assert [check.seen for check in failed(FELIX, parity)] == [
        f"1 of 4 drifted: cali1 is {verdict}, outlook stuck: handle_mismatch, dead_pin"
    ]


def test_probes() -> None:
    probes = [
        {"target": "web:80", "ok": True, "elapsed_ms": 2.0, "error": None},
        {"target": "db:5432", "ok": False, "elapsed_ms": 5000.0, "error": "timed out"},
    ]
    assert [(c.name, c.seen) for c in failed(FELIX, probes=probes)] == [
        ("probe db:5432", "timed out")
    ]


@pytest.mark.parametrize(
    ("since", "version", "result"),
    [
        ("2026-11-23T22:00:00Z", None, Result.GOOD),
        ("2026-11-23T22:00:01Z", None, Result.NOT_JUDGED),
        ("2026-11-23T22:00:01Z", "v3.29.5", Result.GOOD),
        (None, None, Result.NOT_JUDGED),
    ],
)
def test_a_log_that_begins_too_late_is_not_judged(
    since: str | None, version: str | None, result: Result
) -> None:
    """Unless it begins with the start of Felix."""
    felix = with_changes(log__since=since, log__version=version)
    checks = checks_of(felix, bounds=replace(BOUNDS, dirty_since="2026-11-23T22:00:00Z"))
    assert [check.result for check in checks if check.name == "log"] == [result]
