# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records events of a rollout in the journal and in the reports made from it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import DataplaneError
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.event import (
    Event,
    Status,
    progress,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.journal import locked
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.next_steps import (
    next_steps,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.summary import (
    Report,
    summarize,
)

from .report_page import page


@dataclass(frozen=True)
class Recorded:
    """The files that were written, and the report in them."""

    report: Report
    journal: Path
    report_json: Path
    report_html: Path


def show_and_record(
    directory: str | None, events: Sequence[Event], show: Callable[[str], None]
) -> tuple[list[str], Recorded | None]:
    """Record ``events`` if there is a ``directory``, and show their lines of progress.

    :raises DataplaneError: a file cannot be written.
    """
    recorded = record(Path(directory).absolute(), *events) if directory and events else None
    lines = [progress(e, seconds_of(e, recorded.report) if recorded else None) for e in events]
    for line in lines:
        show(line)
    return lines, recorded


def record(directory: Path, *events: Event) -> Recorded:
    """Append ``events`` to the journal in ``directory``, and write the reports of their run again.

    A run in check mode has its own reports, so that it does not overwrite those of a real run.

    :raises DataplaneError: a file cannot be written.
    """
    last = events[-1]
    stem = "report.check" if last.check else "report"
    path = directory / "journal.jsonl"
    # The reports are written under the lock of the journal, so that an older one never comes last.
    with locked(path) as journal:
        for event in events:
            journal.append(event)
        contents = journal.read()
        report = summarize(contents.events, last.run, last.check, contents.unreadable)
        as_json, as_html = directory / f"{stem}.json", directory / f"{stem}.html"
        _replace(as_json, document(report))
        _replace(as_html, page(report))
    return Recorded(report=report, journal=path, report_json=as_json, report_html=as_html)


def document(report: Report) -> str:
    """The report as JSON, with the ``next`` steps."""
    whole = {**vars(report), "next": next_steps(report)}
    return json.dumps(whole, default=vars) + "\n"


def seconds_of(event: Event, report: Report) -> float | None:
    """The duration of the phase that ``event`` ends."""
    if event.status not in (Status.DONE, Status.FAILED):
        return None
    nodes = [n.phases for n in report.nodes if n.name == event.node]
    phases = nodes[0] if nodes else report.phases if not event.node else ()
    last = next((p for p in reversed(phases) if p.phase == event.phase), None)
    return last.seconds if last else None


def _replace(path: Path, text: str) -> None:
    """Replace a file atomically; without fsync, since the journal has everything in it."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(text, encoding="utf-8")
        os.replace(new, path)
    except OSError as error:
        raise DataplaneError(
            f"the report {path} could not be written: {error}. The event is in the journal in the "
            "same folder, and this task changed nothing in the cluster"
        ) from error
