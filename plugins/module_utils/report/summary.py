# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Summarize a rollout from the events of its journal. Pure.

A report is made at every event and depends only on the events: a run is completed only if its last
event says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from .event import Event, Status, seconds_between
from .phase_result import PhaseResult, phase_result
from .phases import BAD, STATE_OF, PhaseRecord, State, phases_of


class RunVerdict(str, Enum):
    """``interrupted``: the run ended without a final event, as a later run recorded.

    ``partial``: all that the run was limited to is done, and nodes or old pods are left.
    """

    COMPLETED = "completed"
    PARTIAL = "partial"
    STOPPED = "stopped"
    RUNNING = "running"
    INTERRUPTED = "interrupted"


ENDED_WELL = (RunVerdict.COMPLETED, RunVerdict.PARTIAL)


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
    #: The result of the node's events without a phase.
    result: PhaseResult
    #: Whether this run may have left it cordoned.
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
    """The cause of the stop: the first failure, or the final event of the run."""

    at: str
    node: str
    phase: str
    message: str


@dataclass(frozen=True)
class Totals:
    """``left``: endpoints that drifted in their last audit. Packets: None if not known."""

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
    #: ``audit`` or ``repair``; empty for a rollout.
    kind: str
    #: The cluster's name and the address of its API server; empty if they are not known.
    cluster: str
    api_server: str
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
    #: The values of its first events, without its title and nodes.
    about: Mapping[str, Any]
    #: The result of its final event.
    result: PhaseResult
    earlier: tuple[EarlierRun, ...]
    unreadable: tuple[int, ...]


def summarize(
    events: Sequence[Event], run: str, check: bool = False, unreadable: Sequence[int] = ()
) -> Report:
    """The report of ``run``.

    :raises ValueError: there is no event of the run.
    """
    own = [e for e in events if (e.run, e.check) == (run, check)]
    if not own:
        raise ValueError(f"the journal has no event of the run {run!r}")
    begin: dict[str, Any] = {}
    for event in own:
        begin.update(event.begin)
    title = str(begin.pop("title", "") or f"Rollout {run}")
    kind = str(begin.pop("kind", ""))
    cluster, api_server = _api(begin)
    versions = _named_nodes(begin.pop("nodes", ()), begin)
    by_node: dict[str, list[Event]] = {name: [] for name in _in_order(versions, own)}
    for event in own:
        if event.node:
            by_node[event.node].append(event)
        elif event.of_the_run:
            for events_of in by_node.values():
                events_of.append(event)
    ended_by = _final_status(own)
    over = ended_by is not Status.BEGUN
    nodes = tuple(_node(n, versions.get(n, ""), es, over) for n, es in by_node.items())
    phases = tuple(phases_of([e for e in own if not e.node], over))
    stop = _located(_stop(own), nodes)
    last = own[-1].at
    notes = tuple(
        Note(at=e.at, node=e.node, phase=e.phase, message=e.message, result=phase_result(e.result))
        for e in own
        if e.status is Status.NOTE
    )
    result = _own_result(e for e in own if e.of_the_run)
    totals = _totals(nodes, phases, [n.result for n in notes], max(e.total for e in own))
    verdict = _verdict(ended_by, stop, nodes, phases)
    if verdict is RunVerdict.COMPLETED and (
        pods_left(result)
        or _untouched(totals)
        or (kind and (totals.left or any(map(not_judged, nodes))))
    ):
        verdict = RunVerdict.PARTIAL
    return Report(
        run=run,
        title=title,
        kind=kind,
        cluster=cluster,
        api_server=api_server,
        check=check,
        verdict=verdict,
        started=own[0].at,
        ended=last if over else "",
        last_event_at=last,
        seconds=seconds_between(own[0].at, last),
        message=next((e.message for e in reversed(own) if e.of_the_run), ""),
        stop=None if verdict in ENDED_WELL else stop,
        totals=totals,
        nodes=nodes,
        phases=phases,
        notes=notes,
        about=begin,
        result=result,
        earlier=tuple(_earlier(events, run, check)),
        unreadable=tuple(unreadable),
    )


def pods_left(result: PhaseResult) -> int:
    """How many calico-node pods have an older revision at the end of a run."""
    left = result.other.get("pods_left")
    return left if isinstance(left, int) else 0


def not_judged(node: NodeRecord) -> str:
    """Why the last audit of the node does not show its health; empty if it does."""
    audits = [p.result for p in node.phases if p.result.parity]
    return str(audits[-1].other.get("not_judged_error") or "") if audits else ""


def _untouched(totals: Totals) -> int:
    return totals.nodes.get(State.UNTOUCHED.value, 0)


def _api(begin: dict[str, Any]) -> tuple[str, str]:
    """(cluster, API server), taken out of ``begin``."""
    if not isinstance(begin.get("api"), dict):
        return "", ""
    api = begin.pop("api")
    return str(api.get("cluster") or ""), str(api.get("server") or "")


def _named_nodes(nodes: Any, begin: dict[str, Any]) -> dict[str, str]:
    """The target version of each node of the run, in its order."""
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
    """Nodes in the order of the run, then the others by their position."""
    position: dict[str, int] = {}
    for event in events:
        if event.node:
            position[event.node] = position.get(event.node) or event.position
    return list(dict.fromkeys([*named, *sorted(position, key=lambda name: position[name])]))


def _final_status(own: Sequence[Event]) -> Status:
    """How the run ended; ``begun`` while it runs.

    An event after the end, other than a note, continues the run.
    """
    word = Status.BEGUN
    for event in own:
        if event.of_the_run:
            word = event.status
        elif event.status is Status.BEGUN:
            word = Status.BEGUN
    return word


def _stop(own: Sequence[Event]) -> Stop | None:
    """The first failure since the run last started; a later success there clears it."""
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
    """``stop`` with the running node and phase, if its event has none."""
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
    """``events``: those of the node, and those without a node."""
    own = [e for e in events if e.node and e.status in STATE_OF]
    phases = tuple(phases_of(events, over))
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
    """A node is done by its own event, or after its last phase."""
    state, resumed = State.UNTOUCHED, False
    for event in own:
        resumed |= event.phase in ("resume", "rollback") and event.status is Status.DONE
        resumed &= event.phase != "drain"
        if not event.phase or event.status in (Status.BEGUN, Status.FAILED, Status.UNREACHABLE):
            state = STATE_OF[event.status]
        elif resumed:
            state = State.DONE
        elif state is State.UNTOUCHED:
            state = State.RUNNING
    if state is State.DONE and any(p.phase == "rollback" and p.state is state for p in phases):
        return State.ROLLED_BACK
    return State.INTERRUPTED if state is State.RUNNING and over else state


def _may_be_cordoned(own: Iterable[Event]) -> bool:
    """From the start of the drain until its result, the stop or ``resume`` says otherwise."""
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
    """The cause of its failure, else the message of its last event without a phase."""
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


def _totals(
    nodes: Sequence[NodeRecord],
    phases: Iterable[PhaseRecord],
    notes: Sequence[PhaseResult],
    total: int,
) -> Totals:
    states = Counter(n.state.value for n in nodes)
    # Nodes that the run counted but did not name.
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
    known = [n for n in numbers if n is not None]
    return sum(known) if known else None


def _earlier(events: Sequence[Event], run: str, check: bool) -> Iterable[EarlierRun]:
    """The runs before this one in the journal; one without an end was killed."""
    others = dict.fromkeys((e.run, e.check) for e in events)
    for key in list(others)[: list(others).index((run, check))]:
        if key[1] and not check:
            continue
        own = [e for e in events if (e.run, e.check) == key]
        one = summarize(own, *key)
        if one.verdict is RunVerdict.RUNNING:
            silence = replace(own[-1], status=Status.INTERRUPTED, node="", phase="", message="")
            one = summarize([*own, silence], *key)
        yield EarlierRun(
            run=one.run,
            title=one.title,
            verdict=one.verdict,
            started=one.started,
            last_event_at=one.last_event_at,
            stop=one.stop,
        )
