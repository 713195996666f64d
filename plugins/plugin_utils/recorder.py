# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records an event of a rollout in the journal and in the reports made from it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
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
    """The files that were written, and the duration of the phase that the event ends."""

    report: Report
    journal: Path
    report_json: Path
    report_html: Path
    seconds: float | None


def show_and_record(
    directory: str | None, event: Event, show: Callable[[str], None]
) -> tuple[str, Recorded | None]:
    """Record ``event`` if there is a ``directory``, and show its line of progress.

    :raises DataplaneError: a file cannot be written.
    """
    recorded = record(Path(directory).absolute(), event) if directory else None
    line = progress(event, recorded.seconds if recorded else None)
    show(line)
    return line, recorded


def record(directory: Path, event: Event) -> Recorded:
    """Append ``event`` to the journal in ``directory``, and write the reports of its run again.

    A run in check mode has its own reports, so that it does not overwrite those of a real run.

    :raises DataplaneError: a file cannot be written.
    """
    stem = "report.check" if event.check else "report"
    path = directory / "journal.jsonl"
    # The reports are written under the lock of the journal, so that an older one never comes last.
    with locked(path) as journal:
        journal.append(event)
        contents = journal.read()
        report = summarize(contents.events, event.run, event.check, contents.unreadable)
        as_json, as_html = directory / f"{stem}.json", directory / f"{stem}.html"
        _replace(as_json, document(report))
        _replace(as_html, page(report))
    return Recorded(
        report=report,
        journal=path,
        report_json=as_json,
        report_html=as_html,
        seconds=_seconds(report, event),
    )


def document(report: Report) -> str:
    """The report as JSON, with the ``next`` steps."""
    whole = {**vars(report), "next": next_steps(report)}
    return json.dumps(whole, default=vars) + "\n"


def _seconds(report: Report, event: Event) -> float | None:
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
