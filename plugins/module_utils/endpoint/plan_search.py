# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The search for the moves of a plan. Pure.

The entry point is ``find_moves``. It takes an endpoint without identities (``plain``), so that the
many endpoints of a node that have the same shape are searched once.

A repair may be killed after any step. So a plan is chosen by what Felix makes of the endpoint after
each step: no outlook may be worse than at the start, for any behaviour. If no plan achieves that,
the one with the least harm is taken, provided that a later run can finish the repair from the state
after every step, however often Felix re-attaches in between. Otherwise there is no plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from itertools import product
from typing import NamedTuple

from ..model import (
    ETH_P_ALL,
    FIRST_AUTO_PRIORITY,
    HOOKS,
    LEGACY,
    PREAMBLE,
    Action,
    Attachment,
    Attachments,
    AttachType,
    Behaviour,
    Code,
    Endpoint,
    Hook,
    Judgement,
    Outlook,
    Plan,
    Policy,
    Qdisc,
    Severity,
    Slot,
    Step,
)
from . import kernel_rules
from .findings import as_felix_attaches, assess, calico_tc, survivor
from .outlook import FelixError, felix_pass, predict

#: tcm_info holds a priority in 16 bits.
_MOST_PRIORITY = 0xFFFF
#: A program that a replayed pass of Felix attaches is newer than all others.
_NEW_PROGRAM = 1 << 31
#: Behaviours whose passes come between two runs. add_without_compare is left out: it fails only
#: where no priority is left, and each of its passes leads to another state.
_BETWEEN_RUNS = (Behaviour.ADD_THEN_DELETE, Behaviour.REPLACE_AND_COMPARE, Behaviour.REPLACE)

#: How many states one search considers; a few hundredths of a second each at worst.
_MOST_STATES = 100

#: How many states between the steps are stuck, alternating, healing where the start was better:
#: first for the behaviours of the policy, then for the others.
Harm = tuple[int, ...]
_HARMLESS: Harm = (0,) * 6


class Found(NamedTuple):
    """``steps``: on the plain endpoint. ``unsafe``: there are plans, but a kill may ruin each."""

    steps: Plan
    unsafe: bool = False


class _Way(NamedTuple):
    """The steps at one hook, and its attachments before the first and after each."""

    steps: Plan
    states: tuple[Attachments, ...]


class _Option(NamedTuple):
    """A way to repair both hooks, with the states after each step."""

    steps: Plan
    states: tuple[Endpoint, ...]
    harm: Harm


def plain(endpoint: Endpoint) -> Endpoint:
    """``endpoint`` without what no plan depends on: identities, dead pins, empty program arrays."""
    return Endpoint(
        interface="",
        ifindex=0,
        qdisc=endpoint.qdisc,
        ingress=_plain_hook(endpoint.ingress),
        egress=_plain_hook(endpoint.egress),
    )


def _plain_hook(attachments: Attachments) -> Attachments:
    """Programs of Calico are numbered by their age; 0 stays for one that has no id."""
    ages = sorted({(a.loaded_at, a.program_id) for a in attachments if a.calico and a.program_id})
    rank = {age: n for n, age in enumerate(ages, 1)}
    return tuple(
        [_plain_attachment(a, rank.get((a.loaded_at, a.program_id), 0)) for a in attachments]
    )


def _plain_attachment(a: Attachment, number: int) -> Attachment:
    name = PREAMBLE if PREAMBLE in a.name else LEGACY if LEGACY in a.name else ""
    number = number if a.calico else 0
    return a._replace(program_id=number, loaded_at=number, name=name, tag="", link_id=0)


@lru_cache(maxsize=4096)
def find_moves(endpoint: Endpoint, policy: Policy) -> Found:
    """The least harmful moves, then the fewest, to an endpoint whose outlook is ``ok``."""
    options = _options(endpoint, policy)
    safe = _recovery(policy).first_covered(options)
    if safe is not None:
        return Found(safe.steps)
    best = next(iter(options), None)
    if best is not None and best.harm == _HARMLESS:
        return Found(best.steps)
    return Found((), unsafe=best is not None)


# --- what comes after a kill ----------------------------------------------------------------------


class _Recovery:
    """Which states a run of ``policy`` can bring to ``ok``.

    That is the largest set in which each state is ``ok``, or has a harmless plan, or has another
    plan all of whose intermediate states, and what passes of Felix make of them, are in the set.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._in: set[Endpoint] = set()
        self._out: set[Endpoint] = set()

    def first_covered(self, options: Iterable[_Option]) -> _Option | None:
        """None also where the search takes too long: what is not shown to be safe is not done."""
        budget = iter(range(_MOST_STATES))
        for option in options:
            if all(self._has(state, budget) for state in self._needs(option)):
                return option
        return None

    def _needs(self, option: _Option) -> set[Endpoint]:
        return {
            later
            for state in option.states
            for behaviour in _BETWEEN_RUNS
            for later in _passes_from(state, behaviour)
            if _severities(later.ingress, later.egress)[self._policy.behaviour]
        }

    def _has(self, state: Endpoint, budget: Iterator[int]) -> bool:
        """Assume that every new state is in the set, until one turns out to have no plan."""
        needs: dict[Endpoint, set[Endpoint]] = {}
        todo = [state]
        while todo:
            now = todo.pop()
            if now in self._in or now in self._out or now in needs:
                continue
            if next(budget, None) is None:
                return False
            for option in _options(now, self._policy):
                if option.harm == _HARMLESS:
                    self._in.add(now)
                    break
                needed = self._needs(option)
                if needed.isdisjoint(self._out):
                    needs[now] = needed
                    todo += needed
                    break
            else:
                self._out.add(now)
                doubtful = [other for other, needed in needs.items() if now in needed]
                for other in doubtful:
                    del needs[other]
                todo += doubtful
        self._in |= needs.keys()
        return state in self._in


@cache
def _recovery(policy: Policy) -> _Recovery:
    return _Recovery(policy)


@lru_cache(maxsize=1 << 14)
def _passes_from(state: Endpoint, behaviour: Behaviour) -> tuple[Endpoint, ...]:
    """``state``, and the states after each number of passes."""
    states = [state]
    while True:
        for hook in HOOKS:
            state = state.with_hook(hook, _one_pass(state.at(hook), behaviour, hook))
        state = plain(state)
        if state in states:
            return tuple(states)
        states.append(state)


def _one_pass(attachments: Attachments, behaviour: Behaviour, hook: Hook) -> Attachments:
    tcx, filters = split(attachments)
    try:
        after, _slot = felix_pass(filters, behaviour, hook)
    except FelixError as failed:
        after = failed.filters
    return tcx + tuple(
        f._replace(program_id=_NEW_PROGRAM, loaded_at=_NEW_PROGRAM)
        if f.calico and f not in filters
        else f
        for f in after
    )


# --- all plans, the best first --------------------------------------------------------------------


class _Memo:
    """An iterator that can be read again from its start."""

    def __init__(self, source: Iterator[_Option]) -> None:
        self._source = source
        self._read: list[_Option] = []

    def __iter__(self) -> Iterator[_Option]:
        n = 0
        while True:
            if n == len(self._read):
                following = next(self._source, None)
                if following is None:
                    return
                self._read.append(following)
            yield self._read[n]
            n += 1


@lru_cache(maxsize=4096)
def _options(endpoint: Endpoint, policy: Policy) -> _Memo:
    return _Memo(_best_first(endpoint, policy))


def _best_first(endpoint: Endpoint, policy: Policy) -> Iterator[_Option]:
    """The plans to a better endpoint: the harmless ones first, the cheapest first."""
    seen = assess(endpoint, policy)
    harmful = []
    for ways in _cheapest_first(endpoint):
        if not _improves(endpoint, seen, ways, policy):
            continue
        option = _least_harmful_order(endpoint, ways, policy)
        if option.harm == _HARMLESS:
            yield option
        else:
            harmful.append(option)
    yield from sorted(harmful, key=lambda option: option.harm)


def _improves(endpoint: Endpoint, seen: Judgement, ways: tuple[_Way, _Way], policy: Policy) -> bool:
    """Whether the outlook becomes ``ok``, without a new finding, and worse for no behaviour."""
    after = endpoint
    for hook, way in zip(HOOKS, ways):
        after = after.with_hook(hook, way.states[-1])
    was = _severities(endpoint.ingress, endpoint.egress)
    now = _severities(after.ingress, after.egress)
    if now[policy.behaviour] or any(now[b] > was[b] for b in policy.also_safe_for):
        # If one hook is bare, add_then_delete needs a handle other than 1 at the other hook,
        # replace_and_compare needs handle 1.
        return False
    drift, remaining = _drift(seen), _drift(assess(after, policy))
    return remaining < drift or (remaining == drift and seen.outlook is not Outlook.OK)


def _drift(seen: Judgement) -> set[tuple[Code, Hook | None]]:
    return {(f.code, f.hook) for f in seen.findings if f.severity is Severity.DRIFT}


def _least_harmful_order(endpoint: Endpoint, ways: tuple[_Way, _Way], policy: Policy) -> _Option:
    """Both ways, each in its order, interleaved; of equals, ingress first.

    The shortest path over the grid of (steps done at ingress, steps done at egress).
    """
    ingress, egress = ways
    start = (0, 0)
    #: The least harm up to a point of the grid, and the point before it.
    best: dict[tuple[int, int], tuple[Harm, tuple[int, int]]] = {start: (_HARMLESS, start)}
    for i, j in product(range(len(ingress.states)), range(len(egress.states))):
        if (i, j) == start:
            continue
        before = min(
            [(i, j - 1)] * (j > 0) + [(i - 1, j)] * (i > 0), key=lambda point: best[point][0]
        )
        here = _harm(endpoint, ingress.states[i], egress.states[j], policy)
        best[i, j] = (tuple(a + b for a, b in zip(best[before][0], here)), before)
    point = (len(ingress.steps), len(egress.steps))
    harm = best[point][0]
    steps: list[Step] = []
    states: list[Endpoint] = []
    while point != start:
        i, j = point
        before = best[point][1]
        steps.append(egress.steps[j - 1] if before[0] == i else ingress.steps[i - 1])
        at_ingress = endpoint.with_hook(Hook.INGRESS, ingress.states[i])
        states.append(at_ingress.with_hook(Hook.EGRESS, egress.states[j]))
        point = before
    return _Option(tuple(steps[::-1]), tuple(states[::-1]), harm)


def _harm(start: Endpoint, ingress: Attachments, egress: Attachments, policy: Policy) -> Harm:
    was, now = _severities(start.ingress, start.egress), _severities(ingress, egress)
    if now == was:
        return _HARMLESS
    harm = [0] * 6
    for behaviour in Behaviour:
        if now[behaviour] > was[behaviour]:
            own = behaviour is policy.behaviour or behaviour in policy.also_safe_for
            harm[(0 if own else 3) + Outlook.STUCK.severity - now[behaviour]] += 1
    return tuple(harm)


@lru_cache(maxsize=1 << 15)
def _severities(ingress: Attachments, egress: Attachments) -> Mapping[Behaviour, int]:
    """How grave the outlook of a plain endpoint with clsact is, for each behaviour."""
    state = Endpoint("", 0, Qdisc.CLSACT, ingress, egress)
    return {behaviour: predict(state, behaviour)[0].severity for behaviour in Behaviour}


class _Candidate(NamedTuple):
    """One way to repair both hooks; the first in sort order is the smallest move."""

    writes: int
    hooks_touched: int
    priority_distance: int
    slot: Slot
    ways: tuple[_Way, _Way]


def _cheapest_first(endpoint: Endpoint) -> Iterator[tuple[_Way, _Way]]:
    """All candidates in order; those at unused slots are computed only if they are needed.

    A slot that no hook uses costs an add and all deletes at each hook. Candidates that cost no more
    need not be compared with it.
    """
    attached = [calico_tc(endpoint.at(h)) for h in HOOKS]
    in_use = {a.slot for attachments in attached for a in attachments}
    elsewhere = sum(1 + len(attachments) for attachments in attached if attachments)
    near = sorted(_candidates(endpoint, in_use), key=_size)
    yield from (c.ways for c in near if c.writes <= elsewhere)
    beside = _candidates(endpoint, _slots_beside(endpoint) - in_use)
    far = [*(c for c in near if c.writes > elsewhere), *beside]
    yield from (c.ways for c in sorted(far, key=_size))


def _size(candidate: _Candidate) -> tuple[object, ...]:
    return candidate[:4]


def _candidates(endpoint: Endpoint, slots: Iterable[Slot]) -> Iterator[_Candidate]:
    hooks = {h: split(endpoint.at(h)) for h in HOOKS}
    survivors = {h: survivor(calico_tc(f)) for h, (_tcx, f) in hooks.items() if calico_tc(f)}
    if any(s.program_id == 0 for s in survivors.values()):
        return
    for slot in slots:
        at_hooks = []
        for hook, (tcx, filters) in hooks.items():
            plans = _hook_steps(hook, filters, survivors[hook], slot) if hook in survivors else [()]
            ways = (_way_with_order_kept(tcx, filters, steps) for steps in plans)
            at_hooks.append([way for way in ways if way is not None])
        for ingress, egress in product(*at_hooks):
            yield _Candidate(
                writes=len(ingress.steps) + len(egress.steps),
                hooks_touched=bool(ingress.steps) + bool(egress.steps),
                priority_distance=abs(slot.priority - FIRST_AUTO_PRIORITY),
                slot=slot,
                ways=(ingress, egress),
            )


def _slots_beside(endpoint: Endpoint) -> set[Slot]:
    """The slots to try besides those in use: their neighbours, and Felix's first choice."""
    used = [a for h in HOOKS for a in endpoint.at(h) if a.attach_type is AttachType.TC]
    priorities = {FIRST_AUTO_PRIORITY}
    for a in used:
        priorities |= {a.priority - 1, a.priority, a.priority + 1}
    handles = {1, 2, 3} | {a.handle for a in used if a.calico}
    return {Slot(p, h) for p, h in product(priorities, handles) if 0 < p <= _MOST_PRIORITY}


def _hook_steps(
    hook: Hook, filters: Attachments, survivor: Attachment, slot: Slot
) -> Iterator[Plan]:
    """The ways to keep only the survivor's program, at ``slot``, without ever a bare hook.

    A filter of Calico that has this place is replaced; else the program is added there before
    anything is deleted. If a filter of another protocol has the place, a copy of the program is
    attached at a third place until that filter is deleted.
    """
    attached = tuple(f for f in filters if f.calico)
    current = kernel_rules.find(filters, slot)
    goal = copy_of(survivor, slot)
    first: Plan | None = None
    if current and as_felix_attaches(current) and current.program_id == survivor.program_id:
        first = ()
    elif current and current.calico and kernel_rules.admits(filters, slot.priority):
        first = (Step(Action.REPLACE, hook, goal),)
    elif current is None and kernel_rules.admits(filters, slot.priority):
        first = (Step(Action.ADD, hook, goal),)
    if first is not None:
        kept = current if current and current.calico else None
        deletes = tuple(Step(Action.DELETE, hook, f) for f in attached if f is not kept)
        for order in dict.fromkeys((deletes, deletes[::-1])):
            yield (*first, *order)
        return
    foreign = tuple(f for f in filters if not f.calico)
    if kernel_rules.find(foreign, slot) or not kernel_rules.admits(foreign, slot.priority):
        return
    deletes = tuple(Step(Action.DELETE, hook, f) for f in attached)
    for place in _waiting_places(filters, slot):
        waiting = copy_of(survivor, place)
        yield (
            Step(Action.ADD, hook, waiting),
            *deletes,
            Step(Action.ADD, hook, goal),
            Step(Action.DELETE, hook, waiting),
        )


def _waiting_places(filters: Attachments, slot: Slot) -> Iterator[Slot]:
    """Free places beside ``slot``: at its priority, or at the next free one on either side."""
    if kernel_rules.admits(filters, slot.priority):
        taken = {f.handle for f in filters if f.priority == slot.priority} | {slot.handle}
        yield Slot(slot.priority, min(set(range(1, len(taken) + 2)) - taken))
        return
    used = {f.priority for f in filters}
    for beside in (range(slot.priority - 1, 0, -1), range(slot.priority + 1, _MOST_PRIORITY + 1)):
        free = next((p for p in beside if p not in used), None)
        if free is not None:
            yield Slot(free, 1)


def _way_with_order_kept(tcx: Attachments, filters: Attachments, steps: Plan) -> _Way | None:
    """None if the order of Calico's program and a foreign filter changes.

    The order is checked after every step, because packets pass the filters at any time.
    """
    states = [tcx + filters]
    before = _foreign_first(states[0])
    for step in steps:
        if step.filter is None:
            raise ValueError(f"a step without its filter: {step}")
        filters = changed_filters(filters, step.action, step.filter)
        states.append(tcx + filters)
        if before is not None and before != _foreign_first(states[-1]):
            return None
    return _Way(steps, tuple(states))


def _foreign_first(attachments: Attachments) -> Attachments | None:
    """Foreign filters that packets reach before Calico's program; None if that does not run."""
    attached = tuple(a for a in calico_tc(attachments) if a.runs)
    if not attached:
        return None
    end = attachments.index(survivor(attached))
    return tuple(a for a in attachments[:end] if not a.calico and a.runs)


# --- steps ----------------------------------------------------------------------------------------


def split(attachments: Attachments) -> tuple[Attachments, Attachments]:
    """(TCX programs, filters)"""
    n = sum(1 for a in attachments if a.attach_type is AttachType.TCX)
    return attachments[:n], attachments[n:]


def changed_filters(filters: Attachments, action: Action, a: Attachment) -> Attachments:
    """:raises kernel_rules.Refused: the kernel would refuse the step."""
    if action is Action.ADD:
        return kernel_rules.add(filters, a)
    if action is Action.REPLACE:
        return kernel_rules.change(filters, a)
    return kernel_rules.delete(filters, a.slot, a.chain)


def copy_of(program: Attachment, slot: Slot) -> Attachment:
    """The same program under the same name at ``slot``, attached as Felix attaches."""
    return program._replace(
        priority=slot.priority,
        handle=slot.handle,
        direct_action=True,
        protocol=ETH_P_ALL,
        chain=0,
    )
