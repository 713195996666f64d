# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Felix's health, as libcalico-go/lib/health/health.go reports it at /readiness and /liveness."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from ansible_collections.dataplane.calico_bpf.tests.support.felix.releases import Release
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin.messages import Messages
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin.server import (
    NOT_FOUND,
    Answer,
)

_HEADER = ("COMPONENT", "TIMEOUT", "LIVENESS", "READINESS", "DETAIL")
#: tablewriter's MAX_ROW_WIDTH: a longer cell continues on the next line.
_WIDEST = 30


@dataclass(frozen=True)
class Reporter:
    name: str
    ready: bool = False
    detail: str = ""
    timeout: str = "-"
    #: BPF's report readiness only: a fault of theirs never restarts the pod.
    reports_liveness: bool = True

    def __str__(self) -> str:
        ready = "ready" if self.ready else "non-ready"
        return f"live,{ready}" if self.reports_liveness else ready

    @property
    def row(self) -> tuple[str, ...]:
        liveness = "reporting live" if self.reports_liveness else "-"
        readiness = "reporting ready" if self.ready else "reporting non-ready"
        return self.name, self.timeout, liveness, readiness, self.detail


class Health:
    """Reported by the loop, asked for by the server's threads."""

    def __init__(self, messages: Messages, release: Release) -> None:
        reporters = [
            Reporter("BPFEndpointManager", detail="Not yet synced.", reports_liveness=False),
            Reporter("CalculationGraph", timeout="30s"),
            Reporter("FelixStartup", ready=True),
            Reporter("InternalDataplaneMainLoop", timeout="1m30s"),
        ]
        if release >= (3, 32, 1):
            reporters.append(Reporter("BPFHostIP", ready=True, reports_liveness=False))
        self._reporters = {r.name: r for r in sorted(reporters, key=_by_name)}
        self._messages = messages
        self._last = ""

    def report(self, name: str, ready: bool, detail: str = "") -> None:
        old = self._reporters[name]
        if (old.ready, old.detail) == (ready, detail):
            return
        new = Reporter(name, ready, detail, old.timeout, old.reports_liveness)
        self._reporters[name] = new
        self._messages.component_changed(name, str(new), str(old))

    def answer(self, path: str) -> Answer:
        """200 or 503, with the same table at either path; all that runs is live."""
        if path not in ("/readiness", "/liveness"):
            return NOT_FOUND
        reporters = list(self._reporters.values())
        ready = all(r.ready for r in reporters)
        table = "\n".join(_table([_HEADER, *(r.row for r in reporters)]))
        if table != self._last:
            self._last = table
            self._messages.health_changed(True, ready, table)
        return Answer(200 if ready or path == "/liveness" else 503, table)


def _by_name(reporter: Reporter) -> str:
    return reporter.name


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """As github.com/olekukonko/tablewriter v0.0.5 draws it."""
    wrapped = [[textwrap.wrap(cell, _WIDEST) or [""] for cell in row] for row in rows]
    columns = zip(*wrapped, strict=True)
    widths = [max(len(line) for cell in column for line in cell) for column in columns]
    rule = "".join(f"+{'-' * (width + 2)}" for width in widths) + "+"
    yield rule
    yield _line([_centred(name, width) for name, width in zip(_HEADER, widths, strict=True)])
    yield rule
    for row in wrapped[1:]:
        for number in range(max(map(len, row))):
            cells = [cell[number] if number < len(cell) else "" for cell in row]
            yield _line([cell.ljust(width) for cell, width in zip(cells, widths, strict=True)])
    yield rule


def _line(cells: list[str]) -> str:
    return "".join(f"| {cell} " for cell in cells) + "|"


def _centred(name: str, width: int) -> str:
    return (" " * ((width - len(name)) // 2) + name).ljust(width)
