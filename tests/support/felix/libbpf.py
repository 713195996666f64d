# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libbpf, called as Felix calls it (felix/bpf/libbpf/libbpf_api.h), in the caller's namespace."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HOOKS = ("ingress", "egress")
Slot = tuple[int, int]

_libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
_libbpf.libbpf_set_print(None)  # it writes the kernel's refusals to stderr
for _name in ("bpf_object__open", "bpf_object__find_program_by_name"):
    getattr(_libbpf, _name).restype = ctypes.c_void_p
_TC_F_REPLACE = 1
_BOTH_HOOKS = 3


class _TcHook(ctypes.Structure):
    """struct bpf_tc_hook"""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("ifindex", ctypes.c_int),
        ("attach_point", ctypes.c_int),
        ("parent", ctypes.c_uint32),
    )


class _TcOptions(ctypes.Structure):
    """struct bpf_tc_opts"""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("prog_fd", ctypes.c_int),
        ("flags", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("handle", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
    )


def checked(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def _tc_hook(interface: str, attach_point: int) -> _TcHook:
    return _TcHook(ctypes.sizeof(_TcHook), socket.if_nametoindex(interface), attach_point, 0)


@contextmanager
def loaded(
    path: Path,
    program: str = "cali_tc_preamble",
    configure: Callable[[ctypes.c_void_p], None] = lambda _opened: None,
) -> Iterator[int]:
    """A fresh copy of an object's program: its fd.

    :param configure: gets the object before it is loaded.
    :raises OSError: with the path as ``filename`` where the object cannot be opened; without where
        the kernel refuses it.
    """
    opened = ctypes.c_void_p(_libbpf.bpf_object__open(os.fsencode(path)))
    if not opened:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    try:
        configure(opened)
        checked(_libbpf.bpf_object__load(opened))
        found = _libbpf.bpf_object__find_program_by_name(opened, program.encode())
        yield checked(_libbpf.bpf_program__fd(ctypes.c_void_p(found)))
    finally:
        _libbpf.bpf_object__close(opened)


def attach(
    interface: str, hook: str, fd: int, *, priority: int = 0, handle: int = 0, replace: bool = False
) -> Slot:
    """bpf_tc_attach: in direct-action mode, for all protocols, in chain 0; 0 is "you choose".

    :raises OSError: with the kernel's errno.
    """
    flags = _TC_F_REPLACE if replace else 0
    options = _TcOptions(ctypes.sizeof(_TcOptions), fd, flags, 0, handle, priority)
    where = _tc_hook(interface, 1 << HOOKS.index(hook))
    checked(_libbpf.bpf_tc_attach(ctypes.byref(where), ctypes.byref(options)))
    return options.priority, options.handle


def create_clsact(interface: str) -> None:
    """:raises OSError: EEXIST where an ingress qdisc sits in its place."""
    checked(_libbpf.bpf_tc_hook_create(ctypes.byref(_tc_hook(interface, 1))))


def remove_clsact(interface: str) -> None:
    """With all that is attached to it."""
    checked(_libbpf.bpf_tc_hook_destroy(ctypes.byref(_tc_hook(interface, _BOTH_HOOKS))))
