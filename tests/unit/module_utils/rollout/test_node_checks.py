# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each check fails for its own reason, and for no other."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.filter.node_checks import node_checks
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.node_checks import (
    Bounds,
    Check,
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
    "log": {"files": ["0.log"], "since": "2026-11-23T22:00:00Z", "dirty": []},
    "churn": {"seconds": 12.0, "changes": 0, "per_minute": 0.0, "interfaces": []}
    | {"overrun": False},
}
PARITY: dict[str, Any] = {
    "endpoints": [],
    "summary": {"endpoints": 4, "verdicts": {"consistent": 4, "drifted": 0, "contended": 0}},
}
DIRTY = {"interface": "cali1", "workload": "a/b", "count": 3, "message": "leaving it dirty"}
DIRTY |= {"first_at": "2026-11-23T22:00:10Z", "last_at": "2026-11-23T22:00:40Z"}


def failed(felix: dict[str, Any], parity: dict[str, Any] | None = None, **how: Any) -> list[Check]:
    checks = verify(felix, parity or PARITY, how.get("bounds", BOUNDS), how.get("probes", ()))
    return [check for check in checks if not check.ok]


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
    assert not failed(FELIX)
    assert len(node_checks(FELIX, PARITY, {"cpu": 2, "tc": 4, "churn": 0})) == 9


@pytest.mark.parametrize(
    ("changes", "name", "seen"),
    [
        ({"health__ready": False, "health__status": 503}, "readiness", "HTTP 503"),
        ({"log": None}, "log", "no log of calico-node was found"),
        ({"log__dirty": [DIRTY]}, "log", "cali1 3 times: leaving it dirty"),
        ({"metrics__dirty": 2}, "dirty metric", "2 dirty endpoints"),
        ({"felix": []}, "Felix", "processes: none"),
        ({"tc__most": 40}, "tc processes", "at most 40"),
        ({"churn__per_minute": 48.0}, "churn", "48 changes a minute"),
        ({"churn__overrun": True}, "churn", "0 changes a minute"),
        ({"felix": [{"pid": 10, "age_seconds": 1.0, "cpu": 30.0}]}, "CPU of Felix", "30.00 cores"),
    ],
)
def test_each_problem_is_reported(changes: dict[str, Any], name: str, seen: str) -> None:
    only = failed(with_changes(**changes))
    assert [check.name for check in only] == [name]
    assert seen in only[0].seen


def test_two_felixes() -> None:
    two = [{"pid": pid, "age_seconds": 1.0, "cpu": 0.1} for pid in (10, 11)]
    assert [check.seen for check in failed(with_changes(felix=two))] == ["processes: 10, 11"]


def test_a_felix_that_does_not_respond() -> None:
    felix = with_changes(health__reachable=False, health__error="connection refused")
    assert "connection refused" in failed(felix)[0].seen


def test_a_reporter_that_is_not_ready_or_missing() -> None:
    dirty = {**REPORTERS[0], "ready": False, "detail": "Failed to configure some interfaces."}
    names = [check.name for check in failed(with_changes(health__reporters=[dirty]))]
    assert names == ["BPFEndpointManager"]
    assert "no such reporter" in failed(with_changes(health__reporters=REPORTERS[1:]))[0].seen


def test_lines_from_before_a_repair_do_not_count() -> None:
    felix = with_changes(log__dirty=[DIRTY])
    assert not failed(felix, bounds=Bounds(2, 4, 0, "2026-11-23T22:00:41Z"))
    assert failed(felix, bounds=Bounds(2, 4, 0, "2026-11-23T22:00:39Z"))


def test_disabled_metrics_are_not_an_error() -> None:
    assert not failed(with_changes(metrics=None, metrics_error="connection refused"))


@pytest.mark.parametrize("verdict", ["drifted", "contended"])
def test_drift(verdict: str) -> None:
    parity = copy.deepcopy(PARITY)
    parity["summary"]["verdicts"][verdict] = 1
    parity["endpoints"] = [{"interface": "cali1", "verdict": verdict}]
    assert [check.seen for check in failed(FELIX, parity)] == ["1 of 4 drifted: cali1"]


def test_without_a_window_the_load_is_not_checked() -> None:
    names = {check.name for check in verify(with_changes(churn=None), PARITY, BOUNDS)}
    assert names.isdisjoint({"churn", "CPU of Felix", "tc processes"})


def test_probes() -> None:
    probes = [
        {"target": "web:80", "ok": True, "elapsed_ms": 2.0, "error": None},
        {"target": "db:5432", "ok": False, "elapsed_ms": 5000.0, "error": "timed out"},
    ]
    assert [(c.name, c.seen) for c in failed(FELIX, probes=probes)] == [
        ("probe db:5432", "timed out")
    ]
