# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Enter a network namespace with setns(2).

Not pyroute2's NetNS: an audit must run without pyroute2, and os.setns needs Python 3.12.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import Refusal
from .syscalls import calling

_CLONE_NEWNET = 0x40000000
_NAMED = "/run/netns"
_libc = ctypes.CDLL(None, use_errno=True)


def path_of(netns: str) -> str:
    """The file of a namespace given by its name (as in ``ip netns``) or by its path."""
    return netns if "/" in netns else os.path.join(_NAMED, netns)


@contextmanager
def entered(netns: str | None) -> Iterator[None]:
    """Run the body in ``netns``; None is the namespace of the caller.

    :raises Refusal: there is no such namespace, or it may not be entered.
    """
    if netns is None:
        yield
        return
    with calling("open the caller's network namespace"):
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(path_of(netns))
        try:
            yield
        finally:
            with calling("return to the caller's network namespace"):
                _setns(home)
    finally:
        os.close(home)


def _enter(path: str) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Refusal(f"cannot open the network namespace {path}: {error.strerror}") from None
    try:
        _setns(fd)
    except OSError as error:
        hint = {
            errno.EPERM: "; it needs root (CAP_SYS_ADMIN)",
            errno.EINVAL: "; the file is not a network namespace",
        }.get(error.errno or 0, "")
        raise Refusal(
            f"cannot enter the network namespace {path}: {error.strerror}{hint}"
        ) from None
    finally:
        os.close(fd)


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
