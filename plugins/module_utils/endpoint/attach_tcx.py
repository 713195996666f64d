# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attach a caller's program by TCX, or detach one."""

from __future__ import annotations

import os
from functools import partial

from ..errors import Refusal
from ..kernel import bpf
from ..kernel.programs import Program
from ..model import Attachment, AttachType, Endpoint, Hook, named_by_calico
from . import pins
from .attach import Change, Place, may_remove, tcx_programs


class TcxAttacher:
    """The TCX programs of one endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def present(self, place: Place, program: Program) -> Change:
        pins.require_bpffs(place.pin)
        change = self._present(place, program)
        path, after = place.pin, change.after
        if path is None or after is None:
            return change
        if pins.link_is_pinned(path, after.link_id) or change.before is None:
            return change  # a new link is made pinned
        return pins.with_pin(change, path, partial(bpf.link_fd, after.link_id))

    def _present(self, place: Place, program: Program) -> Change:
        ifindex, hook, pin = self._endpoint.ifindex, place.hook, place.pin
        wanted = Attachment(
            attach_type=AttachType.TCX,
            priority=0,
            handle=0,
            program_id=program.info.program_id,
            name=program.info.name,
            tag=program.info.tag,
            direct_action=True,
            calico=named_by_calico(program.info.name),
        )
        current = self._current(hook, place.name or program.info.name)
        if current is None and pin:
            return Change(None, wanted, partial(_attach_link, ifindex, hook, program.fd, pin))
        if current is None:
            return Change(None, wanted, lambda: bpf.tcx_attach(ifindex, hook, program.fd))
        if pin and not current.link_id:
            raise Refusal(
                f"{self._endpoint.interface} {hook.value}: {current} is attached without a link, "
                "which cannot be pinned; detach it first (state=absent)"
            )
        if program.is_the_one(current.program_id, current.tag):
            return Change(current, current, None)
        after = wanted._replace(link_id=current.link_id)
        return Change(current, after, partial(_swap, ifindex, hook, current, program.fd))

    def absent(self, place: Place) -> Change:
        current = self._current(place.hook, place.name)
        return pins.removal(current, place.pin, partial(self.remove, place.hook))

    def remove(self, hook: Hook, a: Attachment) -> None:
        fd = bpf.link_fd(a.link_id) if a.link_id else bpf.program_fd(a.program_id)
        try:
            if a.link_id:
                bpf.link_detach(fd)
            else:
                bpf.tcx_detach(self._endpoint.ifindex, hook, fd)
        finally:
            os.close(fd)

    def _current(self, hook: Hook, name: str | None) -> Attachment | None:
        matching = [a for a in tcx_programs(self._endpoint.at(hook)) if may_remove(a, name)]
        if len(matching) > 1:
            listed = ", ".join(str(a) for a in matching)
            raise Refusal(
                f"{self._endpoint.interface} {hook.value}: several TCX programs match: {listed}; "
                "detach the wrong one by hand (bpftool link detach id N)"
            )
        return matching[0] if matching else None


def _attach_link(ifindex: int, hook: Hook, fd: int, pin: str) -> None:
    """A link lives as long as its pin: without one, closing it detaches the program again."""
    link = bpf.tcx_link(ifindex, hook, fd)
    try:
        bpf.pin(link, pin)
    finally:
        os.close(link)


def _swap(ifindex: int, hook: Hook, current: Attachment, fd: int) -> None:
    if current.link_id:
        link = bpf.link_fd(current.link_id)
        try:
            bpf.link_update(link, fd)
        finally:
            os.close(link)
        return
    old = bpf.program_fd(current.program_id)
    try:
        bpf.tcx_attach(ifindex, hook, fd, old)
    finally:
        os.close(old)
