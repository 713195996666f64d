# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Audit many endpoints: confirm drift after the settle time, and repair it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple

from ..errors import DataplaneError, KernelError
from ..kernel.dataplane import Dataplane, Mode, read_dataplane
from ..kernel.netlink import TcSocket
from ..kernel.snapshot import Reader, Snapshot
from ..model import Endpoint, Judgement, Outlook, Policy, Qdisc, Verdict
from .judge import judge
from .plan import apply_plan
from .repair import Outcome, Repairer, RepairRefused
from .watchdog import Watchdog

#: The most interfaces that an error names.
_MOST_NAMES = 20


class Look(NamedTuple):
    """An endpoint as it was read. ``fresh``: less than the settle time after Felix worked on it."""

    endpoint: Endpoint
    judgement: Judgement
    fresh: bool

    @property
    def is_bad(self) -> bool:
        return self.judgement.drifted or bool(self.judgement.plan)

    @property
    def is_conclusive(self) -> bool:
        """Whether it shows by itself that the endpoint is healthy.

        Felix writes to one hook after the other. Between the two, hooks that differ for good may
        look equal; only the new program at one of them shows that a pass is not over.
        """
        return not self.is_bad and not self.fresh


#: By interface.
Looks = dict[str, Look]


class AuditMode(Enum):
    """What to do with a drifted endpoint. ``PREDICT`` repairs only its model, for check mode."""

    AUDIT = "audit"
    PREDICT = "predict"
    REPAIR = "repair"


@dataclass(frozen=True)
class AuditOptions:
    """The interfaces and what to do; ``interfaces`` and ``exclude`` are shell globs."""

    interfaces: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    policy: Policy = field(default_factory=Policy)
    mode: AuditMode = AuditMode.AUDIT
    #: Seconds before a second look confirms a first one; 0 looks once.
    settle: float = 1.0
    retries: int = 3
    #: Treat a bare endpoint as broken even if the node has no trace of eBPF mode.
    managed: bool = False


@dataclass(frozen=True)
class Audit:
    """``error`` says which repairs failed and why; the outcomes show all that was done."""

    outcomes: tuple[Outcome, ...]
    dataplane: Dataplane
    unread: dict[str, str] = field(default_factory=dict)
    error: DataplaneError | None = None

    @property
    def not_judged(self) -> tuple[str, ...]:
        """What could not be judged, and why. Such an audit does not show that a node is healthy."""
        unread = tuple(f"could not read {what} ({why})" for what, why in self.unread.items())
        return unread if self.dataplane.mode is Mode.EBPF else (self.dataplane.why, *unread)


def audit(
    options: AuditOptions,
    tc: TcSocket,
    reader: Reader,
    sleep: Callable[[float], None] = time.sleep,
    watchdog: Watchdog | None = None,
) -> Audit:
    """Judge every wanted endpoint, read the doubtful ones again, and repair if asked to.

    :param sleep: how to wait; the method of ``watchdog``, if there is one.
    :raises KernelError: the snapshot cannot be read.
    """
    snapshot = reader.read(options.interfaces, options.exclude)
    aside = [vanished(name) for name in snapshot.vanished]
    dataplane = _wanted_mode(options) or read_dataplane(reader, snapshot)
    if dataplane.mode is not Mode.EBPF:
        outcomes = (*map(_unmanaged, snapshot.endpoints), *aside)
        return Audit(outcomes, dataplane, snapshot.unread)
    looks = _looks(options, snapshot, {})
    if options.settle > 0:
        doubtful = {name: look for name, look in looks.items() if not look.is_conclusive}
        confirmed, restless = _confirm(options, reader, doubtful, sleep)
        looks = {**{n: look for n, look in looks.items() if n not in doubtful}, **confirmed}
        aside += restless
    repairer = Repairer(
        tc, reader, options.policy, options.retries, sleep, settle=options.settle, watchdog=watchdog
    )
    if options.mode is not AuditMode.REPAIR:
        unrepaired = [_unrepaired(options, look) for look in looks.values()]
        error = _summed_up(unrepaired, [])
        return Audit((*unrepaired, *aside), dataplane, snapshot.unread, error)
    acted, errors = _repair_all(options, looks, repairer, reader, sleep, watchdog)
    return Audit((*acted, *aside), dataplane, snapshot.unread, _summed_up(acted, errors))


def _wanted_mode(options: AuditOptions) -> Dataplane | None:
    """eBPF mode, if the caller says so."""
    if options.managed or options.policy.attach_type is not None:
        return Dataplane(Mode.EBPF, "the task says so")
    return None


def _looks(options: AuditOptions, snapshot: Snapshot, before: Looks) -> Looks:
    """The endpoints of ``snapshot``; those unchanged since ``before`` are not judged again."""
    found: Looks = {}
    for endpoint in snapshot.endpoints:
        name = endpoint.interface
        last = before.get(name)
        same = last is not None and last.endpoint == endpoint
        judgement = last.judgement if last and same else judge(endpoint, options.policy)
        found[name] = Look(endpoint, judgement, snapshot.is_fresh(name, options.settle))
    return found


def _confirm(
    options: AuditOptions, reader: Reader, doubtful: Looks, sleep: Callable[[float], None]
) -> tuple[Looks, list[Outcome]]:
    """Read the doubtful endpoints again after the settle time: (confirmed, other outcomes)."""
    confirmed: Looks = {}
    aside: list[Outcome] = []
    for _look in range(options.retries + 1):
        if not doubtful:
            break
        sleep(options.settle)
        left: Looks = {}
        again = _looks(options, reader.read_named(doubtful), doubtful)
        for name, before in doubtful.items():
            if name not in again or again[name].endpoint.ifindex != before.endpoint.ifindex:
                aside.append(vanished(name))
            elif _is_confirmed(options, before, again[name]):
                confirmed[name] = again[name]
            else:
                left[name] = again[name]
        doubtful = left
    return confirmed, aside + [_restless(look) for look in doubtful.values()]


def _is_confirmed(options: AuditOptions, before: Look, now: Look) -> bool:
    """Health by a conclusive look, drift by two looks that show it.

    A repair plans only from two equal reads: a Felix between its attach and its deletes would
    delete a filter that the repair moved.
    """
    if not now.is_bad or not before.is_bad:
        return now.is_conclusive
    if options.mode is AuditMode.AUDIT or not now.judgement.plan:
        return True
    return now.endpoint == before.endpoint


def _restless(look: Look) -> Outcome:
    note = (
        "the endpoint changed between any two reads, so it was not judged and nothing was written; "
        "find out what re-attaches its programs (tc_churn_info)"
    )
    return Outcome(
        verdict=Verdict.CONTENDED,
        before=look.endpoint,
        found=look.judgement,
        after=look.endpoint,
        left=look.judgement,
        notes=(note,),
    )


def _unrepaired(options: AuditOptions, look: Look) -> Outcome:
    if options.mode is AuditMode.AUDIT:
        return _as_seen(look)
    return _predicted(look, options.policy) if look.judgement.plan else _not_planned(look)


def _not_planned(look: Look) -> Outcome:
    """Of a repair, or of its prediction: what it does to an endpoint without a plan."""
    return replace(_as_seen(look), error=look.judgement.refusal)


def _repair_all(
    options: AuditOptions,
    looks: Looks,
    repairer: Repairer,
    reader: Reader,
    sleep: Callable[[float], None],
    watchdog: Watchdog | None,
) -> tuple[list[Outcome], list[KernelError]]:
    """Repair the endpoints that have a plan, one after the other, also after one that fails.

    The programs of repaired hooks are held open until the last look. Where the limit of open files
    does not allow that for all, the last look is taken at some of them at a time.

    :returns: the outcomes, and the errors that belong to no endpoint.
    """
    finished: list[Outcome] = []
    errors: list[KernelError] = []
    repaired: list[Outcome] = []

    def finish() -> None:
        try:
            finished.extend(_last_look(options, reader, repaired, sleep, watchdog))
        except KernelError as failed:  # the result must still list the repairs
            errors.append(failed)
            finished.extend(_unseen_last(o, watchdog) for o in repaired)
        repaired.clear()

    for look in looks.values():
        if not look.judgement.plan:
            finished.append(_not_planned(look))
            continue
        if watchdog is not None and watchdog.is_full and repaired:
            finish()
            watchdog.release()
        try:
            repaired.append(repairer.repair(look.endpoint, look.judgement))
        except RepairRefused as refused:
            repaired.append(refused.outcome)
        sleep(0)  # the watchdog reads the changes that others made so far
    finish()
    if watchdog is not None and watchdog.error is not None:
        errors.append(watchdog.error)
    return finished, errors


def _summed_up(outcomes: list[Outcome], errors: list[KernelError]) -> DataplaneError | None:
    """One error for all repairs that failed, and for all that could not be read afterwards."""
    failed = [o for o in outcomes if o.error]
    others = [
        f"{error}. The repairs were made, but not all could be checked: audit the node again"
        for error in errors
    ]
    if len(failed) == 1:
        return DataplaneError("; ".join([failed[0].error, *others]))
    if failed:
        names = ", ".join(o.before.interface for o in failed[:_MOST_NAMES])
        more = f" and {len(failed) - _MOST_NAMES} more" if len(failed) > _MOST_NAMES else ""
        others.insert(
            0,
            f"the repair of {len(failed)} endpoints failed: {names}{more}. That does not affect "
            "the others. `error` of each in `endpoints` says what was done there. The first: "
            f"{failed[0].error}",
        )
    return DataplaneError("; ".join(others)) if others else None


def _last_look(
    options: AuditOptions,
    reader: Reader,
    outcomes: list[Outcome],
    sleep: Callable[[float], None],
    watchdog: Watchdog | None,
) -> list[Outcome]:
    """Judge the endpoints that were written to again after the settle time.

    If Felix works on one that looks drifted, its pass may be half done: they are read once more.
    """
    written = {o.before.interface for o in outcomes if o.after and _is_written(o, watchdog)}
    if not written:
        return list(outcomes)
    now: Looks = {}
    for _look in range(options.retries + 1):
        sleep(options.settle)
        now = _looks(options, reader.read_named(written), now)
        if not any(look.is_bad and look.fresh for look in now.values()):
            break
    return [
        _seen_last(o, now.get(o.before.interface), watchdog) if o.before.interface in written else o
        for o in outcomes
    ]


def _is_written(outcome: Outcome, watchdog: Watchdog | None) -> bool:
    return bool(outcome.done or (watchdog and watchdog.notes(outcome.before.ifindex)))


def _seen_last(outcome: Outcome, look: Look | None, watchdog: Watchdog | None) -> Outcome:
    outcome = _unseen_last(outcome, watchdog)
    if look is None or look.endpoint.ifindex != outcome.before.ifindex:
        return replace(outcome, verdict=Verdict.VANISHED, after=None, left=None)
    now, left = look.endpoint, look.judgement
    notes = watchdog.lost(now) if watchdog else ()
    if left.drifted and outcome.verdict is Verdict.REPAIRED:
        notes += (
            "another process changed it after its repair; audit again once Felix has settled",
        )
    verdict = Verdict.CONTENDED if notes else outcome.verdict
    return replace(outcome, verdict=verdict, after=now, left=left, notes=(*outcome.notes, *notes))


def _unseen_last(outcome: Outcome, watchdog: Watchdog | None) -> Outcome:
    """``outcome`` with what the watchdog did, without another look."""
    ifindex = outcome.before.ifindex
    notes = watchdog.notes(ifindex) if watchdog else ()
    done = watchdog.restored(ifindex) if watchdog else ()
    verdict = Verdict.CONTENDED if notes else outcome.verdict
    return replace(
        outcome, verdict=verdict, done=outcome.done + done, notes=(*outcome.notes, *notes)
    )


def _as_seen(look: Look) -> Outcome:
    return Outcome(
        verdict=Verdict.DRIFTED if look.judgement.drifted else Verdict.CONSISTENT,
        before=look.endpoint,
        found=look.judgement,
        after=look.endpoint,
        left=look.judgement,
    )


def _predicted(look: Look, policy: Policy) -> Outcome:
    """The outcome of an undisturbed repair, by the rules that the repair itself applies."""
    plan = look.judgement.plan
    end = apply_plan(look.endpoint, plan)
    left = judge(end, policy)
    verdict = Verdict.DRIFTED if left.drifted else Verdict.REPAIRED
    return Outcome(
        verdict=verdict,
        before=look.endpoint,
        found=look.judgement,
        after=end,
        left=left,
        done=plan,
    )


def _unmanaged(endpoint: Endpoint) -> Outcome:
    nothing = Judgement((), (), Outlook.OK)
    return Outcome(
        verdict=Verdict.UNMANAGED, before=endpoint, found=nothing, after=endpoint, left=nothing
    )


def vanished(name: str) -> Outcome:
    bare = Endpoint(name, 0, Qdisc.NONE)
    nothing = Judgement((), (), Outlook.OK)
    return Outcome(verdict=Verdict.VANISHED, before=bare, found=nothing, after=None, left=None)
