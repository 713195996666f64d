# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attach a caller's program at a hook, or detach one: what TC and TCX have in common.

Unlike a repair, this attaches the program that the caller names. It changes only attachments of
Calico and those with the name that the caller gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from ..errors import Refusal
from ..kernel.programs import Program
from ..kernel.snapshot import Reader
from ..model import (
    FIRST_AUTO_PRIORITY,
    Action,
    Attachment,
    Attachments,
    AttachType,
    Endpoint,
    Hook,
    Qdisc,
    named_by_calico,
)
from . import kernel_rules
from .shared_block import refused_write


@dataclass(frozen=True)
class Place:
    """Where at a hook, and under which name. ``handle`` None: the present filter's, else 1."""

    hook: Hook
    attach_type: AttachType = AttachType.TC
    priority: int = FIRST_AUTO_PRIORITY
    handle: int | None = None
    #: The filter's name; None: the program's, as libbpf writes it.
    name: str | None = None
    pin: str | None = None


@dataclass(frozen=True)
class Change:
    """The attachment before and after; ``apply`` makes the change, None if there is none."""

    before: Attachment | None
    after: Attachment | None
    apply: Callable[[], None] | None


class ProgramAttacher(Protocol):
    """Attachments of one type at one endpoint."""

    def present(self, place: Place, program: Program) -> Change:
        """:raises Refusal: another owner's attachment is at the place, or it cannot be used."""

    def absent(self, place: Place) -> Change:
        """:raises Refusal: several attachments match, or another owner's is at the place."""

    def remove(self, hook: Hook, a: Attachment) -> None:
        """Detach exactly ``a``."""


def after_change(endpoint: Endpoint, hook: Hook, change: Change) -> Endpoint:
    """The endpoint once ``change`` is made, by the kernel's rules."""
    attachments = endpoint.at(hook)
    old, new = change.before, change.after
    if new is None:
        attachments = tuple(a for a in attachments if a is not old)
    elif old is not None:
        attachments = tuple(new if a is old else a for a in attachments)
    elif new.attach_type is AttachType.TCX:
        attachments = (*tcx_programs(attachments), new, *filters(attachments))
    else:
        attachments = tcx_programs(attachments) + kernel_rules.add(filters(attachments), new)
    needs_clsact = new is not None and new.attach_type is AttachType.TC
    qdisc = Qdisc.CLSACT if needs_clsact else endpoint.qdisc
    return replace(endpoint.with_hook(hook, attachments), qdisc=qdisc)


def filters(attachments: Attachments) -> Attachments:
    return tuple(a for a in attachments if a.attach_type is AttachType.TC)


def tcx_programs(attachments: Attachments) -> Attachments:
    return tuple(a for a in attachments if a.attach_type is AttachType.TCX)


def find_again(endpoint: Endpoint, hook: Hook, a: Attachment) -> Attachment | None:
    """The attachment that is now in the place of ``a``."""
    for now in endpoint.at(hook):
        if (now.attach_type, now.slot, now.program_id) == (a.attach_type, a.slot, a.program_id):
            return now
    return None


def open_endpoint(reader: Reader, interface: str) -> Endpoint:
    """:raises Refusal: there is no such interface."""
    found = reader.read_named([interface]).endpoints
    if not found:
        raise Refusal(f"there is no interface {interface} in this network namespace")
    return found[0]


def same_owner(a: Attachment, name: str) -> bool:
    return (a.calico and named_by_calico(name)) or _base(a.name) == _base(name)


def refuse_shared_block(
    endpoint: Endpoint, action: Action, hook: Hook, attachment: Attachment
) -> None:
    """:raises Refusal: the kernel refuses to change a filter of this hook by its interface."""
    if attachment.attach_type is AttachType.TCX:
        return
    error = refused_write(endpoint, action, hook, attachment.slot)
    if error is not None:
        raise Refusal(f"{error}; nothing was changed. {error.advice}") from error


def may_remove(a: Attachment, name: str | None) -> bool:
    return a.calico if name is None else _base(a.name) == _base(name)


def _base(name: str) -> str:
    return name.split(":[", 1)[0]
