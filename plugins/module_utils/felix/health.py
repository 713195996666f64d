# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the table in which Felix reports its health. Pure.

libcalico-go/lib/health/health.go, drawn by tablewriter v0.0.5, which wraps a long cell into several
lines; equal from v3.28.1 to v3.31.0.
"""

from __future__ import annotations

from dataclasses import dataclass

_COLUMNS = ["COMPONENT", "TIMEOUT", "LIVENESS", "READINESS", "DETAIL"]
_SAYS = {"reporting live": True, "reporting ready": True, "-": None}


@dataclass(frozen=True)
class Reporter:
    """``ready`` and ``live`` are None if it does not report them."""

    component: str
    ready: bool | None
    live: bool | None
    detail: str


def reporters(table: str) -> tuple[Reporter, ...] | None:
    """The rows of the table; None if the text is not such a table."""
    lines = [_cells(line) for line in table.splitlines() if line.startswith("|")]
    if not lines or lines[0] != _COLUMNS:
        return None
    rows: list[list[str]] = []
    for cells in lines[1:]:
        if cells[1]:  # each reporter has a timeout, if only "-"
            rows.append(cells)
        elif rows:
            rows[-1] = [f"{old} {new}".strip() for old, new in zip(rows[-1], cells)]
    return tuple(_reporter(*row) for row in rows)


def _cells(line: str) -> list[str]:
    cells = [cell.strip() for cell in line.strip()[1:-1].split("|", len(_COLUMNS) - 1)]
    return cells + [""] * (len(_COLUMNS) - len(cells))


def _reporter(component: str, _timeout: str, live: str, ready: str, detail: str) -> Reporter:
    """``timed out`` counts as not ready, and is added to the detail."""
    if "timed out" in (live, ready):
        detail = f"{detail} (timed out)".strip()
    return Reporter(component, _SAYS.get(ready, False), _SAYS.get(live, False), detail)
