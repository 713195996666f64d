# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Endpoints as the tests write them down, and plans as they read them."""

from __future__ import annotations

from functools import reduce
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint import kernel_rules
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    Attachment,
    Attachments,
    AttachType,
    Endpoint,
    Plan,
    Qdisc,
    named_by_calico,
)

INTERFACE = "cali0123456789a"
IFINDEX = 7


def ours(handle: int = 1, program: int = 10, priority: int = 49152, **other: Any) -> Attachment:
    """A filter as Felix attaches it, but for what ``other`` says."""
    plain = Attachment(
        attach_type=AttachType.TC,
        priority=priority,
        handle=handle,
        program_id=program,
        name=f"cali_tc_preambl:[{program}]",
        tag="aa",
        direct_action=True,
        calico=True,
    )
    return plain._replace(**other)


def foreign(priority: int, handle: int = 1, program: int = 90, **other: Any) -> Attachment:
    """A foreign cls_bpf filter."""
    plain = ours(handle, program, priority, name=f"cil_from_contai:[{program}]", calico=False)
    return plain._replace(**other)


def u32(priority: int, handle: int = 0x80000800, **other: Any) -> Attachment:
    """A foreign filter of another kind, for which the kernel has no name and no program."""
    plain = foreign(priority, handle, 0, name="", tag="", direct_action=False, kind="u32")
    return plain._replace(**other)


def tcx(program: int = 50, name: str = "cali_tc_preambl", **other: Any) -> Attachment:
    plain = Attachment(
        attach_type=AttachType.TCX,
        priority=0,
        handle=0,
        program_id=program,
        name=name,
        tag="aa",
        direct_action=True,
        calico=named_by_calico(name),
    )
    return plain._replace(**{"link_id": program, **other})


def at(*handles: int, program: int = 10) -> Attachments:
    """Felix's filters at 49152, attached one after the other, each with a program of its own."""
    return listed(*(ours(h, program + n, loaded_at=n) for n, h in enumerate(handles)))


def listed(*filters: Attachment) -> Attachments:
    """Filters of chain 0 in the kernel's order, if they are attached in the given order."""
    nothing: Attachments = ()
    return reduce(kernel_rules.add, filters, nothing)


def around_a_stranger(before: int, behind: int) -> Attachments:
    """Two programs of Calico, with a foreign filter between them."""
    return listed(
        ours(1, before, 49150, loaded_at=before),
        foreign(49151),
        ours(1, behind, 49152, loaded_at=behind),
    )


def endpoint(
    ingress: Attachments, egress: Attachments, qdisc: Qdisc = Qdisc.CLSACT, **other: Any
) -> Endpoint:
    return Endpoint(
        interface=INTERFACE, ifindex=IFINDEX, qdisc=qdisc, ingress=ingress, egress=egress, **other
    )


def in_words(plan: Plan) -> list[str]:
    """A plan in few words: ``add egress 49152/1 id 20``."""
    return [
        f"unpin {s.hook.value} {s.path}"
        if s.filter is None
        else f"{s.action.value} {s.hook.value} {s.filter.priority}/{s.filter.handle}"
        f" id {s.filter.program_id}{f' chain {s.filter.chain}' if s.filter.chain else ''}"
        for s in plan
    ]
