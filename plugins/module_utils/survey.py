# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking at many endpoints, waiting out what is only passing, and repairing what is not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from glob import escape

from .errors import DataplaneError
from .kernel.netlink import TcSocket
from .kernel.snapshot import Reader, Snapshot
from .model import Endpoint, Judgement, Outlook, Policy, Qdisc, Verdict
from .parity import judge
from .plan import apply_plan
from .repair import Outcome, Repairer, RepairRefused


class Deed(Enum):
    """What becomes of a drifted endpoint. ``PREDICT`` repairs the model of it, for check mode."""

    AUDIT = "audit"
    PREDICT = "predict"
    REPAIR = "repair"


@dataclass(frozen=True)
class Order:
    """What to look at and what to do; ``interfaces`` and ``exclude`` are shell globs."""

    interfaces: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    policy: Policy = field(default_factory=Policy)
    deed: Deed = Deed.AUDIT
    #: Seconds before a second look confirms a first one; 0 looks once.
    settle: float = 1.0
    retries: int = 3
    #: Take a bare endpoint for a broken one even where no endpoint shows any trace of Calico.
    managed: bool = False


@dataclass(frozen=True)
class Survey:
    """``error`` stopped the repairs; the outcomes tell what was done until then."""

    outcomes: tuple[Outcome, ...]
    unread: dict[str, str] = field(default_factory=dict)
    error: DataplaneError | None = None


def survey(
    order: Order, tc: TcSocket, reader: Reader, sleep: Callable[[float], None] = time.sleep
) -> Survey:
    """Judge every wanted endpoint, look again at the suspects, and repair where ordered to.

    :raises KernelError: where the snapshot can't be read.
    """
    snapshot = reader.read(order.interfaces, order.exclude)
    gone = [vanished(name) for name in snapshot.vanished]
    if not _managed(order, snapshot):
        return Survey(tuple(map(_unmanaged, snapshot.endpoints)) + tuple(gone), snapshot.unread)
    judged = {e.interface: (e, judge(e, order.policy)) for e in snapshot.endpoints}
    suspects = {name: e.ifindex for name, (e, j) in judged.items() if j.drifted or j.plan}
    if suspects and order.settle > 0:
        sleep(order.settle)
        again = _second_look(order, reader, suspects)
        for name, ifindex in suspects.items():
            if name in again and again[name][0].ifindex == ifindex:
                judged[name] = again[name]
            else:
                del judged[name]
                gone.append(vanished(name))
    repairer = Repairer(tc, reader, order.policy, order.retries, sleep)
    outcomes, error = _act(order, list(judged.values()), repairer)
    if order.settle > 0:
        outcomes = _last_look(order, reader, outcomes, sleep)
    return Survey(tuple(outcomes + gone), snapshot.unread, error)


def _managed(order: Order, snapshot: Snapshot) -> bool:
    """Whether Calico's BPF dataplane is here at all: no program of its on any endpoint means no."""
    if order.managed or order.policy.attach_type is not None:
        return True
    return any(e.has_ours for e in snapshot.endpoints)


def _second_look(
    order: Order, reader: Reader, suspects: dict[str, int]
) -> dict[str, tuple[Endpoint, Judgement]]:
    again = reader.read([escape(name) for name in suspects])
    return {e.interface: (e, judge(e, order.policy)) for e in again.endpoints}


def _act(
    order: Order, judged: list[tuple[Endpoint, Judgement]], repairer: Repairer
) -> tuple[list[Outcome], DataplaneError | None]:
    outcomes: list[Outcome] = []
    error: DataplaneError | None = None
    for endpoint, judgement in judged:
        if order.deed is Deed.AUDIT or not judgement.plan or error:
            outcomes.append(_as_seen(endpoint, judgement))
        elif order.deed is Deed.PREDICT:
            outcomes.append(_predicted(endpoint, judgement, order.policy))
        else:
            try:
                outcomes.append(repairer.repair(endpoint, judgement))
            except RepairRefused as refused:
                outcomes.append(refused.outcome)
                error = refused
    return outcomes, error


def _last_look(
    order: Order, reader: Reader, outcomes: list[Outcome], sleep: Callable[[float], None]
) -> list[Outcome]:
    """Repaired is what still is after the settle time.

    Felix deletes what it listed before, by priority and handle. Was it in the middle of that while
    a repair moved filters, its delete may come after the repair's last reading.
    """
    repaired = [o.before.interface for o in outcomes if o.verdict is Verdict.REPAIRED]
    if order.deed is not Deed.REPAIR or not repaired:
        return outcomes
    sleep(order.settle)
    now = {e.interface: e for e in reader.read([escape(name) for name in repaired]).endpoints}
    return [
        _seen_last(o, now.get(o.before.interface), order.policy)
        if o.verdict is Verdict.REPAIRED
        else o
        for o in outcomes
    ]


def _seen_last(outcome: Outcome, now: Endpoint | None, policy: Policy) -> Outcome:
    if now is None or now.ifindex != outcome.before.ifindex:
        return replace(outcome, verdict=Verdict.VANISHED, after=None, left=None)
    left = judge(now, policy)
    if not left.drifted:
        return replace(outcome, after=now, left=left)
    note = "someone else wrote to it after its repair; look again once Felix has settled"
    return replace(
        outcome,
        verdict=Verdict.CONTENDED,
        after=now,
        left=left,
        notes=(*outcome.notes, note),
    )


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
