# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attach a caller's program as a cls_bpf filter, or delete one."""

from __future__ import annotations

from functools import partial

from ..errors import Refusal
from ..kernel import bpf, clsact
from ..kernel.netlink import TcSocket
from ..kernel.programs import Program
from ..model import (
    ETH_P_ALL,
    Action,
    Attachment,
    Attachments,
    AttachType,
    Endpoint,
    Hook,
    Qdisc,
    named_by_calico,
)
from . import pins
from .attach import Change, Place, filters, may_remove, refuse_shared_block, same_owner


class TcAttacher:
    """The filters of one endpoint, by one socket."""

    def __init__(self, tc: TcSocket, endpoint: Endpoint) -> None:
        self._tc = tc
        self._endpoint = endpoint

    def present(self, place: Place, program: Program) -> Change:
        pins.require_bpffs(place.pin)
        change = self._present(place, program)
        path, after = place.pin, change.after
        if path is None or after is None:
            return change
        if pins.pinned_program(path, program.info.name) == after.program_id:
            return change
        if change.apply is None:
            return pins.with_pin(change, path, partial(bpf.program_fd, after.program_id))
        return pins.with_pin(change, path, partial(bpf.duplicate, program.fd))

    def _present(self, place: Place, program: Program) -> Change:
        if self._endpoint.qdisc is Qdisc.INGRESS:
            raise Refusal(
                f"{self._endpoint.interface} has an ingress qdisc in the place of clsact. It "
                "belongs to another program; nothing was changed. Find its owner, then delete it "
                "(tc qdisc del dev IFACE ingress)"
            )
        if self._endpoint.qdisc is Qdisc.NONE:
            clsact.require()
        name = place.name or f"{program.info.name}:[{program.info.program_id}]"
        present = filters(self._endpoint.at(place.hook))
        handle = place.handle or _present_handle(present, place, name)
        wanted = Attachment(
            attach_type=AttachType.TC,
            priority=place.priority,
            handle=handle,
            program_id=program.info.program_id,
            name=name,
            tag=program.info.tag,
            direct_action=True,
            calico=named_by_calico(name),
        )
        current = _filter_at(present, wanted)
        if current is None:
            refuse_shared_block(self._endpoint, Action.ADD, place.hook, wanted)
            return Change(None, wanted, lambda: self._add(place.hook, wanted, program.fd))
        if not same_owner(current, name):
            raise Refusal(
                f"{self._endpoint.interface} {place.hook.value}: {current} is already attached "
                "under another name; nothing was changed. Choose another priority or handle, or "
                "give its name"
            )
        if program.is_the_one(current.program_id, current.tag) and current.direct_action:
            return Change(current, current, None)
        refuse_shared_block(self._endpoint, Action.REPLACE, place.hook, wanted)
        add = partial(self._add, place.hook, wanted, program.fd, replace=True)
        return Change(current, wanted, add)

    def _add(self, hook: Hook, a: Attachment, fd: int, *, replace: bool = False) -> None:
        if self._endpoint.qdisc is Qdisc.NONE:
            clsact.make(self._endpoint.ifindex)
        self._tc.add_filter(
            self._endpoint.ifindex, hook, a.priority, a.handle, fd, a.name, replace=replace
        )

    def absent(self, place: Place) -> Change:
        found = self._removable(place)
        if found is not None:
            refuse_shared_block(self._endpoint, Action.DELETE, place.hook, found)
        return pins.removal(found, place.pin, partial(self.remove, place.hook))

    def remove(self, hook: Hook, a: Attachment) -> None:
        self._tc.delete_filter(self._endpoint.ifindex, hook, a.priority, a.handle, a.chain)

    def _removable(self, place: Place) -> Attachment | None:
        matching = [
            a
            for a in filters(self._endpoint.at(place.hook))
            if a.priority == place.priority and place.handle in (None, a.handle) and not a.chain
        ]
        removable = [a for a in matching if may_remove(a, place.name)]
        if place.handle is not None and matching and not removable:
            raise Refusal(
                f"{self._endpoint.interface} {place.hook.value}: {matching[0]} does not belong to "
                "Calico; nothing was changed. To remove it, give its name with `name`"
            )
        if len(removable) > 1:
            listed = ", ".join(str(a) for a in removable)
            raise Refusal(f"several filters match: {listed}; choose one with `handle`")
        return removable[0] if removable else None


def _present_handle(present: Attachments, place: Place, name: str) -> int:
    for a in present:
        if a.priority == place.priority and not a.chain and same_owner(a, name):
            return a.handle
    return 1


def _filter_at(present: Attachments, wanted: Attachment) -> Attachment | None:
    """The filter at the priority and handle of ``wanted``.

    :raises Refusal: the priority belongs to another classifier or protocol.
    """
    for a in present:
        if a.priority == wanted.priority and not a.chain:
            if a.kind != "bpf" or a.protocol != ETH_P_ALL:
                raise Refusal(
                    f"{a} uses the priority; a priority holds filters of one kind and protocol only"
                )
            if a.handle == wanted.handle:
                return a
    return None
