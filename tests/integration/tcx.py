# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TCX links as Felix 3.31 and later attaches and pins them, by bpf(2) itself.

bpftool 7.1, libbpf 1.1 and tc of Debian 12 do not know TCX. Nothing here is the code under test's.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.tests.integration.lab import Lab

#: felix/bpf/bpfdefs/defs.go at v3.31.0, TcxPinDir.
PINS = Path("/sys/fs/bpf/tcx")
_OBJ_PIN, _OBJ_GET, _PROG_ATTACH, _PROG_QUERY, _LINK_CREATE = 6, 7, 8, 16, 28
_ATTACH_TYPES = {"ingress": 46, "egress": 47}
_SYSCALL = {"x86_64": 321, "ppc64le": 361, "s390x": 351}.get(os.uname().machine, 280)
_libc = ctypes.CDLL(None, use_errno=True)


def attach(lab: Lab, interface: str, hook: str, program: str) -> Path:
    """Attach a pinned program by a link; where the link is pinned (attach.go, ProgPinPath)."""
    PINS.mkdir(exist_ok=True)
    pin = PINS / f"{interface.replace('.', '')}_{hook}"
    fd = _object_at(program)
    try:
        with entered(lab.netns):
            ifindex = socket.if_nametoindex(interface)
            link, _unused = _bpf(
                _LINK_CREATE, "=IIIIIIQ", fd, ifindex, _ATTACH_TYPES[hook], 0, 0, 0, 0
            )
    finally:
        os.close(fd)
    try:
        path = ctypes.create_string_buffer(os.fsencode(pin))
        _bpf(_OBJ_PIN, "=QII", ctypes.addressof(path), link, 0)
    finally:
        os.close(link)
    return pin


def attach_without_link(lab: Lab, interface: str, hook: str, program: str) -> None:
    """Attach a pinned program behind those that are there; it stays until it is detached."""
    fd = _object_at(program)
    try:
        with entered(lab.netns):
            ifindex = socket.if_nametoindex(interface)
            _bpf(_PROG_ATTACH, "=IIIIIIQ", ifindex, fd, _ATTACH_TYPES[hook], 0, 0, 0, 0)
    finally:
        os.close(fd)


def programs(lab: Lab, interface: str, hook: str) -> list[tuple[int, int]]:
    """(program id, link id) of each TCX program at a hook, in the order in which they run."""
    found, links = (ctypes.c_uint32 * 64)(), (ctypes.c_uint32 * 64)()
    with entered(lab.netns):
        _unused, answer = _bpf(
            _PROG_QUERY, "=IIIIQIIQQQQ",
            socket.if_nametoindex(interface), _ATTACH_TYPES[hook], 0, 0,
            ctypes.addressof(found), 64, 0, 0, ctypes.addressof(links), 0, 0,
        )  # fmt: skip
    count = struct.unpack_from("=I", answer, 24)[0]
    return list(zip(found[:count], links[:count], strict=True))


def remove_pins(interfaces: list[str]) -> None:
    """What is pinned for interfaces that are gone outlives them."""
    for interface in interfaces:
        for hook in _ATTACH_TYPES:
            (PINS / f"{interface.replace('.', '')}_{hook}").unlink(missing_ok=True)


def _object_at(pin: str) -> int:
    path = ctypes.create_string_buffer(os.fsencode(pin))
    return _bpf(_OBJ_GET, "=QII", ctypes.addressof(path), 0, 0)[0]


def _bpf(command: int, layout: str, *values: int) -> tuple[int, ctypes.Array[ctypes.c_char]]:
    """The call's result, and its attributes as the kernel left them."""
    attributes = ctypes.create_string_buffer(struct.pack(layout, *values), 128)
    size = struct.calcsize(layout)
    result: int = _libc.syscall(_SYSCALL, command, ctypes.byref(attributes), size)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command})")
    return result, attributes
