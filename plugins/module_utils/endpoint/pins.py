# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pin the program or the link that a change attaches, and remove such a pin."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import DataplaneError, KernelError, Refusal
from ..kernel import bpf
from ..model import Attachment
from .attach import Change


def require_bpffs(path: str | None) -> None:
    """:raises Refusal: the directory of ``path`` is not on a BPF file system."""
    if path and not bpf.is_bpffs(os.path.dirname(path)):
        raise Refusal(
            f"pin: {os.path.dirname(path) or '.'} is not a directory on a BPF file system "
            "(mount -t bpf bpf /sys/fs/bpf); nothing was changed"
        )


def with_pin(change: Change, path: str, open_object: Callable[[], int]) -> Change:
    """``change`` that also pins the object whose descriptor ``open_object`` returns."""

    def apply() -> None:
        with _pinned(open_object(), path):
            if change.apply:
                change.apply()

    return Change(change.before, change.after, apply)


def removal(
    current: Attachment | None, path: str | None, remove: Callable[[Attachment], None]
) -> Change:
    """Detach ``current`` and remove its pin at ``path``.

    :raises Refusal: another object is pinned there.
    """
    pin = path if path and _may_unpin(path, current) else None
    if current is None and pin is None:
        return Change(None, None, None)

    def apply() -> None:
        if current is not None:
            remove(current)
        if pin is not None:
            bpf.unpin(pin)

    return Change(current, None, apply)


def pinned_program(path: str, name: str) -> int | None:
    """The id of the program pinned at ``path``, possibly an older one with that name.

    :raises Refusal: another object is pinned there.
    """
    with _opened_pin(path) as fd:
        if fd is None:
            return None
        if not bpf.is_program(fd) or bpf.program_info(fd).name != name:
            raise Refusal(
                f"pin: {path} pins an object other than a program {name}; nothing was changed"
            )
        return bpf.program_info(fd).program_id


def link_is_pinned(path: str, link_id: int) -> bool:
    """Whether the TCX link is pinned at ``path``.

    :raises Refusal: another object is pinned there; removing its pin could detach it.
    """
    with _opened_pin(path) as fd:
        if fd is None:
            return False
        link = bpf.tcx_link_info(fd)
        if link is None or link.link_id != link_id:
            raise Refusal(f"pin: {path} pins another object; nothing was changed")
        return True


def _may_unpin(path: str, current: Attachment | None) -> bool:
    """Whether ``path`` pins what is detached, or a dead TCX link.

    :raises Refusal: another object is pinned there.
    """
    with _opened_pin(path) as fd:
        if fd is None:
            return False
        link = bpf.tcx_link_info(fd)
        if link is not None and (
            link.ifindex == 0 or (current and current.link_id == link.link_id)
        ):
            return True
        program_id = bpf.program_info(fd).program_id if bpf.is_program(fd) else None
        if current and program_id == current.program_id:
            return True
    raise Refusal(f"pin: {path} pins an object that is not attached here; nothing was changed")


@contextmanager
def _opened_pin(path: str) -> Iterator[int | None]:
    """The descriptor of the object pinned at ``path``; None if the path does not exist.

    :raises Refusal: the path exists but is not a BPF object.
    """
    if not os.path.lexists(path):
        yield None
        return
    try:
        fd = bpf.open_pin(path)
    except KernelError as error:
        raise Refusal(
            f"pin: {path} exists but is not a BPF object ({error}); nothing was changed"
        ) from error
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _pinned(fd: int, path: str) -> Iterator[None]:
    """Pin and close ``fd``; once the body has succeeded, its pin replaces an older one at ``path``.

    The pin is made under another name before the body runs, so that a pin that cannot be made fails
    before anything is attached. (bpffs does not allow a dot in a name.)
    """
    aside = f"{path}_{os.getpid()}"
    try:
        bpf.pin(fd, aside)
    finally:
        os.close(fd)
    try:
        yield
    except BaseException as error:
        try:
            bpf.unpin(aside)
        except KernelError as kept:
            raise DataplaneError(f"{error}; the pin {aside} is left behind ({kept})") from error
        raise
    bpf.move_pin(aside, path)
