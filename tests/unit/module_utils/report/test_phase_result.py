# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a phase returned: the known shapes are understood, and nothing else is lost."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.phase_result import (
    CheckRecord,
    DrainRecord,
    PhaseResult,
    one_line,
    outline,
    phase_result,
    version_of,
)
from ansible_collections.dataplane.calico_bpf.tests.support.report.rollout import (
    NEW,
    OLD,
    endpoint,
    parity,
    result_of,
)


def test_endpoints() -> None:
    found = phase_result(parity(endpoint("cali1", "repaired"), endpoint("cali2"))).parity
    assert found
    assert (found.looked_at, found.found, found.repaired, found.left) == (20, 2, 1, 1)
    fixed, left = found.endpoints
    assert (fixed.interface, fixed.verdict, fixed.outlook) == ("cali1", "repaired", "ok")
    assert fixed.plan == (
        "add egress cali_tc_preambl:[4180] id 4180 pref 49152 handle 1",
        "delete egress cali_tc_preambl:[4180] id 4180 pref 49152 handle 2",
    )
    assert [(f.code, f.hook) for f in fixed.findings] == [("handle_mismatch", "")]
    assert (fixed.remaining, left.remaining) == ((), left.findings)
    assert fixed.other == {}


def test_counts_that_a_template_made_text_of() -> None:
    found = phase_result({**parity(endpoint("cali1")), "found": "1", "left": "1"}).parity
    assert found
    assert (found.found, found.left) == (1, 1)


def test_endpoints_that_a_phase_repaired_on_its_way() -> None:
    nested = {"parity": {**parity(endpoint("cali1")), "odd": 7}, "replaced": True}
    result = phase_result(nested)
    assert result.parity
    assert result.parity.found == 1
    assert result.other == {"parity": {"odd": 7}, "replaced": True}


def test_a_drain() -> None:
    assert phase_result(result_of("drain")) == PhaseResult(
        drain=DrainRecord(
            evicted=("shop/web-1", "shop/web-2"),
            skipped=("kube-system/calico-node-x: of a DaemonSet",),
            remaining=(),
            waited_seconds=12.5,
            cordoned=True,
        )
    )


def test_checks() -> None:
    assert phase_result(result_of("verify")).checks == (
        CheckRecord("readiness", "good", "ready", "ready"),
        CheckRecord("dirty endpoints", "good", "0", "0"),
    )


def test_pods_tell_the_versions_and_are_shown_too() -> None:
    result = phase_result(result_of("node_upgrade"))
    assert (result.version_before, result.version_after) == (OLD, NEW)
    assert {"former", "pod"} <= result.other.keys()


@pytest.mark.parametrize(
    ("pod", "version"),
    [
        ({"version": "v1", "images": {"calico-node": "x:v2"}}, "v1"),
        ({"images": {"init": "x:v0", "calico-node": "host:5000/calico/node:v2"}}, "v2"),
        ({"images": ["host:5000/calico/node:v2"]}, "v2"),
        ({"images": {"calico-node": "x:v2@sha256:ab"}}, "v2"),
        ({"images": {"calico-node": "host:5000/x@sha256:ab"}}, "host:5000/x@sha256:ab"),
        ({"images": {}}, ""),
        ({"name": "x"}, ""),
        (None, ""),
        ("v1", ""),
    ],
)
def test_versions(pod: Any, version: str) -> None:
    assert version_of(pod) == version


@pytest.mark.parametrize(
    "result",
    [
        {"endpoints": "three", "found": 1},
        {"endpoints": [{"interface": "cali1"}]},
        {"evicted": 3},
        {"checks": [{"name": "n"}]},
        {"checks": [{"name": "n", "result": "perhaps"}]},
        {"checks": [{"name": "n", "result": "good", "more": 1}]},
        {"checks": "none"},
        {"lost": "some", "sent": True, "uncordoned": "maybe"},
        {"lost": "nan", "sent": "inf"},
        {"parity": "even", "pod": "x"},
        {"parity": {"odd": 1}},
        {"anything": {"at": ["all", {"deep": 0}]}},
    ],
)
def test_unknown_values_are_kept(result: dict[str, Any]) -> None:
    assert phase_result(result) == PhaseResult(other=result)


def test_half_of_a_shape_is_understood_and_the_other_kept() -> None:
    result = phase_result({"found": "many", "left": 2, "endpoints": ["cali1"], "summary": "s"})
    assert result.parity
    assert (result.parity.left, result.parity.endpoints) == (2, ())
    assert result.other == {"found": "many", "endpoints": ["cali1"], "summary": "s"}
    odd = phase_result(parity({**endpoint("cali1"), "findings": ["odd"], "new": 1})).parity
    assert odd
    assert odd.endpoints[0].other == {"findings": ["odd"], "new": 1}


def test_nothing_given_is_changed() -> None:
    given = result_of("drain")
    phase_result(given)
    assert given == result_of("drain")


def test_a_step_shows_unknown_values() -> None:
    step = {"action": "unpin", "hook": "egress", "path": "/pin", "new": [1]}
    assert one_line(step) == "unpin egress /pin new [1]"


def test_an_outline_reads_well() -> None:
    value = {"a": 1, "b": ["x", {"c": "1\n2"}], "d": {}, "e": None, "f": True}
    assert outline(value).splitlines() == [
        "a: 1",
        "b:",
        "  - x",
        "  -",
        "    c:",
        "      1",
        "      2",
        "d: {}",
        "e: null",
        "f: true",
    ]
