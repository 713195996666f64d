# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records an event of a rollout: in the journal, and in the reports made of it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import DataplaneError
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.event import Event, Status
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
    """What was written, and how long the phase took that the event ends."""

    report: Report
    journal: Path
    report_json: Path
    report_html: Path
    seconds: float | None


def record(directory: Path, event: Event) -> Recorded:
    """Append ``event`` to the journal in ``directory``, and make its run's reports anew.

    A run in check mode has reports of its own: it must not take the place of a real one's.

    :raises DataplaneError: a file cannot be written.
    """
    stem = "report.check" if event.check else "report"
    path = directory / "journal.jsonl"
    # The reports are written while the journal is locked, or an older one might come last.
    with locked(path) as journal:
        journal.append(event)
        contents = journal.read()
        made = summarize(contents.events, event.run, event.check, contents.unreadable)
        as_json, as_html = directory / f"{stem}.json", directory / f"{stem}.html"
        _replace(as_json, document(made))
        _replace(as_html, page(made))
    return Recorded(made, path, as_json, as_html, _seconds(made, event))


def document(made: Report) -> str:
    """The report as JSON, with what to do ``next``."""
    whole = {**vars(made), "next": next_steps(made)}
    return json.dumps(whole, default=vars) + "\n"


def _seconds(made: Report, event: Event) -> float | None:
    if event.status not in (Status.DONE, Status.FAILED):
        return None
    nodes = [n.phases for n in made.nodes if n.name == event.node]
    phases = nodes[0] if nodes else made.phases if not event.node else ()
    last = next((p for p in reversed(phases) if p.phase == event.phase), None)
    return last.seconds if last else None


def _replace(path: Path, text: str) -> None:
    """A reader sees the old one or the new one; not synced, for the journal can make it anew."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(text, encoding="utf-8")
        os.replace(new, path)
    except OSError as error:
        raise DataplaneError(
            f"the report {path} is not written: {error}. The event itself is in the journal beside "
            "it, and nothing in the cluster was touched by this task"
        ) from error
