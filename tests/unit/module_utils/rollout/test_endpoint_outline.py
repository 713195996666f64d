# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A text about any number of endpoints stays readable."""

from __future__ import annotations

from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.filter.endpoint_outline import FilterModule
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.endpoint_outline import (
    outline,
)


def drifted(n: int, code: str = "handle_mismatch") -> dict[str, Any]:
    finding = {"code": code, "message": f"{code}: " + "what it means " * 40}
    return {
        "interface": f"cali{n:04}",
        "verdict": "drifted",
        "outlook": "stuck",
        "findings": [finding],
        "remaining": [finding],
    }


def test_each_endpoint_is_named_with_its_findings() -> None:
    assert outline([drifted(1), drifted(2, "dead_pin")]) == (
        "cali0001 is drifted, outlook stuck: handle_mismatch; "
        "cali0002 is drifted, outlook stuck: dead_pin"
    )
    assert outline([]) == ""


def test_a_repaired_endpoint_shows_what_was_repaired() -> None:
    repaired = {**drifted(1), "verdict": "repaired", "outlook": "ok", "remaining": []}
    assert outline([repaired]) == "cali0001 is repaired, outlook ok: handle_mismatch"


def test_thousands_of_endpoints_are_counted() -> None:
    many = [drifted(n, "dead_pin" if n % 2 else "handle_mismatch") for n in range(5000)]
    text = outline(many)
    assert len(text) < 1500
    assert text.endswith("and 4980 more (dead_pin: 2490, handle_mismatch: 2490)")
    assert len(outline(many, messages=True)) < 8000


def test_the_filter() -> None:
    assert FilterModule().filters() == {"endpoint_outline": outline}


def test_endpoints_that_the_result_does_not_list_are_counted() -> None:
    summary = {"not_listed": 4_980, "findings": {"dead_pin": 2, "handle_mismatch": 5_000}}
    text = outline([], summary=summary)
    assert text == (
        "and 4980 more that are not listed (findings of all: dead_pin: 2, handle_mismatch: 5000)"
    )
    assert outline([], summary={**summary, "not_listed": 0}) == ""
