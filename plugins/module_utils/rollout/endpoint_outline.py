# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the endpoints of a node, in a text of a readable size. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import beginning_of

#: How many endpoints are named before the others are only counted.
NAMED = 20
_WORDS = 300

Seen = Mapping[str, Any]


def outline(endpoints: Sequence[Seen], messages: bool = False, summary: Seen | None = None) -> str:
    """The first endpoints with what is wrong with each, then counts by code for the others.

    ``endpoints`` are those of qdisc_consistency. With ``messages`` each finding is explained, which
    takes a few lines of a terminal for each endpoint. With the ``summary`` of the same result, the
    endpoints that it does not list are counted too.
    """
    named = [_line(endpoint, messages) for endpoint in endpoints[:NAMED]]
    others = endpoints[NAMED:]
    if others:
        named.append(f"and {len(others)} more ({_counts(others)})")
    if summary and summary.get("not_listed"):
        counts = ", ".join(f"{code}: {n}" for code, n in summary["findings"].items())
        named.append(
            f"and {summary['not_listed']} more that are not listed (findings of all: {counts})"
        )
    return "; ".join(named)


def _line(endpoint: Seen, messages: bool) -> str:
    key = "message" if messages else "code"
    found = ", ".join(beginning_of(str(finding[key]), _WORDS) for finding in _findings(endpoint))
    state = f"{endpoint['interface']} is {endpoint['verdict']}, outlook {endpoint['outlook']}"
    return f"{state}: {found}" if found else state


def _findings(endpoint: Seen) -> Sequence[Seen]:
    """Those that are left; those before the repair if it left none."""
    found: Sequence[Seen] = endpoint["remaining"] or endpoint["findings"]
    return found


def _counts(endpoints: Sequence[Seen]) -> str:
    codes = Counter(f["code"] for endpoint in endpoints for f in _findings(endpoint))
    return ", ".join(f"{code}: {count}" for code, count in sorted(codes.items()))
