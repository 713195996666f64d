# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an endpoint is in parity, what deviates, and the smallest plan that mends it. Pure.

``judge`` is the door. Its findings and its plan cannot disagree: a finding is called repairable
exactly when the plan's end state, by the kernel's own rules, no longer has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace as with_changes
from itertools import product
from typing import NamedTuple

from . import classifier
from .model import (
    ETH_P_ALL,
    FIRST_AUTO_PRIORITY,
    Action,
    Attachment,
    Attachments,
    AttachType,
    Code,
    Endpoint,
    Era,
    Finding,
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
from .outlook import outlook

HOOKS = (Hook.INGRESS, Hook.EGRESS)
#: tcm_info holds a priority in 16 bits.
_MOST_PRIORITY = 0xFFFF
_WORSE = {Outlook.OK: 0, Outlook.HEALS: 1, Outlook.STUCK: 2}
_CLEAN = Judgement((), (), Outlook.OK)
_REATTACH = (
    "Nothing can be copied in place: Felix must re-attach (restart this node's calico-node pod), "
    "or bpf_endpoint with state=attached puts a program of yours there"
)


def judge(endpoint: Endpoint, policy: Policy) -> Judgement:
    """Everything that one snapshot says of ``endpoint``: findings, plan, outlook."""
    seen = _look(endpoint, policy)
    steps = _plan(endpoint, policy, seen)
    if not steps:
        return seen
    end = _look(apply_plan(endpoint, steps), policy)
    remaining = {(f.code, f.hook) for f in end.findings}
    marked = tuple(
        f if (f.code, f.hook) in remaining else with_changes(f, repairable=True)
        for f in seen.findings
    )
    return Judgement(marked, steps, seen.outlook, seen.felix_message)


def _look(endpoint: Endpoint, policy: Policy) -> Judgement:
    """``judge`` without a plan."""
    if _in_parity(endpoint):
        return _CLEAN
    now, message = outlook(endpoint, policy.era)
    return Judgement(tuple(_findings(endpoint, policy, now)), (), now, message)


def _in_parity(endpoint: Endpoint) -> bool:
    """The healthy endpoint, told apart at once: nearly all of a node's are."""
    if len(endpoint.ingress) != 1 or len(endpoint.egress) != 1:
        return False
    if endpoint.dead_pins or endpoint.empty_prog_arrays:
        return False
    ingress, egress = endpoint.ingress[0], endpoint.egress[0]
    return (
        _as_felix_attaches(ingress)
        and _as_felix_attaches(egress)
        and ingress.attach_type is egress.attach_type
        and ingress.slot == egress.slot
        and (endpoint.qdisc is Qdisc.CLSACT or ingress.attach_type is AttachType.TCX)
    )


def _as_felix_attaches(a: Attachment) -> bool:
    return a.ours and a.direct_action and a.protocol == ETH_P_ALL and not a.chain and not a.legacy


# --- findings ---------------------------------------------------------------------------------


def attach_type_of(endpoint: Endpoint, policy: Policy) -> AttachType:
    """How the endpoint is meant to be attached: the policy's word, else what it uses."""
    if policy.attach_type is not None:
        return policy.attach_type
    types = {a.attach_type for hook in HOOKS for a in endpoint.at(hook) if a.ours}
    return AttachType.TCX if types == {AttachType.TCX} else AttachType.TC


def _findings(endpoint: Endpoint, policy: Policy, now: Outlook) -> Iterator[Finding]:
    """Every deviation of ``endpoint``; ``now`` is its outlook under ``policy``'s era."""
    wanted = attach_type_of(endpoint, policy)
    if wanted is AttachType.TC:
        yield from _qdisc_findings(endpoint)
    yield from _mixed_findings(endpoint, wanted)
    for hook in HOOKS:
        attachments = endpoint.at(hook)
        ours = [a for a in attachments if a.ours and a.attach_type is wanted]
        if not ours:
            if endpoint.qdisc is not Qdisc.NONE or wanted is AttachType.TCX:
                yield _missing(endpoint, hook, wanted, policy, now)
            continue
        yield from _shape_findings(hook, ours)
        yield from _surplus_findings(hook, ours)
        yield from _foreign_first(hook, attachments)
    if wanted is AttachType.TC:
        yield from _slot_findings(endpoint, policy.era, now)
        yield from _taken_findings(endpoint, now)
    for pin in endpoint.dead_pins:
        yield Finding(
            Code.DEAD_PIN,
            pin.hook,
            f"{pin.path} pins a link that is attached to nothing any more; "
            "Felix up to 3.30 does not know it, and 3.31 and later stumble over it",
        )
    for empty in endpoint.empty_prog_arrays:
        yield Finding(
            Code.EMPTY_PROG_ARRAY,
            empty.hook,
            f"program {empty.program_id} jumps through program array {empty.map_name} "
            f"(map {empty.map_id}), which is EMPTY: every tail call fails (calico #6739). "
            + _REATTACH,
        )


def _qdisc_findings(endpoint: Endpoint) -> Iterator[Finding]:
    if endpoint.qdisc is Qdisc.NONE:
        tcx = endpoint.has_ours  # without clsact there is nothing else to be ours
        enforced = "only TCX enforces" if tcx else "NO POLICY IS ENFORCED at either hook"
        yield Finding(Code.MISSING_CLSACT, None, f"no clsact qdisc: {enforced}. {_REATTACH}")
    elif endpoint.qdisc is Qdisc.INGRESS:
        yield Finding(
            Code.INGRESS_QDISC,
            None,
            "an ingress qdisc sits where clsact belongs, so egress CANNOT be enforced; it is not "
            "ours to delete. Find its owner (the bandwidth CNI plugin makes one, calico #7698), "
            "then delete it (tc qdisc del dev IFACE ingress) and let Felix re-attach",
        )


def _mixed_findings(endpoint: Endpoint, wanted: AttachType) -> Iterator[Finding]:
    for hook in HOOKS:
        others = [a for a in endpoint.at(hook) if a.ours and a.attach_type is not wanted]
        if others:
            first = others[0]
            yield Finding(
                Code.MIXED_ATTACH_TYPES,
                hook,
                f"{first} is attached by {first.attach_type.value} where {wanted.value} is "
                "expected; TCX programs run before all filters, so the older of the two may "
                "decide. Felix 3.31 and later end this at their next pass; older ones do not know "
                "TCX: go back to bpfAttachType=TC under 3.31 before the downgrade, or remove it "
                f"with bpf_tc_program (state=absent, attach_type={first.attach_type.value})",
            )


def _missing(
    endpoint: Endpoint, hook: Hook, wanted: AttachType, policy: Policy, now: Outlook
) -> Finding:
    passes = {
        Outlook.OK: "Felix's next pass attaches one",
        Outlook.HEALS: "Felix attaches one after an error or two",
        Outlook.STUCK: f"a Felix of era {policy.era.value} fails for ever as the endpoint stands",
    }[now]
    if now is Outlook.STUCK and policy.spare:
        passes += " (name it with felix_era, and the other hook is moved to where both are mended)"
    if any(a.ours and a.enforces for a in endpoint.at(hook)):
        enforced = "another attach type enforces meanwhile"
    else:
        enforced = "NO POLICY IS ENFORCED at this hook"
    return Finding(
        Code.MISSING_PROGRAM,
        hook,
        f"no {wanted.value} program of Calico's: {enforced}; {passes}. {_REATTACH}",
    )


def _shape_findings(hook: Hook, ours: list[Attachment]) -> Iterator[Finding]:
    for a in ours:
        if a.protocol != ETH_P_ALL:
            yield Finding(
                Code.WRONG_PROTOCOL,
                hook,
                f"{a} sees only protocol 0x{a.protocol:04x}: ALL OTHER PACKETS PASS UNSEEN, and "
                f"Felix cannot attach at pref {a.priority} while it is there",
            )
        if a.chain:
            yield Finding(
                Code.WRONG_CHAIN,
                hook,
                f"{a} is in chain {a.chain}, where NO PACKET MEETS IT; a Felix of era B deletes "
                "its own new filter in its stead",
            )
        if not a.direct_action:
            yield Finding(
                Code.NOT_DIRECT_ACTION,
                hook,
                f"{a} runs without direct-action: ITS VERDICT IS IGNORED",
            )


def _surplus_findings(hook: Hook, ours: list[Attachment]) -> Iterator[Finding]:
    """All of ours but the one that stays: older generations, legacy programs, plain duplicates."""
    stays = keeper(tuple(ours))
    behind = False
    for a in ours:
        if a is stays:
            behind = True
        elif a.legacy:
            yield Finding(Code.LEGACY_PROGRAM, hook, f"{a} was left by Calico 3.26 or older")
        elif not behind and a.enforces and a.program_id != stays.program_id:
            yield Finding(
                Code.STALE_PROGRAM,
                hook,
                f"{a} runs before {stays}, which was loaded later: an OLD POLICY decides first",
            )
        else:
            live = a if not behind and a.enforces else stays
            yield Finding(
                Code.DUPLICATE_PROGRAM,
                hook,
                f"{a} stands beside {stays}; packets meet {live.slot} first (the kernel runs low "
                "priorities first and, inside one, the newest)",
            )
    if stays.legacy:
        yield Finding(
            Code.LEGACY_PROGRAM,
            hook,
            f"{stays} was left by Calico 3.26 or older, and no newer program is there to take "
            "over; Felix's next pass replaces it",
        )


def _foreign_first(hook: Hook, attachments: Attachments) -> Iterator[Finding]:
    for a in attachments:
        if a.ours and a.enforces:
            return
        if not a.ours and a.runs:
            yield Finding(
                Code.FOREIGN_FILTER_FIRST,
                hook,
                f"{a}, which is not Calico's, runs first and may decide the packet; left alone",
                Severity.NOTICE,
            )


def _slot_findings(endpoint: Endpoint, era: Era, now: Outlook) -> Iterator[Finding]:
    ingress, egress = (_ours_tc(endpoint.at(hook)) for hook in HOOKS)
    if not ingress or not egress:
        return
    i, e = keeper(ingress).slot, keeper(egress).slot
    if i == e:
        return
    code = Code.HANDLE_MISMATCH if i.priority == e.priority else Code.PRIORITY_MISMATCH
    if era is Era.D:
        yield Finding(
            code,
            None,
            f"ingress is at {i}, egress at {e}; Felix 3.31 and later do not mind, older ones do",
            Severity.NOTICE,
        )
        return
    ahead = {
        Outlook.OK: "Felix's next pass brings them together",
        Outlook.HEALS: "Felix fails and then heals it",
        Outlook.STUCK: "Felix fails every 10 s, FOR EVER",
    }[now]
    yield Finding(code, None, f"ingress is at {i}, egress at {e}: {ahead}")


def _taken_findings(endpoint: Endpoint, now: Outlook) -> Iterator[Finding]:
    for hook in HOOKS:
        attachments = endpoint.at(hook)
        ours = _ours_tc(attachments)
        would_use = max((a.priority for a in ours), default=FIRST_AUTO_PRIORITY)
        strangers = [
            a
            for a in attachments
            if a.attach_type is AttachType.TC
            and not a.ours
            and not a.chain
            and a.priority in (would_use, FIRST_AUTO_PRIORITY)
        ]
        if strangers:
            yield Finding(
                Code.PRIORITY_TAKEN,
                hook,
                f"{strangers[0]}, which is not Calico's, holds a priority that Felix uses; it is "
                "left alone, and ask its owner to move it below pref 32768",
                Severity.NOTICE if now is Outlook.OK else Severity.DRIFT,
            )


def _ours_tc(attachments: Attachments) -> Attachments:
    return tuple(a for a in attachments if a.ours and a.attach_type is AttachType.TC)


def keeper(ours: Attachments) -> Attachment:
    """Which of several attachments of ours at one hook stays: the one that Felix means to run.

    Felix attaches in one way only, so what is attached so goes before what is not; then the
    latest program, by its load time (its id where that is not known: ids grow, but wrap at 2^31);
    of one program's copies the first, which is the one that packets meet.
    """
    if len(ours) == 1:
        return ours[0]
    return max(
        ours,
        key=lambda a: (_as_felix_attaches(a), not a.legacy, a.runs, a.loaded_at, a.program_id),
    )


# --- plan -------------------------------------------------------------------------------------


def apply_step(endpoint: Endpoint, step: Step) -> Endpoint:
    """The endpoint after ``step``, by the kernel's rules.

    :raises classifier.Refused: where the kernel would refuse the step.
    """
    if step.action is Action.UNPIN:
        pins = tuple(p for p in endpoint.dead_pins if p.path != step.path)
        return with_changes(endpoint, dead_pins=pins)
    if step.filter is None:
        raise ValueError(f"a step without its filter: {step}")
    tcx, filters = _split(endpoint.at(step.hook))
    if step.action is Action.ADD:
        filters = classifier.add(filters, step.filter)
    else:
        filters = classifier.delete(filters, step.filter.slot, step.filter.chain)
    return _with_hook(endpoint, step.hook, tcx + filters)


def apply_plan(endpoint: Endpoint, steps: Plan) -> Endpoint:
    for step in steps:
        endpoint = apply_step(endpoint, step)
    return endpoint


def _with_hook(endpoint: Endpoint, hook: Hook, attachments: Attachments) -> Endpoint:
    e = endpoint
    ingress = attachments if hook is Hook.INGRESS else e.ingress
    egress = attachments if hook is Hook.EGRESS else e.egress
    return Endpoint(
        e.interface, e.ifindex, e.qdisc, ingress, egress, e.dead_pins, e.empty_prog_arrays
    )


def _split(attachments: Attachments) -> tuple[Attachments, Attachments]:
    """(TCX programs, filters)"""
    n = sum(1 for a in attachments if a.attach_type is AttachType.TCX)
    return attachments[:n], attachments[n:]


def _plan(endpoint: Endpoint, policy: Policy, seen: Judgement) -> Plan:
    """The fewest steps to an endpoint that Felix's next passes find ``ok``; () where none are.

    Both hooks' survivors are brought to one slot by adding the running program there before
    anything is deleted. Where one hook is bare, only the other can be moved, to where Felix's
    own next pass makes both equal.
    """
    unpin = tuple(Step(Action.UNPIN, p.hook, None, p.path) for p in endpoint.dead_pins)
    if attach_type_of(endpoint, policy) is not AttachType.TC or not seen.drifted:
        return unpin
    if endpoint.qdisc is not Qdisc.CLSACT or not endpoint.has_ours:
        return unpin
    return unpin + _cheapest_moves(endpoint, policy, seen)


class _Candidate(NamedTuple):
    """One way to mend both hooks; the first in sort order is the smallest move."""

    writes: int
    hooks_touched: int
    priority_distance: int
    slot: Slot
    steps: Plan


def _cheapest_moves(endpoint: Endpoint, policy: Policy, seen: Judgement) -> Plan:
    drift = _drift(seen)
    for candidate in _cheapest_first(endpoint):
        end_state = _end_with_order_kept(endpoint, candidate.steps)
        if end_state is None:
            continue
        end = _look(end_state, policy)
        remaining = _drift(end)
        mends = remaining < drift or (remaining == drift and seen.outlook is not Outlook.OK)
        if end.outlook is Outlook.OK and mends and _spares(endpoint, end_state, policy):
            return candidate.steps
    return ()


def _spares(before: Endpoint, after: Endpoint, policy: Policy) -> bool:
    """Whether no other era that Felix may be of fares worse than before.

    It matters where one hook is bare: era B wants the other hook off handle 1, era C on it.
    """
    return all(
        _WORSE[outlook(after, era)[0]] <= _WORSE[outlook(before, era)[0]] for era in policy.spare
    )


def _cheapest_first(endpoint: Endpoint) -> Iterator[_Candidate]:
    """All candidates; a slot that one hook already uses is never dearer than one that none does."""
    in_use = {a.slot for h in HOOKS for a in _ours_tc(endpoint.at(h))}
    yield from sorted(_candidates(endpoint, in_use))
    yield from sorted(_candidates(endpoint, _slots_beside(endpoint) - in_use))


def _drift(seen: Judgement) -> set[tuple[Code, Hook | None]]:
    return {(f.code, f.hook) for f in seen.findings if f.severity is Severity.DRIFT}


def _candidates(endpoint: Endpoint, slots: Iterable[Slot]) -> Iterator[_Candidate]:
    hooks = {h: _split(endpoint.at(h))[1] for h in HOOKS}
    survivors = {h: keeper(_ours_tc(f)) for h, f in hooks.items() if _ours_tc(f)}
    if any(s.program_id == 0 for s in survivors.values()):
        return
    for slot in slots:
        ways = (_hook_steps(h, hooks[h], s, slot) for h, s in survivors.items())
        for way in product(*ways):
            steps = tuple(step for moves in way for step in moves)
            touched = len({step.hook for step in steps})
            distance = abs(slot.priority - FIRST_AUTO_PRIORITY)
            yield _Candidate(len(steps), touched, distance, slot, steps)


def _slots_beside(endpoint: Endpoint) -> set[Slot]:
    """Every slot worth trying besides those in use: their neighbours, and Felix's first choice."""
    used = [a for h in HOOKS for a in endpoint.at(h) if a.attach_type is AttachType.TC]
    priorities = {FIRST_AUTO_PRIORITY}
    for a in used:
        priorities |= {a.priority - 1, a.priority, a.priority + 1}
    handles = {1, 2, 3} | {a.handle for a in used if a.ours}
    return {Slot(p, h) for p, h in product(priorities, handles) if 0 < p <= _MOST_PRIORITY}


def _hook_steps(
    hook: Hook, filters: Attachments, survivor: Attachment, slot: Slot
) -> Iterator[Plan]:
    """The ways to leave just the survivor's program, at ``slot``, without a bare moment.

    The program is added at its new place before anything goes. If another filter of ours still
    holds that place, the program waits at a third one meanwhile.
    """
    ours = tuple(f for f in filters if f.ours)
    there = classifier.find(filters, slot)
    if there and _as_felix_attaches(there) and there.program_id == survivor.program_id:
        yield tuple(_delete(hook, f) for f in ours if f is not there)
        return
    goal = _copy(survivor, slot)
    deletes = tuple(_delete(hook, f) for f in ours)
    if there is None and classifier.admits(filters, slot.priority):
        yield (_add(hook, goal), *deletes)
        return
    strangers = tuple(f for f in filters if not f.ours)
    if classifier.find(strangers, slot) or not classifier.admits(strangers, slot.priority):
        return
    for place in _waiting_places(filters, slot):
        waiting = _copy(survivor, place)
        yield (_add(hook, waiting), *deletes, _add(hook, goal), _delete(hook, waiting))


def _waiting_places(filters: Attachments, slot: Slot) -> Iterator[Slot]:
    """Free places beside ``slot``: at its priority, or at the next free one on either side."""
    if classifier.admits(filters, slot.priority):
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
    """The endpoint after ``steps``; None if a stranger before or behind our program changes sides.

    Its place is held at every step: packets must not meet the two in another order meanwhile.
    """
    before = {h: _strangers_first(endpoint.at(h)) for h in HOOKS}
    for step in steps:
        endpoint = apply_step(endpoint, step)
        if before[step.hook] not in (None, _strangers_first(endpoint.at(step.hook))):
            return None
    return endpoint


def _strangers_first(attachments: Attachments) -> Attachments | None:
    """The strangers' filters that packets meet before our program; None where none of ours runs."""
    ours = tuple(a for a in _ours_tc(attachments) if a.runs)
    if not ours:
        return None
    end = attachments.index(keeper(ours))
    return tuple(a for a in attachments[:end] if not a.ours and a.runs)
