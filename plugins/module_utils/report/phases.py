# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The phases of a rollout, each try with its state, from the events of its journal. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from .event import Event, Status, seconds_between
from .phase_result import PhaseResult, phase_result


class State(str, Enum):
    """Of a node, or of a phase. ``interrupted``: started, without an event of its end."""

    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    ROLLED_BACK = "rolled back"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    UNTOUCHED = "untouched"


BAD = (State.FAILED, State.UNREACHABLE, State.INTERRUPTED)
STATE_OF = {
    Status.BEGUN: State.RUNNING,
    Status.DONE: State.DONE,
    Status.FAILED: State.FAILED,
    Status.SKIPPED: State.SKIPPED,
    Status.UNREACHABLE: State.UNREACHABLE,
}


@dataclass(frozen=True)
class PhaseRecord:
    """One try of a phase. Times are empty, and ``seconds`` None, if they are not known."""

    phase: str
    state: State
    message: str
    result: PhaseResult
    begun: str = ""
    ended: str = ""
    seconds: float | None = None


class _Tries:
    """Each try of each phase, in the order of their starts."""

    def __init__(self) -> None:
        self.records: list[PhaseRecord] = []
        self._open: dict[str, tuple[int, Event]] = {}

    @property
    def open(self) -> tuple[str, ...]:
        return tuple(self._open)

    def begin(self, event: Event) -> None:
        self.give_up(event.phase)
        self._open[event.phase] = (len(self.records), event)
        record = PhaseRecord(
            phase=event.phase,
            state=State.RUNNING,
            begun=event.at,
            message=event.message,
            result=phase_result(event.result),
        )
        self.records.append(record)

    def end(self, phase: str, event: Event, state: State) -> None:
        # The result of an event without a phase belongs to the node.
        result = event.result if event.phase else {}
        if phase not in self._open:
            record = PhaseRecord(
                phase=phase,
                state=state,
                ended=event.at,
                message=event.message,
                result=phase_result(result),
            )
            self.records.append(record)
            return
        at, begin = self._open.pop(phase)
        self.records[at] = replace(
            self.records[at],
            state=state,
            ended=event.at,
            seconds=seconds_between(begin.at, event.at),
            message=event.message or begin.message,
            result=phase_result({**begin.result, **result}),
        )

    def give_up(self, *phases: str) -> None:
        for phase in phases:
            if phase in self._open:
                at = self._open.pop(phase)[0]
                self.records[at] = replace(self.records[at], state=State.INTERRUPTED)


def phases_of(events: Iterable[Event], over: bool) -> list[PhaseRecord]:
    tries = _Tries()
    for event in events:
        state = STATE_OF.get(event.status)
        if event.of_the_run:
            if event.status is Status.BEGUN:
                tries.give_up(*tries.open)
        elif state is None:
            continue
        elif event.phase and state is State.RUNNING:
            tries.begin(event)
        elif event.phase:
            tries.end(event.phase, event, state)
        elif state in BAD:
            # A node that failed, failed in the phase that was running.
            for phase in tries.open:
                tries.end(phase, event, state)
    if over:
        tries.give_up(*tries.open)
    return tries.records
