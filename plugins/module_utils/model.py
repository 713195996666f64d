# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The data classes that the layers share: endpoints, attachments, findings, plans.

No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

ETH_P_ALL = 0x0003
#: The first priority that the kernel picks by itself, and so the one Felix's first filter gets
#: (net/sched/cls_api.c, tcf_auto_prio: 0xC0000000 >> 16).
FIRST_AUTO_PRIORITY = 49152

#: What Felix looks for in a filter's name (felix/bpf/tc/attach.go, v3.24 to v3.32): the kernel cuts
#: the program's name, cali_tc_preamble, at 15 characters; releases up to 3.26 used calico_*.
PREAMBLE = "cali_tc_preambl"
LEGACY = "calico"


class Hook(str, Enum):
    INGRESS = "ingress"
    EGRESS = "egress"


HOOKS = (Hook.INGRESS, Hook.EGRESS)


class AttachType(str, Enum):
    TC = "tc"
    TCX = "tcx"


class Qdisc(str, Enum):
    """The qdisc at an interface's handle ffff:; an ``ingress`` qdisc excludes clsact."""

    CLSACT = "clsact"
    INGRESS = "ingress"
    NONE = "none"


class Behaviour(str, Enum):
    """How a Calico release re-attaches a filter; outlook.py has each algorithm."""

    #: Adds a filter at a priority that the kernel picks, then deletes the old ones, and compares
    #: nothing (its check never matches): 3.28.0, 3.28.1.
    ADD_WITHOUT_COMPARE = "add_without_compare"
    #: Adds a filter, then deletes the old ones: 3.28.2-3.28.4, 3.29.0-3.29.4, 3.30.0.
    ADD_THEN_DELETE = "add_then_delete"
    #: Replaces in place and requires the hooks to agree: 3.28.5, 3.29.5-3.29.7, 3.30.1-3.30.7.
    REPLACE_AND_COMPARE = "replace_and_compare"
    #: Replaces in place and compares nothing: 3.31.0 and later with bpfAttachType TC.
    REPLACE = "replace"


class Outlook(str, Enum):
    """The effect of Felix's next passes on an endpoint that no other program changes.

    In the order of their severity.
    """

    OK = "ok"
    HEALS = "heals"
    #: Passes fail and succeed in turn, without end.
    ALTERNATES = "alternates"
    STUCK = "stuck"

    @property
    def severity(self) -> int:
        return _SEVERITY[self]

    @property
    def lasts(self) -> bool:
        """Felix never stops failing by itself."""
        return self in (Outlook.ALTERNATES, Outlook.STUCK)


_SEVERITY = {outlook: n for n, outlook in enumerate(Outlook)}


class Verdict(str, Enum):
    CONSISTENT = "consistent"
    DRIFTED = "drifted"
    REPAIRED = "repaired"
    CONTENDED = "contended"
    VANISHED = "vanished"
    UNMANAGED = "unmanaged"


class Severity(str, Enum):
    """``drift`` counts for the verdict; a ``notice`` is reported and does not change it."""

    DRIFT = "drift"
    NOTICE = "notice"


class Code(str, Enum):
    """The codes of findings; findings.py has the condition of each."""

    MISSING_CLSACT = "missing_clsact"
    INGRESS_QDISC = "ingress_qdisc"
    MISSING_PROGRAM = "missing_program"
    HANDLE_MISMATCH = "handle_mismatch"
    PRIORITY_MISMATCH = "priority_mismatch"
    PRIORITY_TAKEN = "priority_taken"
    WRONG_PROTOCOL = "wrong_protocol"
    WRONG_CHAIN = "wrong_chain"
    DUPLICATE_PROGRAM = "duplicate_program"
    LEGACY_PROGRAM = "legacy_program"
    NOT_DIRECT_ACTION = "not_direct_action"
    MIXED_ATTACH_TYPES = "mixed_attach_types"
    DEAD_PIN = "dead_pin"
    FOREIGN_FILTER_FIRST = "foreign_filter_first"
    STALE_PROGRAM = "stale_program"
    EMPTY_PROG_ARRAY = "empty_prog_array"
    MISSING_JUMP_TARGET = "missing_jump_target"
    FELIX_FAILS = "felix_fails"


class Action(str, Enum):
    ADD = "add"
    #: Swap the program at exactly one priority and handle, in one message.
    REPLACE = "replace"
    DELETE = "delete"
    UNPIN = "unpin"


class Slot(NamedTuple):
    """The place of a filter in chain 0 of a hook, which Felix compares between the hooks."""

    priority: int
    handle: int

    def __str__(self) -> str:
        return f"pref {self.priority} handle {self.handle}"


class Attachment(NamedTuple):
    """One cls filter, or one TCX program, at a hook.

    A NamedTuple, not a dataclass: an audit makes thousands, and a frozen dataclass costs five
    times as much to build on the Pythons that nodes have.
    """

    attach_type: AttachType
    #: 0 for TCX, which has neither priority nor handle.
    priority: int
    handle: int
    #: 0 if the filter is not cls_bpf.
    program_id: int
    #: The filter's own name (TCA_BPF_NAME), by which Felix finds it; for TCX the program's name.
    name: str
    tag: str
    direct_action: bool
    calico: bool
    #: The classifier: "bpf", or that of a foreign filter (u32, flower, matchall, ...).
    kind: str = "bpf"
    protocol: int = ETH_P_ALL
    chain: int = 0
    #: 0 for a filter, and for a TCX program attached without a link.
    link_id: int = 0
    #: Nanoseconds from boot to the program's load; 0 if it was not read.
    loaded_at: int = 0

    @property
    def slot(self) -> Slot:
        return Slot(self.priority, self.handle)

    @property
    def legacy(self) -> bool:
        return self.calico and PREAMBLE not in self.name and LEGACY in self.name

    @property
    def runs(self) -> bool:
        """Packets reach it: TCX always, a filter only in chain 0."""
        return self.attach_type is AttachType.TCX or self.chain == 0

    @property
    def enforces(self) -> bool:
        """Its return code decides the packet (without direct-action it is only a class id)."""
        return self.runs and self.direct_action

    def __str__(self) -> str:
        if self.attach_type is AttachType.TCX:
            return f"tcx {self.name} id {self.program_id}"
        chain = f" chain {self.chain}" if self.chain else ""
        protocol = "" if self.protocol == ETH_P_ALL else f" protocol 0x{self.protocol:04x}"
        if self.kind != "bpf":
            return f"{self.kind} filter at {self.slot}{chain}{protocol}"
        action = " direct-action" if self.direct_action else ""
        return f"{self.name} id {self.program_id} at {self.slot}{chain}{protocol}{action}"


Attachments = tuple[Attachment, ...]


class DeadPin(NamedTuple):
    """A pinned TCX link that is no longer attached."""

    hook: Hook
    path: str


class SharedBlock(NamedTuple):
    """The index of the block that holds a hook's filters and that other interfaces may use."""

    hook: Hook
    block: int


class EmptyProgArray(NamedTuple):
    """A program array without any entry, which an attached program uses."""

    hook: Hook
    program_id: int
    map_id: int
    map_name: str


class Target(str, Enum):
    """A program that Calico's preamble, which is all that Felix attaches, jumps to."""

    MAIN = "main program"
    #: The main program jumps to it; it decides about new flows.
    POLICY = "policy program"
    #: A part of the main program: for ICMP errors, drops, new flows, fragments and so on.
    OTHER = "sub-program"


class MissingTarget(NamedTuple):
    """A program that an attached preamble needs and that is not in its program array."""

    hook: Hook
    program_id: int
    target: Target
    #: The place that holds no program: its index, array and map id.
    place: str


@dataclass(frozen=True)
class Endpoint:
    """An interface with the attachments at its hooks, in the order of the kernel's dump.

    TCX programs come before filters, as they run.
    """

    interface: str
    ifindex: int
    qdisc: Qdisc
    ingress: Attachments = ()
    egress: Attachments = ()
    dead_pins: tuple[DeadPin, ...] = ()
    empty_prog_arrays: tuple[EmptyProgArray, ...] = ()
    missing_targets: tuple[MissingTarget, ...] = ()
    shared_blocks: tuple[SharedBlock, ...] = ()

    def at(self, hook: Hook) -> Attachments:
        return self.ingress if hook is Hook.INGRESS else self.egress

    def with_hook(self, hook: Hook, attachments: Attachments) -> Endpoint:
        """The same endpoint with other attachments at ``hook``."""
        ingress = attachments if hook is Hook.INGRESS else self.ingress
        egress = attachments if hook is Hook.EGRESS else self.egress
        # Not dataclasses.replace, which is slow: a search for a plan makes many.
        return Endpoint(
            interface=self.interface,
            ifindex=self.ifindex,
            qdisc=self.qdisc,
            ingress=ingress,
            egress=egress,
            dead_pins=self.dead_pins,
            empty_prog_arrays=self.empty_prog_arrays,
            missing_targets=self.missing_targets,
            shared_blocks=self.shared_blocks,
        )

    def block(self, hook: Hook) -> int:
        """The index of the shared block with the filters of ``hook``; 0 if it has its own."""
        return next((shared.block for shared in self.shared_blocks if shared.hook is hook), 0)

    @property
    def has_calico(self) -> bool:
        return any(a.calico for a in self.ingress) or any(a.calico for a in self.egress)


@dataclass(frozen=True)
class Policy:
    """The standard by which an endpoint is judged.

    ``attach_type`` None: the one that the endpoint uses. ``also_safe_for``: behaviours that Felix
    may have instead; no plan makes their outlook worse.
    """

    behaviour: Behaviour = Behaviour.ADD_THEN_DELETE
    attach_type: AttachType | None = None
    also_safe_for: tuple[Behaviour, ...] = ()


@dataclass(frozen=True)
class Finding:
    code: Code
    hook: Hook | None
    message: str
    severity: Severity = Severity.DRIFT
    repairable: bool = False


class Step(NamedTuple):
    """One kernel write of a plan. It names exactly what it changes."""

    action: Action
    hook: Hook
    #: The filter to add, to put in the place of another one, or to delete; None for ``unpin``.
    filter: Attachment | None
    path: str = ""

    def __str__(self) -> str:
        what = str(self.filter) if self.filter is not None else self.path
        return f"{self.action.value} {self.hook.value} {what}"


Plan = tuple[Step, ...]


def filter_operation(action: Action, hook: Hook, slot: Slot) -> str:
    """The name of a write in an error, such as ``add filter at egress pref 49152 handle 1``."""
    return f"{action.value} filter at {hook.value} {slot}"


@dataclass(frozen=True)
class Judgement:
    """Findings, plan and outlook of one endpoint from one snapshot."""

    findings: tuple[Finding, ...]
    plan: Plan
    outlook: Outlook
    #: The line that Felix would log; None unless the outlook is ``alternates`` or ``stuck``.
    felix_message: str | None = None
    #: Why the kernel would refuse a plan, which is then empty; for the error of a repair.
    refusal: str = ""

    @property
    def drifted(self) -> bool:
        return any(f.severity is Severity.DRIFT for f in self.findings)


def named_by_calico(name: str) -> bool:
    """The rule by which Felix itself recognizes its filters."""
    return PREAMBLE in name or LEGACY in name


@dataclass(frozen=True)
class ModuleResult:
    """The result of a module; with ``failure`` it fails with that text and ``values``."""

    values: Mapping[str, Any]
    failure: str | None = None
    warnings: tuple[str, ...] = ()
