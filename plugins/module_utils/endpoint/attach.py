# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Putting a caller's program at one hook, and taking one away.

Unlike a repair, this attaches what the caller names. It never touches an attachment that is neither
Calico's nor called by the name that the caller gave.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from ..errors import KernelError, Refusal
from ..kernel import bpf, clsact
from ..kernel.netlink import TcSocket
from ..kernel.programs import Program
from ..kernel.snapshot import Reader
from ..model import (
    ETH_P_ALL,
    FIRST_AUTO_PRIORITY,
    Attachment,
    Attachments,
    AttachType,
    Endpoint,
    Hook,
    Qdisc,
    named_by_calico,
)
from . import kernel_rules


@dataclass(frozen=True)
class Place:
    """Where at a hook, and under which name. ``handle`` None: the present one's, else 1."""

    hook: Hook
    attach_type: AttachType = AttachType.TC
    priority: int = FIRST_AUTO_PRIORITY
    handle: int | None = None
    #: The filter's name; None: the program's, as libbpf writes it.
    name: str | None = None
    pin: str | None = None


@dataclass(frozen=True)
class Change:
    """The attachment before and after; ``apply`` does it, None where nothing is to be done."""

    before: Attachment | None
    after: Attachment | None
    apply: Callable[[], None] | None


def after_change(endpoint: Endpoint, hook: Hook, change: Change) -> Endpoint:
    """The endpoint once ``change`` is made, by the kernel's rules."""
    attachments = endpoint.at(hook)
    old, new = change.before, change.after
    if new is None:
        attachments = tuple(a for a in attachments if a is not old)
    elif old is not None:
        attachments = tuple(new if a is old else a for a in attachments)
    elif new.attach_type is AttachType.TCX:
        attachments = (*_of_type(attachments, AttachType.TCX), new, *_filters(attachments))
    else:
        filters = kernel_rules.add(_filters(attachments), new)
        attachments = _of_type(attachments, AttachType.TCX) + filters
    needs_clsact = new is not None and new.attach_type is AttachType.TC
    qdisc = Qdisc.CLSACT if needs_clsact else endpoint.qdisc
    return replace(endpoint.with_hook(hook, attachments), qdisc=qdisc)


def _of_type(attachments: Attachments, attach_type: AttachType) -> Attachments:
    return tuple(a for a in attachments if a.attach_type is attach_type)


def _filters(attachments: Attachments) -> Attachments:
    return _of_type(attachments, AttachType.TC)


def find_again(endpoint: Endpoint, hook: Hook, a: Attachment) -> Attachment | None:
    """What is there now in the place of ``a``."""
    for now in endpoint.at(hook):
        if (now.attach_type, now.slot, now.program_id) == (a.attach_type, a.slot, a.program_id):
            return now
    return None


def open_endpoint(reader: Reader, interface: str) -> Endpoint:
    """:raises Refusal: where there is no such interface."""
    found = reader.read_named([interface]).endpoints
    if not found:
        raise Refusal(f"there is no interface {interface} in this network namespace")
    return found[0]


class ProgramAttacher:
    """The attachments of one endpoint, by one socket."""

    def __init__(self, tc: TcSocket, endpoint: Endpoint) -> None:
        self._tc = tc
        self._endpoint = endpoint

    # --- present ------------------------------------------------------------------------------

    def present(self, place: Place, program: Program) -> Change:
        """:raises Refusal: where the place is a stranger's, or can't be had."""
        if place.pin and not bpf.is_bpffs(os.path.dirname(place.pin)):
            raise Refusal(
                f"pin: {os.path.dirname(place.pin) or '.'} is no folder of a BPF file system "
                "(mount -t bpf bpf /sys/fs/bpf); nothing was touched"
            )
        if place.attach_type is AttachType.TCX:
            change = self._tcx_present(place, program)
        else:
            change = self._tc_present(place, program)
        return self._with_pin(place, program, change)

    def _tc_present(self, place: Place, program: Program) -> Change:
        if self._endpoint.qdisc is Qdisc.INGRESS:
            raise Refusal(
                f"{self._endpoint.interface} has an ingress qdisc where clsact belongs; it is not "
                "ours to delete. Find its owner, then: tc qdisc del dev IFACE ingress"
            )
        if self._endpoint.qdisc is Qdisc.NONE:
            clsact.require()
        name = place.name or f"{program.info.name}:[{program.info.program_id}]"
        filters = _filters(self._endpoint.at(place.hook))
        handle = place.handle or _present_handle(filters, place, name)
        wanted = Attachment(
            AttachType.TC, place.priority, handle, program.info.program_id, name,
            program.info.tag, True, named_by_calico(name),
        )  # fmt: skip
        held = _holder(filters, wanted)
        if held is None:
            return Change(None, wanted, lambda: self._add(place.hook, wanted, program.fd))
        if not _same_owner(held, name):
            raise Refusal(
                f"{self._endpoint.interface} {place.hook.value}: {held} is there under another "
                "name; it was left alone. Choose another priority or handle, or give its name"
            )
        if program.is_the_one(held.program_id, held.tag) and held.direct_action:
            return Change(held, held, None)
        return Change(held, wanted, lambda: self._add(place.hook, wanted, program.fd, replace=True))

    def _add(self, hook: Hook, a: Attachment, fd: int, *, replace: bool = False) -> None:
        if self._endpoint.qdisc is Qdisc.NONE:
            clsact.make(self._endpoint.ifindex)
        self._tc.add_filter(
            self._endpoint.ifindex, hook, a.priority, a.handle, fd, a.name, replace=replace
        )

    def _tcx_present(self, place: Place, program: Program) -> Change:
        ifindex, hook = self._endpoint.ifindex, place.hook
        wanted = Attachment(
            AttachType.TCX, 0, 0, program.info.program_id, program.info.name, program.info.tag,
            True, named_by_calico(program.info.name),
        )  # fmt: skip
        held = self._tcx_held(hook, place.name or program.info.name)
        if held is None:
            if place.pin:
                pin = place.pin
                return Change(None, wanted, lambda: _attach_link(ifindex, hook, program.fd, pin))
            return Change(None, wanted, lambda: bpf.tcx_attach(ifindex, hook, program.fd))
        if place.pin and not held.link_id:
            raise Refusal(
                f"{self._endpoint.interface} {hook.value}: {held} is attached without a link, so "
                "there is none to pin; detach it first (state=absent)"
            )
        if program.is_the_one(held.program_id, held.tag):
            return Change(held, held, None)
        after = wanted._replace(link_id=held.link_id)
        return Change(held, after, lambda: _swap_tcx(ifindex, hook, held, program.fd))

    # --- absent -------------------------------------------------------------------------------

    def absent(self, place: Place) -> Change:
        """:raises Refusal: where several fit and no handle chooses, or a stranger is there."""
        if place.attach_type is AttachType.TCX:
            held = self._tcx_held(place.hook, place.name)
        else:
            held = self._tc_held(place)
        pin = place.pin if place.pin and _may_unpin(place.pin, held) else None
        if held is None and pin is None:
            return Change(None, None, None)

        def apply() -> None:
            if held is not None:
                self.remove(place.hook, held)
            if pin is not None:
                bpf.unpin(pin)

        return Change(held, None, apply)

    def remove(self, hook: Hook, a: Attachment) -> None:
        """Detach exactly ``a``."""
        if a.attach_type is AttachType.TCX:
            _detach_tcx(self._endpoint.ifindex, hook, a)
        else:
            self._tc.delete_filter(self._endpoint.ifindex, hook, a.priority, a.handle, a.chain)

    def _tc_held(self, place: Place) -> Attachment | None:
        fitting = [
            a
            for a in _filters(self._endpoint.at(place.hook))
            if a.priority == place.priority and place.handle in (None, a.handle) and not a.chain
        ]
        mine = [a for a in fitting if _may_remove(a, place.name)]
        if place.handle is not None and fitting and not mine:
            raise Refusal(
                f"{self._endpoint.interface} {place.hook.value}: {fitting[0]} is not Calico's; if "
                "it is yours to remove, give its name with `name`"
            )
        if len(mine) > 1:
            listed = ", ".join(str(a) for a in mine)
            raise Refusal(f"several filters fit: {listed}; choose one with `handle`")
        return mine[0] if mine else None

    # --- pins ---------------------------------------------------------------------------------

    def _with_pin(self, place: Place, program: Program, change: Change) -> Change:
        """``change``, and what is attached after it pinned: the program, or for TCX its link."""
        path, after = place.pin, change.after
        if path is None or after is None:
            return change
        if after.attach_type is AttachType.TCX:
            if _pinned_link(path, after.link_id) or change.before is None:
                return change  # a new link is made pinned
            opening = partial(bpf.link_fd, after.link_id)
        elif _pinned_program(path, program.info.name) == after.program_id:
            return change
        elif change.apply is None:
            opening = partial(bpf.program_fd, after.program_id)
        else:
            opening = partial(os.dup, program.fd)

        def apply() -> None:
            with _pinned(opening(), path):
                if change.apply:
                    change.apply()

        return Change(change.before, after, apply)

    def _tcx_held(self, hook: Hook, name: str | None) -> Attachment | None:
        held = _of_type(self._endpoint.at(hook), AttachType.TCX)
        mine = [a for a in held if _may_remove(a, name)]
        if len(mine) > 1:
            listed = ", ".join(str(a) for a in mine)
            raise Refusal(
                f"{self._endpoint.interface} {hook.value}: several TCX programs fit: {listed}; "
                "detach the wrong one by hand (bpftool link detach id N)"
            )
        return mine[0] if mine else None


def _base(name: str) -> str:
    return name.split(":[", 1)[0]


def _same_owner(a: Attachment, name: str) -> bool:
    return (a.calico and named_by_calico(name)) or _base(a.name) == _base(name)


def _may_remove(a: Attachment, name: str | None) -> bool:
    return a.calico if name is None else _base(a.name) == _base(name)


def _present_handle(filters: Attachments, place: Place, name: str) -> int:
    for a in filters:
        if a.priority == place.priority and not a.chain and _same_owner(a, name):
            return a.handle
    return 1


def _holder(filters: Attachments, wanted: Attachment) -> Attachment | None:
    """What stands at ``wanted``'s place.

    :raises Refusal: where the priority is another classifier's or protocol's.
    """
    for a in filters:
        if a.priority == wanted.priority and not a.chain:
            if a.kind != "bpf" or a.protocol != ETH_P_ALL:
                raise Refusal(f"{a} is there, and one priority holds one kind and protocol only")
            if a.handle == wanted.handle:
                return a
    return None


def _attach_link(ifindex: int, hook: Hook, fd: int, pin: str) -> None:
    """A link lives as long as its pin; if it can't be pinned, it goes at once and is no harm."""
    link = bpf.tcx_link(ifindex, hook, fd)
    try:
        bpf.pin(link, pin)
    finally:
        os.close(link)


def _swap_tcx(ifindex: int, hook: Hook, held: Attachment, fd: int) -> None:
    if held.link_id:
        link = bpf.link_fd(held.link_id)
        try:
            bpf.link_update(link, fd)
        finally:
            os.close(link)
        return
    old = bpf.program_fd(held.program_id)
    try:
        bpf.tcx_attach(ifindex, hook, fd, old)
    finally:
        os.close(old)


def _detach_tcx(ifindex: int, hook: Hook, a: Attachment) -> None:
    fd = bpf.link_fd(a.link_id) if a.link_id else bpf.program_fd(a.program_id)
    try:
        if a.link_id:
            bpf.link_detach(fd)
        else:
            bpf.tcx_detach(ifindex, hook, fd)
    finally:
        os.close(fd)


@contextmanager
def _opened_pin(path: str) -> Iterator[int | None]:
    """The fd of the object pinned at ``path``; None where nothing is there.

    :raises Refusal: where something else than a BPF object is there.
    """
    if not os.path.lexists(path):
        yield None
        return
    try:
        fd = bpf.open_pin(path)
    except KernelError as error:
        raise Refusal(f"pin: {path} is no pin ({error}); nothing was touched") from error
    try:
        yield fd
    finally:
        os.close(fd)


def _pinned_program(path: str, name: str) -> int | None:
    """The id of the program pinned at ``path``, an older one of that name perhaps.

    :raises Refusal: where anything else is pinned there.
    """
    with _opened_pin(path) as fd:
        if fd is None:
            return None
        if not bpf.is_program(fd) or bpf.program_info(fd).name != name:
            raise Refusal(f"pin: {path} pins something else than a program {name}; left alone")
        return bpf.program_info(fd).program_id


def _pinned_link(path: str, link_id: int) -> bool:
    """Whether the TCX link is pinned at ``path``.

    :raises Refusal: where anything else is pinned there; another link would go with its pin.
    """
    with _opened_pin(path) as fd:
        if fd is None:
            return False
        link = bpf.tcx_link_info(fd)
        if link is None or link.link_id != link_id:
            raise Refusal(f"pin: {path} pins something else; left alone")
        return True


def _may_unpin(path: str, held: Attachment | None) -> bool:
    """Whether there is a pin at ``path``, of what is being detached or of a dead TCX link.

    :raises Refusal: where it pins anything else.
    """
    with _opened_pin(path) as fd:
        if fd is None:
            return False
        link = bpf.tcx_link_info(fd)
        if link is not None and (link.ifindex == 0 or (held and held.link_id == link.link_id)):
            return True
        if held and bpf.is_program(fd) and bpf.program_info(fd).program_id == held.program_id:
            return True
    raise Refusal(f"pin: {path} pins something else than what is attached here; left alone")


@contextmanager
def _pinned(fd: int, path: str) -> Iterator[None]:
    """Pin ``fd`` and close it once the body has succeeded, in an older pin's place in one step.

    The pin is made aside before the body, so that what can fail of it fails before anything is
    attached. (bpffs allows no dot in a name.)
    """
    aside = f"{path}_{os.getpid()}"
    try:
        bpf.pin(fd, aside)
    finally:
        os.close(fd)
    try:
        yield
    except BaseException:
        bpf.unpin(aside)
        raise
    os.replace(aside, path)
