# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A report as one self-contained HTML page: no network, no script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.event import (
    duration,
    seconds_between,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.next_steps import (
    next_steps,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.phase_result import (
    EndpointRecord,
    outline,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.phases import (
    BAD,
    PhaseRecord,
    State,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.summary import (
    NodeRecord,
    Note,
    Report,
    RunVerdict,
    Stop,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.visible import visible

#: The width of a whole bar.
_WHOLE = 1000


class Bar(NamedTuple):
    """A phase in a timeline; ``x`` and ``width`` are thousandths of the timeline."""

    x: float
    width: float
    kind: str
    title: str


class Found(NamedTuple):
    """An endpoint, with where it was found."""

    node: str
    phase: str
    endpoint: EndpointRecord


def page(report: Report) -> str:
    """The whole document."""
    return _PAGE.render(
        report=report,
        headline=headline(report),
        mood=_mood(report),
        next_steps=next_steps(report),
        run_bars={n.name: bars(n.phases, report.started, report.seconds) for n in report.nodes},
        found=tuple(_found(report)),
    )


def headline(report: Report) -> str:
    """The verdict in one line."""
    states = report.totals.nodes
    total = sum(states.values())
    done = states.get(State.DONE.value, 0) + states.get(State.SKIPPED.value, 0)
    where = _where(report.stop) if report.stop else ""
    at = f" at {where}" if where else ""
    counted = f"{done} of {total} nodes done" if total else "no node recorded"
    back = states.get(State.ROLLED_BACK.value, 0)
    if back:
        counted += f", {back} rolled back"
    if report.verdict is RunVerdict.COMPLETED:
        return f"Completed: {counted}"
    if report.verdict is RunVerdict.PARTIAL:
        return f"Completed in part, more is left: {counted}"
    if report.verdict is RunVerdict.STOPPED:
        return f"Stopped{at}: {counted}"
    if report.verdict is RunVerdict.INTERRUPTED:
        return f"Interrupted{at}: {counted}"
    trouble = f", with a failure{at}" if at else ""
    return (
        f"Not ended{trouble}: running, or cut off, after {clock(report.last_event_at)}: {counted}"
    )


def _where(record: Stop | Note) -> str:
    return ", ".join(filter(None, (record.node, record.phase)))


def _mood(report: Report) -> str:
    if report.verdict is RunVerdict.RUNNING:
        return "running"
    return "good" if report.verdict is RunVerdict.COMPLETED else "bad"


def bars(phases: Sequence[PhaseRecord], begin: str, seconds: float) -> tuple[Bar, ...]:
    """The phases on a scale of ``seconds`` from ``begin``; one without an end is a thin mark."""
    return tuple(_bars(phases, begin, seconds or 1.0))


def _bars(phases: Sequence[PhaseRecord], begin: str, seconds: float) -> Iterator[Bar]:
    for number, phase in enumerate(phases):
        if not phase.begun:
            continue
        x = _WHOLE * seconds_between(begin, phase.begun) / seconds
        width = max(_WHOLE * (phase.seconds or 0.0) / seconds, 3.0)
        kind = "bad" if phase.state in BAD else ("odd", "even")[number % 2]
        took = duration(phase.seconds) if phase.seconds is not None else "no end recorded"
        title = f"{phase.phase}: {phase.state.value}, {took}"
        yield Bar(round(min(x, _WHOLE - 3.0), 1), round(min(width, _WHOLE), 1), kind, title)


def _found(report: Report) -> Iterator[Found]:
    for node in report.nodes:
        for phase in node.phases:
            for endpoint in phase.result.parity.endpoints if phase.result.parity else ():
                yield Found(node.name, phase.phase, endpoint)


def _totals_of(node: NodeRecord) -> str:
    """A summary of the node's endpoints; empty if none was audited."""
    parities = [p.result.parity for p in node.phases if p.result.parity]
    if not parities:
        return ""
    found, repaired = sum(p.found for p in parities), sum(p.repaired for p in parities)
    return f"{found} found, {repaired} repaired, {parities[-1].left} left" if found else "none"


def clock(at: str) -> str:
    """The time of day to the second, in UTC as the header of the page says."""
    return at[11:19]


def date(at: str) -> str:
    return at[:10]


def _visible(value: Any) -> Any:
    """Text with invisible characters shown; the template escapes it afterwards."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _page_environment() -> Environment:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: Mapping[str, Any] = {
        "clock": clock,
        "date": date,
        "duration": duration,
        "outline": outline,
        "endpoints": _totals_of,
        "where": _where,
    }
    environment.filters.update(filters)
    environment.globals["bars"] = bars
    return environment


# Compiled at import: Ansible loads an action once and forks for each task.
_PAGE = _page_environment().from_string(
    Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
)
