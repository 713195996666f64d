# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking at many endpoints, waiting out what is only passing, and repairing what is not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum

from ..errors import DataplaneError, KernelError
from ..kernel.netlink import TcSocket
from ..kernel.snapshot import Reader, Snapshot
from ..model import Endpoint, Judgement, Outlook, Policy, Qdisc, Verdict
from .judge import judge
from .plan import apply_plan
from .repair import Outcome, Repairer, RepairRefused
from .watchdog import Watchdog

#: Endpoints with what was said of them, by interface.
Judged = dict[str, tuple[Endpoint, Judgement]]


class Mode(Enum):
    """What becomes of a drifted endpoint. ``PREDICT`` repairs the model of it, for check mode."""

    AUDIT = "audit"
    PREDICT = "predict"
    REPAIR = "repair"


@dataclass(frozen=True)
class AuditOptions:
    """What to look at and what to do; ``interfaces`` and ``exclude`` are shell globs."""

    interfaces: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    policy: Policy = field(default_factory=Policy)
    mode: Mode = Mode.AUDIT
    #: Seconds before a second look confirms a first one; 0 looks once.
    settle: float = 1.0
    retries: int = 3
    #: Take a bare endpoint for a broken one even where no endpoint shows any trace of Calico.
    managed: bool = False


@dataclass(frozen=True)
class Audit:
    """``error`` stopped the repairs; the outcomes tell what was done until then."""

    outcomes: tuple[Outcome, ...]
    unread: dict[str, str] = field(default_factory=dict)
    error: DataplaneError | None = None


def audit(
    options: AuditOptions,
    tc: TcSocket,
    reader: Reader,
    sleep: Callable[[float], None] = time.sleep,
    watchdog: Watchdog | None = None,
) -> Audit:
    """Judge every wanted endpoint, look again at the suspects, and repair where ordered to.

    :param sleep: how to wait; with a ``watchdog``, its own.
    :raises KernelError: where the snapshot can't be read.
    """
    snapshot = reader.read(options.interfaces, options.exclude)
    aside = [vanished(name) for name in snapshot.vanished]
    if not _managed(options, snapshot):
        return Audit((*map(_unmanaged, snapshot.endpoints), *aside), snapshot.unread)
    judged = {e.interface: (e, judge(e, options.policy)) for e in snapshot.endpoints}
    if options.settle > 0:
        suspects = {name: seen for name, seen in judged.items() if seen[1].drifted or seen[1].plan}
        confirmed, restless = _confirm(options, reader, suspects, sleep)
        judged = {**{n: s for n, s in judged.items() if n not in suspects}, **confirmed}
        aside += restless
    repairer = Repairer(
        tc, reader, options.policy, options.retries, sleep, settle=options.settle, watchdog=watchdog
    )
    outcomes, error = _act(options, list(judged.values()), repairer, sleep)
    if options.mode is Mode.REPAIR and options.settle > 0:
        try:
            outcomes = _last_look(options, reader, outcomes, sleep, watchdog)
        except KernelError as failed:  # what was repaired must be told all the same
            error = error or failed
    return Audit((*outcomes, *aside), snapshot.unread, error)


def _managed(options: AuditOptions, snapshot: Snapshot) -> bool:
    """Whether Calico's BPF dataplane is here at all: no program of its on any endpoint means no."""
    if options.managed or options.policy.attach_type is not None:
        return True
    return any(e.has_calico for e in snapshot.endpoints)


def _confirm(
    options: AuditOptions, reader: Reader, suspects: Judged, sleep: Callable[[float], None]
) -> tuple[Judged, list[Outcome]]:
    """Look at the suspects again after the settle time: (what is still there, what is not).

    An audit believes the second look. A repair plans only from what has held still between two: a
    Felix between its attach and its deletes would delete what we moved.
    """
    confirmed: Judged = {}
    aside: list[Outcome] = []
    for _look in range(options.retries + 1):
        if not suspects:
            break
        sleep(options.settle)
        moving: Judged = {}
        again = _read_again(options, reader, suspects)
        for name, (before, _judgement) in suspects.items():
            if name not in again or again[name][0].ifindex != before.ifindex:
                aside.append(vanished(name))
            elif options.mode is Mode.AUDIT or again[name][0] == before or not again[name][1].plan:
                confirmed[name] = again[name]
            else:
                moving[name] = again[name]
        suspects = moving
    return confirmed, aside + [_restless(*seen) for seen in suspects.values()]


def _read_again(options: AuditOptions, reader: Reader, seen: Judged) -> Judged:
    """The endpoints of ``seen`` as they are now; what has not changed need not be judged again."""
    again: Judged = {}
    for endpoint in reader.read_named(seen).endpoints:
        before, judgement = seen[endpoint.interface]
        if endpoint != before:
            judgement = judge(endpoint, options.policy)
        again[endpoint.interface] = (endpoint, judgement)
    return again


def _restless(endpoint: Endpoint, judgement: Judgement) -> Outcome:
    note = "it changed between every two looks, so nothing was written; see who re-attaches here"
    return Outcome(Verdict.CONTENDED, endpoint, judgement, endpoint, judgement, notes=(note,))


def _act(
    options: AuditOptions,
    judged: list[tuple[Endpoint, Judgement]],
    repairer: Repairer,
    sleep: Callable[[float], None],
) -> tuple[list[Outcome], DataplaneError | None]:
    outcomes: list[Outcome] = []
    error: DataplaneError | None = None
    for endpoint, judgement in judged:
        if options.mode is Mode.AUDIT or not judgement.plan or error:
            outcomes.append(_as_seen(endpoint, judgement))
        elif options.mode is Mode.PREDICT:
            outcomes.append(_predicted(endpoint, judgement, options.policy))
        else:
            try:
                outcomes.append(repairer.repair(endpoint, judgement))
                sleep(0)  # the watchdog takes note of what others did until here
            except RepairRefused as refused:
                outcomes.append(refused.outcome)
                error = refused
    return outcomes, error


def _last_look(
    options: AuditOptions,
    reader: Reader,
    outcomes: list[Outcome],
    sleep: Callable[[float], None],
    watchdog: Watchdog | None,
) -> list[Outcome]:
    """Repaired is what still is after the settle time."""
    written = {o.before.interface for o in outcomes if o.done and o.after}
    if not written:
        return outcomes
    sleep(options.settle)
    now = {e.interface: e for e in reader.read_named(written).endpoints}
    return [
        _seen_last(o, now.get(o.before.interface), options.policy, watchdog)
        if o.before.interface in written
        else o
        for o in outcomes
    ]


def _seen_last(
    outcome: Outcome, now: Endpoint | None, policy: Policy, watchdog: Watchdog | None
) -> Outcome:
    if now is None or now.ifindex != outcome.before.ifindex:
        return replace(outcome, verdict=Verdict.VANISHED, after=None, left=None)
    left = judge(now, policy)
    notes = watchdog.notes(now) if watchdog else ()
    if left.drifted and outcome.verdict is Verdict.REPAIRED:
        notes += ("someone else wrote to it after its repair; look again once Felix has settled",)
    verdict = Verdict.CONTENDED if notes else outcome.verdict
    return replace(outcome, verdict=verdict, after=now, left=left, notes=(*outcome.notes, *notes))


def _as_seen(endpoint: Endpoint, judgement: Judgement) -> Outcome:
    verdict = Verdict.DRIFTED if judgement.drifted else Verdict.CONSISTENT
    return Outcome(verdict, endpoint, judgement, endpoint, judgement)


def _predicted(endpoint: Endpoint, judgement: Judgement, policy: Policy) -> Outcome:
    """What a repair that nobody disturbs makes of it, by the rules that the repair itself obeys."""
    end = apply_plan(endpoint, judgement.plan)
    left = judge(end, policy)
    verdict = Verdict.DRIFTED if left.drifted else Verdict.REPAIRED
    return Outcome(verdict, endpoint, judgement, end, left, judgement.plan)


def _unmanaged(endpoint: Endpoint) -> Outcome:
    nothing = Judgement((), (), Outlook.OK)
    return Outcome(Verdict.UNMANAGED, endpoint, nothing, endpoint, nothing)


def vanished(name: str) -> Outcome:
    bare = Endpoint(name, 0, Qdisc.NONE)
    nothing = Judgement((), (), Outlook.OK)
    return Outcome(Verdict.VANISHED, bare, nothing, None, None)
