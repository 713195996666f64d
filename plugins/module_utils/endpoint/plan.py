# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan that repairs an endpoint in place. Pure.

The entry point is ``plan``. plan_search.py finds the moves on an endpoint without identities; here
they are given the programs and filters of this endpoint.
"""

from __future__ import annotations

from dataclasses import replace as with_changes
from typing import NamedTuple

from ..model import (
    Action,
    AttachType,
    Endpoint,
    Plan,
    Policy,
    Qdisc,
    Step,
)
from . import kernel_rules
from .findings import attach_type_of, calico_tc, survivor
from .plan_search import changed_filters, copy_of, find_moves, plain, split


class Planned(NamedTuple):
    """``end``: the endpoint after ``steps``. ``unsafe``: no plan can be interrupted safely."""

    steps: Plan
    end: Endpoint
    unsafe: bool


def apply_step(endpoint: Endpoint, step: Step) -> Endpoint:
    """The endpoint after ``step``, by the kernel's rules.

    :raises kernel_rules.Refused: the kernel would refuse the step.
    """
    if step.action is Action.UNPIN:
        pins = tuple(p for p in endpoint.dead_pins if p.path != step.path)
        return with_changes(endpoint, dead_pins=pins)
    if step.filter is None:
        raise ValueError(f"a step without its filter: {step}")
    tcx, filters = split(endpoint.at(step.hook))
    return endpoint.with_hook(step.hook, tcx + changed_filters(filters, step.action, step.filter))


def apply_plan(endpoint: Endpoint, steps: Plan) -> Endpoint:
    for step in steps:
        endpoint = apply_step(endpoint, step)
    return endpoint


def plan(endpoint: Endpoint, policy: Policy) -> Planned:
    """The steps to an endpoint whose outlook is ``ok``, and that endpoint.

    The survivors of both hooks come to one slot. If one hook is bare, only the other can move, to
    where the next pass of Felix makes both equal.
    """
    unpin = tuple(Step(Action.UNPIN, p.hook, None, p.path) for p in endpoint.dead_pins)
    found = find_moves(plain(endpoint), policy) if _movable(endpoint, policy) else None
    moves, end = _with_identities(endpoint, found.steps if found else ())
    return Planned(unpin + moves, apply_plan(end, unpin), found is not None and found.unsafe)


def _movable(endpoint: Endpoint, policy: Policy) -> bool:
    has_filters = endpoint.qdisc is Qdisc.CLSACT and endpoint.has_calico
    return has_filters and attach_type_of(endpoint, policy) is AttachType.TC


def _with_identities(endpoint: Endpoint, moves: Plan) -> tuple[Plan, Endpoint]:
    """The same steps with the filters of ``endpoint``, and the endpoint after them."""
    start, steps = endpoint, []
    for move in moves:
        if move.filter is None:
            raise ValueError(f"a step without its filter: {move}")
        slot = move.filter.slot
        if move.action is Action.DELETE:
            filters = split(endpoint.at(move.hook))[1]
            a = kernel_rules.find(filters, slot, move.filter.chain)
        else:
            a = copy_of(survivor(calico_tc(start.at(move.hook))), slot)
        step = move._replace(filter=a)
        steps.append(step)
        endpoint = apply_step(endpoint, step)
    return tuple(steps), endpoint
