# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An event of a rollout: a line of its journal and of its progress."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from ..errors import Refusal
from ..visible import visible

Json = dict[str, Any]


class Status(str, Enum):
    """The last three concern the whole run; so does ``begun`` without a node and a phase."""

    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    UNREACHABLE = "unreachable"
    NOTE = "note"
    FINISHED = "finished"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"


ENDS = (Status.FINISHED, Status.STOPPED, Status.INTERRUPTED)


@dataclass(frozen=True)
class Event:
    """An event of a run, of one of its phases, of a node, or of a phase of a node.

    ``at`` is UTC, such as 2026-11-23T22:00:00.123Z. ``begin`` describes the run, once:
    ``title``, ``nodes`` (names, or mappings with ``name`` and ``version``), and anything else.
    """

    run: str
    status: Status
    node: str = ""
    phase: str = ""
    message: str = ""
    position: int = 0
    total: int = 0
    result: Mapping[str, Any] = field(default_factory=dict)
    begin: Mapping[str, Any] = field(default_factory=dict)
    check: bool = False
    at: str = ""

    @property
    def of_the_run(self) -> bool:
        """Whether it begins or ends the whole run."""
        return self.status in ENDS or (
            self.status is Status.BEGUN and not self.node and not self.phase
        )

    def refuse_nonsense(self) -> None:
        """:raises Refusal: the event lacks a value that its status needs."""
        if not self.run.strip():
            raise Refusal("run is empty: give the run's id, the same for all its events")
        if self.status is Status.UNREACHABLE and not self.node:
            raise Refusal("status unreachable needs the node that does not answer")
        if self.status is Status.NOTE and not (self.message or self.result):
            raise Refusal("status note needs a message or a result")
        if self.status in (Status.DONE, Status.FAILED, Status.SKIPPED) and not (
            self.node or self.phase
        ):
            raise Refusal(
                f"status {self.status.value} needs a node or a phase; for the whole run use "
                "finished, stopped or interrupted"
            )


def line_of(event: Event) -> str:
    """The event as one line of ASCII JSON, without empty values."""
    shown = {"at": event.at, **{name: value for name, value in vars(event).items() if value}}
    return json.dumps(plain(shown))


def event_of(line: str) -> Event:
    """:raises ValueError: the line is incomplete, or not an event."""
    fields = json.loads(line)
    if not isinstance(fields, dict):
        raise ValueError("not an object")
    return Event(
        run=_a(str, fields, "run"),
        status=Status(fields.get("status")),
        node=_a(str, fields, "node"),
        phase=_a(str, fields, "phase"),
        message=_a(str, fields, "message"),
        position=_a(int, fields, "position"),
        total=_a(int, fields, "total"),
        result=_a(dict, fields, "result"),
        begin=_a(dict, fields, "begin"),
        check=_a(bool, fields, "check"),
        at=_time(fields),
    )


def _a(kind: type, fields: Json, key: str) -> Any:
    value = fields.get(key, kind())
    if not isinstance(value, kind):
        raise ValueError(f"{key} is {value!r}")
    return value


def _time(fields: Json) -> str:
    at: str = _a(str, fields, "at")
    seconds_between(at, at)
    return at


def seconds_between(begin: str, end: str) -> float:
    """From one ``at`` to another; never negative, even if the clock was set back.

    :raises ValueError: one of them is not a time in UTC.
    """
    return max(0.0, (_moment(end) - _moment(begin)).total_seconds())


def _moment(at: str) -> datetime:
    if not at.endswith("Z"):
        raise ValueError(f"{at!r} is not a time in UTC")
    return datetime.fromisoformat(at[:-1])


def plain(value: Any) -> Any:
    """``value`` in the types of JSON.

    Without any ``invocation``: a registered result repeats the options of its task there, which may
    include credentials.
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items() if k != "invocation"}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(one) for one in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return str(value)


def progress(event: Event, seconds: float | None = None) -> str:
    """One line for the screen, such as ``[node 2/5 worker-2] drain: done in 41 s``."""
    place = f" {event.position}/{event.total}" if event.position and event.total else ""
    who = f"node{place} {event.node}" if event.node else "rollout"
    phase = f" {event.phase}:" if event.phase else ""
    status = event.status.value
    if event.status in (Status.FAILED, Status.UNREACHABLE, Status.STOPPED, Status.INTERRUPTED):
        status = status.upper()
    if seconds is not None:
        status += f" {'in' if event.status is Status.DONE else 'after'} {duration(seconds)}"
    check = " (check mode)" if event.check else ""
    message = f": {' '.join(event.message.split())}" if event.message else ""
    return visible(f"[{who}]{phase} {status}{check}{message}")


def duration(seconds: float) -> str:
    """A duration for people: ``0.4 s``, ``41 s``, ``3 min 05 s``, ``1 h 02 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
