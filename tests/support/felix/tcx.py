# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TCX links as Felix 3.31 and later attaches and pins them, by bpf(2), in the caller's namespace.

bpftool 7.1, libbpf 1.1 and tc of Debian 12 do not know TCX. Nothing here is the code under test's.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from pathlib import Path

#: felix/bpf/bpfdefs/defs.go at v3.31.0, TcxPinDir.
PINS = Path("/sys/fs/bpf/tcx")
_OBJ_PIN, _OBJ_GET, _PROG_ATTACH, _PROG_QUERY = 6, 7, 8, 16
_LINK_CREATE, _LINK_UPDATE, _LINK_DETACH = 28, 29, 34
_ATTACH_TYPES = {"ingress": 46, "egress": 47}
_SYSCALL = {"x86_64": 321, "ppc64le": 361, "s390x": 351}.get(os.uname().machine, 280)
_libc = ctypes.CDLL(None, use_errno=True)


def pin_of(interface: str, hook: str) -> Path:
    """felix/bpf/tc/attach.go at v3.31.0, ProgPinPath."""
    return PINS / f"{interface.replace('.', '')}_{hook}"


def attach(interface: str, hook: str, program: int) -> Path:
    """Attach a program, given by its fd, by a link behind those that are there; the link's pin."""
    PINS.mkdir(exist_ok=True)
    pin = pin_of(interface, hook)
    ifindex = socket.if_nametoindex(interface)
    link, _unused = _bpf(
        _LINK_CREATE, "=IIIIIIQ", program, ifindex, _ATTACH_TYPES[hook], 0, 0, 0, 0
    )
    try:
        path = ctypes.create_string_buffer(os.fsencode(pin))
        _bpf(_OBJ_PIN, "=QII", ctypes.addressof(path), link, 0)
    finally:
        os.close(link)
    return pin


def update(pin: Path, program: int) -> None:
    """:raises OSError: ENOLINK where the link's interface is gone."""
    link = pinned(pin)
    try:
        _bpf(_LINK_UPDATE, "=IIII", link, program, 0, 0)
    finally:
        os.close(link)


def detach(pin: Path) -> None:
    link = pinned(pin)
    try:
        _bpf(_LINK_DETACH, "=I", link)
    finally:
        os.close(link)


def attach_without_link(interface: str, hook: str, program: int) -> None:
    """Attach a program behind those that are there; it stays until it is detached."""
    ifindex = socket.if_nametoindex(interface)
    _bpf(_PROG_ATTACH, "=IIIIIIQ", ifindex, program, _ATTACH_TYPES[hook], 0, 0, 0, 0)


def programs(interface: str, hook: str) -> list[tuple[int, int]]:
    """(program id, link id) of each TCX program at a hook, in the order in which they run."""
    found, links = (ctypes.c_uint32 * 64)(), (ctypes.c_uint32 * 64)()
    _unused, answer = _bpf(
        _PROG_QUERY, "=IIIIQIIQQQQ",
        socket.if_nametoindex(interface), _ATTACH_TYPES[hook], 0, 0,
        ctypes.addressof(found), 64, 0, 0, ctypes.addressof(links), 0, 0,
    )  # fmt: skip
    count = struct.unpack_from("=I", answer, 24)[0]
    return list(zip(found[:count], links[:count], strict=True))


def pinned(pin: Path) -> int:
    """The fd of a pinned program or link."""
    path = ctypes.create_string_buffer(os.fsencode(pin))
    return _bpf(_OBJ_GET, "=QII", ctypes.addressof(path), 0, 0)[0]


def _bpf(command: int, layout: str, *values: int) -> tuple[int, ctypes.Array[ctypes.c_char]]:
    """The call's result, and its attributes as the kernel left them."""
    attributes = ctypes.create_string_buffer(struct.pack(layout, *values), 128)
    size = struct.calcsize(layout)
    result: int = _libc.syscall(_SYSCALL, command, ctypes.byref(attributes), size)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"bpf({command}): {os.strerror(number)}")
    return result, attributes
