# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Preambles with constants of their own, loaded as Felix loads them (felix/bpf/tc/attach.go).

Tests use a preamble of their own, and Calico's real ones where ``CALICO_SOURCES`` names a clone of
github.com/projectcalico/calico.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from ..netns import lab as labs
from .libbpf import checked, loaded

_serial = count(1)
SOURCES = "CALICO_SOURCES"
NONE = 0xFFFFFFFF
_libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
_libbpf.bpf_object__next_map.restype = ctypes.c_void_p
_libbpf.bpf_map__name.restype = ctypes.c_char_p


@dataclass(frozen=True)
class Layout:
    """The bytes of a release's constants: those of one IP version, how often, and two offsets.

    Measured with offsetof, compiled from felix/bpf-gpl/globals.h at the release's tag.
    """

    size: int
    versions: int
    name: int
    jumps: int


V3_27 = Layout(size=220, versions=1, name=40, jumps=60)
V3_28 = Layout(size=256, versions=2, name=76, jumps=96)
LAYOUTS = {
    "v3.27.0": V3_27,
    "v3.27.5": V3_27,
    "v3.28.1": V3_28,
    "v3.29.1": V3_28,
    "v3.29.7": V3_28,
    "v3.30.7": V3_28,
    "v3.31.7": Layout(size=264, versions=2, name=80, jumps=100),
    "v3.32.1": Layout(size=268, versions=2, name=80, jumps=100),
}


def constants(layout: Layout, interface: str, *jumps: Mapping[int, int]) -> bytes:
    """The constants of a preamble; ``jumps`` for IPv4 and then IPv6, by enum cali_jump_index."""
    halves = []
    for version in range(layout.versions):
        half = bytearray(range(layout.size % 251)) * 2
        half = half[: layout.size].ljust(layout.size, b"\0")
        name = interface.encode().ljust(15, b"-") + b"\0"
        half[layout.name : layout.name + 16] = name
        wanted = jumps[version] if version < len(jumps) else {}
        indices = [wanted.get(n, NONE) for n in range(40)]
        struct.pack_into("=I40I", half, layout.jumps - 4, NONE, *indices)
        halves.append(bytes(half))
    return b"".join(halves)


def compile_preamble(release: str, into: Path) -> Path:
    """The preamble of a release from the clone, or with ``""`` that of the tests."""
    target = into / f"preamble{release}.o"
    if target.exists():
        return target
    if not release:
        source = labs.CHECKOUT / "tests/support/tc/programs/preamble.c"
        return labs.compile_program(source, target)
    sources = into / release
    sources.mkdir()
    archive = subprocess.run(
        ["git", "-C", os.environ[SOURCES], "archive", release, "felix/bpf-gpl"],
        check=True,
        capture_output=True,
    )
    subprocess.run(["tar", "x", "-C", str(sources)], input=archive.stdout, check=True)
    flags = ("-I/usr/include/bpf", "-D__TARGET_ARCH_x86", "-D__x86_64__")
    return labs.compile_program(sources / "felix/bpf-gpl/tc_preamble.c", target, *flags)


def load(path: Path, values: bytes, pins: Path) -> Path:
    """Load a preamble with ``values`` as its constants; its maps are shared in ``pins``.

    :returns: the pin, whose file name is that of the filter that ``tc`` attaches.

    :raises OSError: the kernel refuses it.
    """
    with loaded(path, configure=lambda opened: _configure(opened, values, pins)) as fd:
        pin = pins / f"preamble-{next(_serial)}" / "cali_tc_preambl"
        pin.parent.mkdir()
        checked(_libbpf.bpf_obj_pin(fd, os.fsencode(pin)))
        return pin


def fill(array: Path, index: int, pinned: str) -> None:
    """Put a pinned program into a pinned program array."""
    key = [str(byte) for byte in struct.pack("=I", index)]
    array_at, program_at = ("pinned", str(array)), ("pinned", pinned)
    labs.run("bpftool", "map", "update", *array_at, "key", *key, "value", *program_at)


def _configure(opened: ctypes.c_void_p, values: bytes, pins: Path) -> None:
    found = _libbpf.bpf_object__next_map(opened, None)
    while found:
        a_map = ctypes.c_void_p(found)
        name = _libbpf.bpf_map__name(a_map).decode()
        if name.endswith(".rodata"):
            checked(_libbpf.bpf_map__set_initial_value(a_map, values, len(values)))
        elif ".rodata" not in name:
            checked(_libbpf.bpf_map__set_pin_path(a_map, os.fsencode(pins / name)))
        found = _libbpf.bpf_object__next_map(opened, a_map)
