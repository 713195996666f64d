# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The deviations of an endpoint, and their effect on its packets. Pure.

The entry point is ``assess``.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..model import (
    ETH_P_ALL,
    FIRST_AUTO_PRIORITY,
    HOOKS,
    Attachment,
    Attachments,
    AttachType,
    Behaviour,
    Code,
    Endpoint,
    Finding,
    Hook,
    Judgement,
    Outlook,
    Policy,
    Qdisc,
    Severity,
    Target,
    named_by_calico,
)
from .outlook import predict

_CLEAN = Judgement((), (), Outlook.OK)
_REATTACH = (
    "There is no program to copy: restart this node's calico-node pod, so that Felix attaches one, "
    "or attach your own program (bpf_endpoint, state=attached)"
)
_RELOAD = (
    "A program failed to load: felix_info returns libbpf's lines (log.load_failures). Remove the "
    "cause, then restart this node's calico-node pod"
)
_NO_POLICY = "A host interface without policy has none; for a workload interface this is a fault"
_DROPPED = {
    Target.MAIN: "EVERY PACKET IS DROPPED at this hook",
    Target.POLICY: "EVERY NEW FLOW IS DROPPED at this hook",
    Target.OTHER: "the packets that need it ARE DROPPED at this hook",
}
#: Felix's default InterfacePrefix.
_WORKLOADS = "cali"


def assess(endpoint: Endpoint, policy: Policy) -> Judgement:
    """The findings and the outlook of ``endpoint``; plan.py makes its plan."""
    if _in_parity(endpoint, policy):
        return _CLEAN
    now, message = predict(endpoint, policy.behaviour)
    findings = tuple(_findings(endpoint, policy, now))
    if now.lasts and not any(f.severity is Severity.DRIFT for f in findings):
        findings += (_felix_fails(now, message or ""),)
    return Judgement(findings, (), now, message)


def _felix_fails(now: Outlook, message: str) -> Finding:
    """An endpoint that Felix fails on for good is drifted, also if no other finding says why."""
    when = "every pass" if now is Outlook.STUCK else "every second pass or so"
    return Finding(
        Code.FELIX_FAILS,
        None,
        f"Felix fails at {when}, and no other finding explains it. It logs: {message}",
    )


def _in_parity(endpoint: Endpoint, policy: Policy) -> bool:
    """A fast check for a healthy endpoint: nearly all endpoints of a node are healthy."""
    if len(endpoint.ingress) != 1 or len(endpoint.egress) != 1:
        return False
    if endpoint.dead_pins or endpoint.empty_prog_arrays or endpoint.missing_targets:
        return False
    ingress, egress = endpoint.ingress[0], endpoint.egress[0]
    return (
        as_felix_attaches(ingress)
        and as_felix_attaches(egress)
        and named_by_calico(ingress.name)
        and named_by_calico(egress.name)
        and policy.attach_type in (None, ingress.attach_type)
        and ingress.attach_type is egress.attach_type
        and ingress.slot == egress.slot
        and (endpoint.qdisc is Qdisc.CLSACT or ingress.attach_type is AttachType.TCX)
    )


def as_felix_attaches(a: Attachment) -> bool:
    return a.calico and a.direct_action and a.protocol == ETH_P_ALL and not a.chain and not a.legacy


def attach_type_of(endpoint: Endpoint, policy: Policy) -> AttachType:
    """The attach type of the policy, else the one that the endpoint uses."""
    if policy.attach_type is not None:
        return policy.attach_type
    types = {a.attach_type for hook in HOOKS for a in endpoint.at(hook) if a.calico}
    return AttachType.TCX if types == {AttachType.TCX} else AttachType.TC


def _findings(endpoint: Endpoint, policy: Policy, now: Outlook) -> Iterator[Finding]:
    """Every deviation of ``endpoint``; ``now`` is its outlook under ``policy``'s behaviour."""
    wanted = attach_type_of(endpoint, policy)
    if wanted is AttachType.TC:
        yield from _qdisc_findings(endpoint)
    yield from _mixed_findings(endpoint, wanted)
    for hook in HOOKS:
        attachments = endpoint.at(hook)
        attached = [a for a in attachments if a.calico and a.attach_type is wanted]
        if not attached:
            if endpoint.qdisc is not Qdisc.NONE or wanted is AttachType.TCX:
                yield _missing(endpoint, hook, wanted, policy, now)
            continue
        yield from _shape_findings(hook, attached)
        yield from _surplus_findings(hook, attached)
        yield from _foreign_first(hook, attachments)
    if wanted is AttachType.TC:
        yield from _slot_findings(endpoint, policy.behaviour, now)
        yield from _taken_findings(endpoint, now)
    for pin in endpoint.dead_pins:
        yield Finding(
            Code.DEAD_PIN,
            pin.hook,
            f"{pin.path} pins a link that is no longer attached; Felix up to 3.30 ignores it, "
            "3.31 and later fail because of it",
        )
    for empty in endpoint.empty_prog_arrays:
        yield Finding(
            Code.EMPTY_PROG_ARRAY,
            empty.hook,
            f"program {empty.program_id} jumps through program array {empty.map_name} "
            f"(map {empty.map_id}), which is EMPTY: every tail call fails (calico #6739). "
            + _REATTACH,
        )
    yield from _target_findings(endpoint)


def _target_findings(endpoint: Endpoint) -> Iterator[Finding]:
    """One finding for each attached program and kind of target."""
    attached = {(h, a.program_id) for h in HOOKS for a in endpoint.at(h)}
    places: dict[tuple[Hook, int, Target], list[str]] = {}
    for missing in endpoint.missing_targets:
        if (missing.hook, missing.program_id) in attached:
            places.setdefault(missing[:3], []).append(missing.place)
    for (hook, program_id, target), found in places.items():
        # Felix loads a policy program for a host interface only if a host endpoint has policy.
        optional = target is Target.POLICY and not endpoint.interface.startswith(_WORKLOADS)
        yield Finding(
            Code.MISSING_JUMP_TARGET,
            hook,
            f"the {target.value} of program {program_id} is not loaded ({'; '.join(found[:3])}): "
            f"{_DROPPED[target]}. Felix may report ready and no dirty endpoint in this state. "
            + (_NO_POLICY if optional else _RELOAD),
            Severity.NOTICE if optional else Severity.DRIFT,
        )


def _qdisc_findings(endpoint: Endpoint) -> Iterator[Finding]:
    if endpoint.qdisc is Qdisc.NONE:
        tcx = endpoint.has_calico  # without clsact Calico can only use TCX
        enforced = "only TCX enforces" if tcx else "NO POLICY IS ENFORCED at either hook"
        yield Finding(Code.MISSING_CLSACT, None, f"no clsact qdisc: {enforced}. {_REATTACH}")
    elif endpoint.qdisc is Qdisc.INGRESS:
        yield Finding(
            Code.INGRESS_QDISC,
            None,
            "an ingress qdisc is in the place of clsact, so egress CANNOT be enforced. It belongs "
            "to another program and is never deleted. Find its owner (the bandwidth CNI plugin "
            "makes one, calico #7698), delete it (tc qdisc del dev IFACE ingress) and let Felix "
            "re-attach",
        )


def _mixed_findings(endpoint: Endpoint, wanted: AttachType) -> Iterator[Finding]:
    for hook in HOOKS:
        others = [a for a in endpoint.at(hook) if a.calico and a.attach_type is not wanted]
        if others:
            first = others[0]
            yield Finding(
                Code.MIXED_ATTACH_TYPES,
                hook,
                f"{first} is attached by {first.attach_type.value} where {wanted.value} is "
                "expected; TCX programs run before all filters, so the older of the two may "
                "decide. Felix 3.31 and later remove it at the next pass; older releases do not "
                "know TCX: set bpfAttachType=TC under 3.31 before a downgrade, or remove it "
                f"with bpf_tc_program (state=absent, attach_type={first.attach_type.value})",
            )


def _missing(
    endpoint: Endpoint, hook: Hook, wanted: AttachType, policy: Policy, now: Outlook
) -> Finding:
    passes = {
        Outlook.OK: "Felix's next pass attaches one",
        Outlook.HEALS: "Felix attaches one after an error or two",
        Outlook.ALTERNATES: f"Felix ({policy.behaviour.value}) fails again and again in this state",
        Outlook.STUCK: f"Felix ({policy.behaviour.value}) fails at every pass in this state",
    }[now]
    if now.lasts and policy.also_safe_for:
        passes += (
            " (set calico_version: the plan then moves the other hook so that Felix heals both)"
        )
    if any(a.calico and a.enforces for a in endpoint.at(hook)):
        enforced = "another attach type enforces until then"
    else:
        enforced = "NO POLICY IS ENFORCED at this hook"
    return Finding(
        Code.MISSING_PROGRAM,
        hook,
        f"no {wanted.value} program of Calico: {enforced}; {passes}. {_REATTACH}",
    )


def _shape_findings(hook: Hook, attached: list[Attachment]) -> Iterator[Finding]:
    for a in attached:
        if a.protocol != ETH_P_ALL:
            yield Finding(
                Code.WRONG_PROTOCOL,
                hook,
                f"{a} sees only protocol 0x{a.protocol:04x}: ALL OTHER PACKETS BYPASS IT, and "
                f"Felix cannot attach at pref {a.priority} while it exists",
            )
        if a.chain:
            yield Finding(
                Code.WRONG_CHAIN,
                hook,
                f"{a} is in chain {a.chain}, where NO PACKET REACHES IT; Felix "
                "(add_then_delete) deletes its own new filter in place of this one",
            )
        if not a.direct_action:
            yield Finding(
                Code.NOT_DIRECT_ACTION,
                hook,
                f"{a} runs without direct-action: ITS VERDICT IS IGNORED",
            )


def _surplus_findings(hook: Hook, attached: list[Attachment]) -> Iterator[Finding]:
    """Every attachment but the survivor: older generations, legacy programs, duplicates."""
    stays = survivor(tuple(attached))
    behind = False
    for a in attached:
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
                f"{a} is attached beside {stays}; packets reach {live.slot} first (the kernel runs "
                "low priorities first and, inside one, the newest)",
            )
    if stays.legacy:
        yield Finding(
            Code.LEGACY_PROGRAM,
            hook,
            f"{stays} was left by Calico 3.26 or older, and no newer program is attached; "
            "Felix's next pass replaces it",
        )


def _foreign_first(hook: Hook, attachments: Attachments) -> Iterator[Finding]:
    for a in attachments:
        if a.calico and a.enforces:
            return
        if not a.calico and a.runs:
            yield Finding(
                Code.FOREIGN_FILTER_FIRST,
                hook,
                f"{a} does not belong to Calico, runs first and may decide the packet; not changed",
                Severity.NOTICE,
            )


def _slot_findings(endpoint: Endpoint, behaviour: Behaviour, now: Outlook) -> Iterator[Finding]:
    ingress, egress = (calico_tc(endpoint.at(hook)) for hook in HOOKS)
    if not ingress or not egress:
        return
    i, e = survivor(ingress).slot, survivor(egress).slot
    if i == e:
        return
    code = Code.HANDLE_MISMATCH if i.priority == e.priority else Code.PRIORITY_MISMATCH
    if behaviour is Behaviour.REPLACE:
        yield Finding(
            code,
            None,
            f"ingress is at {i}, egress at {e}; Felix accepts that from 3.31 on, not before",
            Severity.NOTICE,
        )
        return
    if behaviour is Behaviour.ADD_WITHOUT_COMPARE:
        yield Finding(
            code,
            None,
            f"ingress is at {i}, egress at {e}; Felix 3.28.0 and 3.28.1 do not compare them, but "
            "3.28.2 to 3.30.7 fail every 10 s, UNTIL REPAIRED",
        )
        return
    ahead = {
        Outlook.OK: "Felix's next pass moves them to the same place",
        Outlook.HEALS: "Felix fails once and then heals it",
        Outlook.ALTERNATES: "Felix fails and succeeds in turn, UNTIL REPAIRED",
        Outlook.STUCK: "Felix fails every 10 s, UNTIL REPAIRED",
    }[now]
    yield Finding(code, None, f"ingress is at {i}, egress at {e}: {ahead}")


def _taken_findings(endpoint: Endpoint, now: Outlook) -> Iterator[Finding]:
    for hook in HOOKS:
        attachments = endpoint.at(hook)
        attached = calico_tc(attachments)
        would_use = max((a.priority for a in attached), default=FIRST_AUTO_PRIORITY)
        others = [
            a
            for a in attachments
            if a.attach_type is AttachType.TC
            and not a.calico
            and not a.chain
            and a.priority in (would_use, FIRST_AUTO_PRIORITY)
        ]
        if others:
            yield Finding(
                Code.PRIORITY_TAKEN,
                hook,
                f"{others[0]} does not belong to Calico and holds a priority that Felix uses; it "
                "is not changed. Ask its owner to move it below pref 32768",
                Severity.NOTICE if now is Outlook.OK else Severity.DRIFT,
            )


def calico_tc(attachments: Attachments) -> Attachments:
    return tuple(a for a in attachments if a.calico and a.attach_type is AttachType.TC)


def survivor(attached: Attachments) -> Attachment:
    """The attachment to keep among several of Calico at one hook: the one that Felix means to run.

    One that is attached as Felix attaches comes first; then the latest program, by its load time
    (by its id if that is not known: ids grow, but wrap at 2^31); among copies of one program the
    first, which packets reach first.
    """
    if len(attached) == 1:
        return attached[0]
    return max(
        attached,
        key=lambda a: (as_felix_attaches(a), not a.legacy, a.runs, a.loaded_at, a.program_id),
    )
