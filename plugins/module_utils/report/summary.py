# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of a rollout, from the events of its journal. Pure.

A report is made anew at every event, and says only what the events say: a run is completed when
its last event says so, and never because nothing more was heard of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from .event import Event, Status, seconds_between
from .phase_result import PhaseResult, phase_result


class RunVerdict(str, Enum):
    """``interrupted``: the run ended without a word, as a later one tells."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    RUNNING = "running"
    INTERRUPTED = "interrupted"


class State(str, Enum):
    """Of a node, or of a phase. ``interrupted``: begun, and no end of it was heard."""

    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    ROLLED_BACK = "rolled back"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    UNTOUCHED = "untouched"


BAD = (State.FAILED, State.UNREACHABLE, State.INTERRUPTED)
_STATE = {
    Status.BEGUN: State.RUNNING,
    Status.DONE: State.DONE,
    Status.FAILED: State.FAILED,
    Status.SKIPPED: State.SKIPPED,
    Status.UNREACHABLE: State.UNREACHABLE,
}


@dataclass(frozen=True)
class PhaseRecord:
    """One try of a phase. Times are empty, and ``seconds`` None, where they were not told."""

    phase: str
    state: State
    begun: str
    ended: str
    seconds: float | None
    message: str
    result: PhaseResult


@dataclass(frozen=True)
class NodeRecord:
    name: str
    state: State
    version_before: str
    version_after: str
    begun: str
    ended: str
    seconds: float | None
    message: str
    #: What was told of the node as a whole.
    result: PhaseResult
    #: Whether this run's cordon may still be on it.
    cordoned: bool
    phases: tuple[PhaseRecord, ...]


@dataclass(frozen=True)
class Note:
    at: str
    node: str
    phase: str
    message: str
    result: PhaseResult


@dataclass(frozen=True)
class Stop:
    """What stopped the run: the first failure; the run's own word where nothing failed."""

    at: str
    node: str
    phase: str
    message: str


@dataclass(frozen=True)
class Totals:
    """``left``: endpoints that drifted when they were last looked at. Packets: None if not told."""

    nodes: Mapping[str, int]
    found: int
    repaired: int
    left: int
    evicted: int
    drain_seconds: float
    seconds_by_phase: Mapping[str, float]
    sent_packets: int | None
    lost_packets: int | None


@dataclass(frozen=True)
class EarlierRun:
    """Another run in the same journal."""

    run: str
    title: str
    verdict: RunVerdict
    started: str
    last_event_at: str
    stop: Stop | None


@dataclass(frozen=True)
class Report:
    """``ended`` is empty while no event ends the run; ``unreadable``: lines of the journal."""

    run: str
    title: str
    check: bool
    verdict: RunVerdict
    started: str
    ended: str
    last_event_at: str
    seconds: float
    message: str
    stop: Stop | None
    totals: Totals
    nodes: tuple[NodeRecord, ...]
    #: Phases that concern no node.
    phases: tuple[PhaseRecord, ...]
    notes: tuple[Note, ...]
    #: What the run told at its begin, but for its title and nodes.
    about: Mapping[str, Any]
    #: What it told at its end.
    result: PhaseResult
    earlier: tuple[EarlierRun, ...]
    unreadable: tuple[int, ...]


def summarize(
    events: Sequence[Event], run: str, check: bool = False, unreadable: Sequence[int] = ()
) -> Report:
    """The report of ``run``, of whose events there is at least one.

    :raises ValueError: there is none.
    """
    own = [e for e in events if (e.run, e.check) == (run, check)]
    if not own:
        raise ValueError(f"the journal has no event of the run {run!r}")
    begin: dict[str, Any] = {}
    for event in own:
        begin.update(event.begin)
    title = str(begin.pop("title", "") or f"Rollout {run}")
    versions = _named_nodes(begin.pop("nodes", ()), begin)
    by_node: dict[str, list[Event]] = {name: [] for name in _in_order(versions, own)}
    for event in own:
        if event.node:
            by_node[event.node].append(event)
        elif event.of_the_run:
            for events_of in by_node.values():
                events_of.append(event)
    ended_by = _last_word(own)
    over = ended_by is not Status.BEGUN
    nodes = tuple(_node(n, versions.get(n, ""), es, over) for n, es in by_node.items())
    phases = tuple(_phases([e for e in own if not e.node], over))
    stop = _located(_stop(own), nodes)
    verdict = _verdict(ended_by, stop, nodes, phases)
    last = own[-1].at
    notes = tuple(
        Note(e.at, e.node, e.phase, e.message, phase_result(e.result))
        for e in own
        if e.status is Status.NOTE
    )
    return Report(
        run=run,
        title=title,
        check=check,
        verdict=verdict,
        started=own[0].at,
        ended=last if over else "",
        last_event_at=last,
        seconds=seconds_between(own[0].at, last),
        message=next((e.message for e in reversed(own) if e.of_the_run), ""),
        stop=None if verdict is RunVerdict.COMPLETED else stop,
        totals=_totals(nodes, phases, [n.result for n in notes], max(e.total for e in own)),
        nodes=nodes,
        phases=phases,
        notes=notes,
        about=begin,
        result=_own_result(e for e in own if e.of_the_run),
        earlier=tuple(_earlier(events, run, check)),
        unreadable=tuple(unreadable),
    )


def _named_nodes(nodes: Any, begin: dict[str, Any]) -> dict[str, str]:
    """The version of each node that the run means to go to, in its order."""
    named: dict[str, str] = {}
    for node in nodes if isinstance(nodes, list) else []:
        if isinstance(node, str):
            named[node] = ""
        elif isinstance(node, dict) and isinstance(node.get("name"), str):
            named[node["name"]] = str(node.get("version") or "")
        else:
            begin.setdefault("nodes", []).append(node)
    return named


def _in_order(named: Iterable[str], events: Iterable[Event]) -> list[str]:
    """Nodes as the run named them, then the others by their position."""
    position: dict[str, int] = {}
    for event in events:
        if event.node:
            position[event.node] = position.get(event.node) or event.position
    return list(dict.fromkeys([*named, *sorted(position, key=lambda name: position[name])]))


def _last_word(own: Sequence[Event]) -> Status:
    """How the run ended; ``begun`` while it did not.

    What is heard after an end goes on with the run, but for notes.
    """
    word = Status.BEGUN
    for event in own:
        if event.of_the_run:
            word = event.status
        elif event.status is Status.BEGUN:
            word = Status.BEGUN
    return word


def _stop(own: Sequence[Event]) -> Stop | None:
    """The first failure since the run was last begun; a later success at the same place ends it."""
    failures: dict[tuple[str, str], Event] = {}
    word: Event | None = None
    for event in own:
        if event.of_the_run:
            if event.status is Status.BEGUN:
                failures.clear()
            word = event if event.status in (Status.STOPPED, Status.INTERRUPTED) else None
        elif event.status in (Status.FAILED, Status.UNREACHABLE):
            failures.setdefault((event.node, event.phase), event)
        elif event.status is Status.DONE:
            for node, phase in tuple(failures):
                if node == event.node and event.phase in (phase, "resume", ""):
                    del failures[node, phase]
    cause = next(iter(failures.values()), None) or word
    return Stop(cause.at, cause.node, cause.phase, cause.message) if cause else None


def _located(stop: Stop | None, nodes: Iterable[NodeRecord]) -> Stop | None:
    """With the node and the phase that were on, where the event that tells of it names none."""
    if stop is None or (stop.node and stop.phase):
        return stop
    for node in nodes:
        if node.name == stop.node or (not stop.node and node.state is State.INTERRUPTED):
            phase = next((p.phase for p in reversed(node.phases) if p.state in BAD), "")
            return replace(stop, node=node.name, phase=stop.phase or phase)
    return stop


def _verdict(
    ended_by: Status,
    stop: Stop | None,
    nodes: Iterable[NodeRecord],
    phases: Iterable[PhaseRecord],
) -> RunVerdict:
    if ended_by is Status.INTERRUPTED:
        return RunVerdict.INTERRUPTED
    latest = {p.phase: p.state for p in phases}
    states = [*(n.state for n in nodes), *latest.values()]
    if ended_by is Status.STOPPED:
        return RunVerdict.STOPPED
    if ended_by is Status.FINISHED:
        return RunVerdict.STOPPED if any(s in BAD for s in states) else RunVerdict.COMPLETED
    failed = State.FAILED in states or State.UNREACHABLE in states
    if failed and stop and State.RUNNING not in states:
        return RunVerdict.STOPPED
    return RunVerdict.RUNNING


def _node(name: str, version: str, events: Sequence[Event], over: bool) -> NodeRecord:
    """``events``: the node's own, and those of no node."""
    own = [e for e in events if e.node and e.status in _STATE]
    phases = tuple(_phases(events, over))
    state = _node_state(own, phases, over)
    result = _own_result(e for e in own if not e.phase)
    results = [*(p.result for p in phases), result]
    closed = bool(own) and state is not State.RUNNING
    return NodeRecord(
        name=name,
        state=state,
        version_before=next((r.version_before for r in results if r.version_before), version),
        version_after=next((r.version_after for r in reversed(results) if r.version_after), ""),
        begun=own[0].at if own else "",
        ended=own[-1].at if closed else "",
        seconds=seconds_between(own[0].at, own[-1].at) if own else None,
        message=_node_message(own, state),
        result=result,
        cordoned=_may_be_cordoned(e for e in events if e.node),
        phases=phases,
    )


def _node_state(own: Sequence[Event], phases: Sequence[PhaseRecord], over: bool) -> State:
    """It is done when it was said to be, or after the last thing that is done to it."""
    state, resumed = State.UNTOUCHED, False
    for event in own:
        resumed |= event.phase in ("resume", "rollback") and event.status is Status.DONE
        resumed &= event.phase != "drain"
        if not event.phase or event.status in (Status.BEGUN, Status.FAILED, Status.UNREACHABLE):
            state = _STATE[event.status]
        elif resumed:
            state = State.DONE
        elif state is State.UNTOUCHED:
            state = State.RUNNING
    if state is State.DONE and any(p.phase == "rollback" and p.state is state for p in phases):
        return State.ROLLED_BACK
    return State.INTERRUPTED if state is State.RUNNING and over else state


def _may_be_cordoned(own: Iterable[Event]) -> bool:
    """From the drain's begin, until its result or ``resume`` or the stop says otherwise."""
    cordoned = False
    for event in own:
        if event.check:
            continue
        if event.result.get("uncordoned") is True:
            cordoned = False
        elif event.phase == "drain" and event.status is not Status.SKIPPED:
            cordoned = event.result.get("cordoned", True) is not False
        elif event.phase == "resume" and event.status is Status.DONE:
            cordoned = False
    return cordoned


def _node_message(own: Sequence[Event], state: State) -> str:
    """Why it failed, and otherwise what was said of the node as a whole."""
    for event in reversed(own):
        failed = state in BAD and event.status in (Status.FAILED, Status.UNREACHABLE)
        if event.message and (failed or not event.phase):
            return event.message
    return ""


def _own_result(events: Iterable[Event]) -> PhaseResult:
    merged: dict[str, Any] = {}
    for event in events:
        merged.update(event.result)
    return phase_result(merged)


class _Tries:
    """Each try of each phase, in the order in which they began."""

    def __init__(self) -> None:
        self.records: list[PhaseRecord] = []
        self._open: dict[str, tuple[int, Event]] = {}

    @property
    def open(self) -> tuple[str, ...]:
        return tuple(self._open)

    def begin(self, event: Event) -> None:
        self.give_up(event.phase)
        self._open[event.phase] = (len(self.records), event)
        result = phase_result(event.result)
        self.records.append(
            PhaseRecord(event.phase, State.RUNNING, event.at, "", None, event.message, result)
        )

    def end(self, phase: str, event: Event, state: State) -> None:
        # What is told of a node as a whole stays with the node.
        result = event.result if event.phase else {}
        if phase not in self._open:
            told = phase_result(result)
            self.records.append(PhaseRecord(phase, state, "", event.at, None, event.message, told))
            return
        at, begin = self._open.pop(phase)
        self.records[at] = PhaseRecord(
            phase,
            state,
            begin.at,
            event.at,
            seconds_between(begin.at, event.at),
            event.message or begin.message,
            phase_result({**begin.result, **result}),
        )

    def give_up(self, *phases: str) -> None:
        for phase in phases:
            if phase in self._open:
                at = self._open.pop(phase)[0]
                self.records[at] = replace(self.records[at], state=State.INTERRUPTED)


def _phases(events: Iterable[Event], over: bool) -> list[PhaseRecord]:
    tries = _Tries()
    for event in events:
        state = _STATE.get(event.status)
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
            # A node that failed, failed in the phase that was on.
            for phase in tries.open:
                tries.end(phase, event, state)
    if over:
        tries.give_up(*tries.open)
    return tries.records


def _totals(
    nodes: Sequence[NodeRecord],
    phases: Iterable[PhaseRecord],
    notes: Sequence[PhaseResult],
    total: int,
) -> Totals:
    states = Counter(n.state.value for n in nodes)
    # Nodes that the run counted and never named.
    states[State.UNTOUCHED.value] += max(0, total - len(nodes))
    every = [p for n in nodes for p in n.phases] + list(phases)
    parities = [p.result.parity for p in every if p.result.parity]
    drains = [p.result.drain for p in every if p.result.drain]
    seconds: dict[str, float] = {}
    for p in every:
        seconds[p.phase] = round(seconds.get(p.phase, 0.0) + (p.seconds or 0.0), 3)
    probes = [*(p.result for p in every), *(n.result for n in nodes), *notes]
    return Totals(
        nodes={s.value: states[s.value] for s in State if states[s.value]},
        found=sum(p.found for p in parities),
        repaired=sum(p.repaired for p in parities),
        left=sum(_left(n.phases) for n in nodes),
        evicted=sum(len(d.evicted) for d in drains),
        drain_seconds=sum(d.waited_seconds for d in drains),
        seconds_by_phase=seconds,
        sent_packets=_sum(r.sent for r in probes),
        lost_packets=_sum(r.lost for r in probes),
    )


def _left(phases: Iterable[PhaseRecord]) -> int:
    looks = [p.result.parity.left for p in phases if p.result.parity]
    return looks[-1] if looks else 0


def _sum(numbers: Iterable[int | None]) -> int | None:
    told = [n for n in numbers if n is not None]
    return sum(told) if told else None


def _earlier(events: Sequence[Event], run: str, check: bool) -> Iterable[EarlierRun]:
    """The journal's runs before this one; that nobody ended them tells that they were cut off."""
    others = dict.fromkeys((e.run, e.check) for e in events)
    for key in list(others)[: list(others).index((run, check))]:
        if key[1] and not check:
            continue
        own = [e for e in events if (e.run, e.check) == key]
        one = summarize(own, *key)
        if one.verdict is RunVerdict.RUNNING:
            silence = replace(own[-1], status=Status.INTERRUPTED, node="", phase="", message="")
            one = summarize([*own, silence], *key)
        yield EarlierRun(one.run, one.title, one.verdict, one.started, one.last_event_at, one.stop)
