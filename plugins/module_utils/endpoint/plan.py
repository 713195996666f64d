# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The smallest plan that repairs an endpoint in place. Pure.

The entry point is ``plan``. It searches all ways to move the running programs of both hooks to one
slot, and takes the cheapest one that is correct by the kernel's own rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace as with_changes
from itertools import product
from typing import NamedTuple

from ..model import (
    ETH_P_ALL,
    FIRST_AUTO_PRIORITY,
    HOOKS,
    Action,
    Attachment,
    Attachments,
    AttachType,
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
from .findings import as_felix_attaches, assess, attach_type_of, calico_tc, survivor
from .outlook import predict

#: tcm_info holds a priority in 16 bits.
_MOST_PRIORITY = 0xFFFF


def apply_step(endpoint: Endpoint, step: Step) -> Endpoint:
    """The endpoint after ``step``, by the kernel's rules.

    :raises kernel_rules.Refused: the kernel would refuse the step.
    """
    if step.action is Action.UNPIN:
        pins = tuple(p for p in endpoint.dead_pins if p.path != step.path)
        return with_changes(endpoint, dead_pins=pins)
    if step.filter is None:
        raise ValueError(f"a step without its filter: {step}")
    tcx, filters = _split(endpoint.at(step.hook))
    if step.action is Action.ADD:
        filters = kernel_rules.add(filters, step.filter)
    else:
        filters = kernel_rules.delete(filters, step.filter.slot, step.filter.chain)
    return endpoint.with_hook(step.hook, tcx + filters)


def apply_plan(endpoint: Endpoint, steps: Plan) -> Endpoint:
    for step in steps:
        endpoint = apply_step(endpoint, step)
    return endpoint


def _split(attachments: Attachments) -> tuple[Attachments, Attachments]:
    """(TCX programs, filters)"""
    n = sum(1 for a in attachments if a.attach_type is AttachType.TCX)
    return attachments[:n], attachments[n:]


def plan(endpoint: Endpoint, policy: Policy, seen: Judgement) -> tuple[Plan, Endpoint]:
    """The fewest steps to an endpoint whose outlook is ``ok``, and that endpoint.

    The survivors of both hooks move to one slot: the running program is added there before anything
    is deleted. If one hook is bare, only the other can move, to where the next pass of Felix makes
    both equal.
    """
    unpin = tuple(Step(Action.UNPIN, p.hook, None, p.path) for p in endpoint.dead_pins)
    moves: Plan = ()
    end = endpoint
    if _movable(endpoint, policy):
        moves, end = _cheapest_moves(endpoint, policy, seen)
    return unpin + moves, apply_plan(end, unpin)


def _movable(endpoint: Endpoint, policy: Policy) -> bool:
    has_filters = endpoint.qdisc is Qdisc.CLSACT and endpoint.has_calico
    return has_filters and attach_type_of(endpoint, policy) is AttachType.TC


class _Candidate(NamedTuple):
    """One way to repair both hooks; the first in sort order is the smallest move."""

    writes: int
    hooks_touched: int
    priority_distance: int
    slot: Slot
    steps: Plan


def _cheapest_moves(endpoint: Endpoint, policy: Policy, seen: Judgement) -> tuple[Plan, Endpoint]:
    drift = _drift(seen)
    for candidate in _cheapest_first(endpoint):
        end_state = _end_with_order_kept(endpoint, candidate.steps)
        if end_state is None:
            continue
        end = assess(end_state, policy)
        remaining = _drift(end)
        improves = remaining < drift or (remaining == drift and seen.outlook is not Outlook.OK)
        if end.outlook is Outlook.OK and improves and _is_safe(endpoint, end_state, policy):
            return candidate.steps, end_state
    return (), endpoint


def _is_safe(before: Endpoint, after: Endpoint, policy: Policy) -> bool:
    """Whether the outlook is no worse for any other behaviour that Felix may have.

    This matters if one hook is bare: add_then_delete needs a handle other than 1 at the other hook,
    replace_and_compare needs handle 1.
    """
    for behaviour in policy.also_safe_for:
        end, _message = predict(after, behaviour)
        if end.severity > predict(before, behaviour)[0].severity:
            return False
    return True


def _cheapest_first(endpoint: Endpoint) -> Iterator[_Candidate]:
    """All candidates in order; those at unused slots are computed only if they are needed.

    A slot that no hook uses costs an add and all deletes at each hook. Candidates that cost no more
    need not be compared with it.
    """
    attached = [calico_tc(endpoint.at(h)) for h in HOOKS]
    in_use = {a.slot for attachments in attached for a in attachments}
    elsewhere = sum(1 + len(attachments) for attachments in attached if attachments)
    near = sorted(_candidates(endpoint, in_use))
    yield from (c for c in near if c.writes <= elsewhere)
    beside = _candidates(endpoint, _slots_beside(endpoint) - in_use)
    yield from sorted([*(c for c in near if c.writes > elsewhere), *beside])


def _drift(seen: Judgement) -> set[tuple[Code, Hook | None]]:
    return {(f.code, f.hook) for f in seen.findings if f.severity is Severity.DRIFT}


def _candidates(endpoint: Endpoint, slots: Iterable[Slot]) -> Iterator[_Candidate]:
    hooks = {h: _split(endpoint.at(h))[1] for h in HOOKS}
    survivors = {h: survivor(calico_tc(f)) for h, f in hooks.items() if calico_tc(f)}
    if any(s.program_id == 0 for s in survivors.values()):
        return
    for slot in slots:
        ways = (_hook_steps(h, hooks[h], s, slot) for h, s in survivors.items())
        for way in product(*ways):
            steps = tuple(step for moves in way for step in moves)
            touched = len({step.hook for step in steps})
            distance = abs(slot.priority - FIRST_AUTO_PRIORITY)
            yield _Candidate(
                writes=len(steps),
                hooks_touched=touched,
                priority_distance=distance,
                slot=slot,
                steps=steps,
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

    The program is added at its new place before anything is deleted. If another filter of Calico
    has that place, a copy of the program is attached at a third place until the filter is deleted.
    """
    attached = tuple(f for f in filters if f.calico)
    current = kernel_rules.find(filters, slot)
    if current and as_felix_attaches(current) and current.program_id == survivor.program_id:
        yield tuple(_delete(hook, f) for f in attached if f is not current)
        return
    goal = _copy(survivor, slot)
    deletes = tuple(_delete(hook, f) for f in attached)
    if current is None and kernel_rules.admits(filters, slot.priority):
        yield (_add(hook, goal), *deletes)
        return
    foreign = tuple(f for f in filters if not f.calico)
    if kernel_rules.find(foreign, slot) or not kernel_rules.admits(foreign, slot.priority):
        return
    for place in _waiting_places(filters, slot):
        waiting = _copy(survivor, place)
        yield (_add(hook, waiting), *deletes, _add(hook, goal), _delete(hook, waiting))


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


def _copy(survivor: Attachment, slot: Slot) -> Attachment:
    """The same program under the same name, attached as Felix attaches."""
    return survivor._replace(
        priority=slot.priority,
        handle=slot.handle,
        direct_action=True,
        protocol=ETH_P_ALL,
        chain=0,
    )


def _add(hook: Hook, a: Attachment) -> Step:
    return Step(Action.ADD, hook, a)


def _delete(hook: Hook, a: Attachment) -> Step:
    return Step(Action.DELETE, hook, a)


def _end_with_order_kept(endpoint: Endpoint, steps: Plan) -> Endpoint | None:
    """The endpoint after ``steps``; None if the order of ours and a foreign filter changes.

    The order is checked after every step, because packets pass the filters at any time.
    """
    before = {h: _foreign_first(endpoint.at(h)) for h in HOOKS}
    for step in steps:
        endpoint = apply_step(endpoint, step)
        if before[step.hook] not in (None, _foreign_first(endpoint.at(step.hook))):
            return None
    return endpoint


def _foreign_first(attachments: Attachments) -> Attachments | None:
    """Foreign filters that packets reach before Calico's program; None if that does not run."""
    attached = tuple(a for a in calico_tc(attachments) if a.runs)
    if not attached:
        return None
    end = attachments.index(survivor(attached))
    return tuple(a for a in attachments[:end] if not a.calico and a.runs)
