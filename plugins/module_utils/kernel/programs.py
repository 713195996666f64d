# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open a program that is named in one of four ways."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import KernelError, Refusal
from . import bcc, bpf, libbpf


@dataclass(frozen=True)
class ProgramSpec:
    """Exactly one of ``object``, ``pinned``, ``program_id`` and ``source`` is given."""

    object: str | None = None
    program: str | None = None
    pinned: str | None = None
    program_id: int | None = None
    source: str | None = None
    function: str | None = None

    @property
    def is_running(self) -> bool:
        """Whether it names a program that is already loaded."""
        return self.pinned is not None or self.program_id is not None


@dataclass(frozen=True)
class Program:
    """An open program. ``fd`` is valid inside ``opened``'s body only."""

    fd: int
    info: bpf.ProgramInfo
    is_running: bool

    def is_the_one(self, program_id: int, tag: str) -> bool:
        """Whether an attached program is this one.

        A program that was just loaded is compared by its tag, the kernel's hash of its
        instructions. A tag does not depend on the maps (all Calico preambles have the same one), so
        a program that was already running is compared by its id.
        """
        if self.is_running:
            return program_id == self.info.program_id
        return tag == self.info.tag


@contextmanager
def opened(spec: ProgramSpec) -> Iterator[Program]:
    """:raises Refusal: there is no such program, or it is not a TC classifier."""
    fd = _open(spec)
    try:
        info = _info(fd, spec)
        if info.type != bpf.BPF_PROG_TYPE_SCHED_CLS:
            raise Refusal(
                f"program {info.program_id} ({info.name}) has BPF program type {info.type}; only "
                f"a TC classifier (type {bpf.BPF_PROG_TYPE_SCHED_CLS}) can be attached at a hook"
            )
        yield Program(fd, info, spec.is_running)
    finally:
        os.close(fd)


def _open(spec: ProgramSpec) -> int:
    if spec.object is not None:
        return libbpf.load(spec.object, spec.program)
    if spec.source is not None:
        return bcc.load(spec.source, spec.function or "")
    try:
        if spec.pinned is not None:
            return bpf.open_pin(spec.pinned)
        return bpf.program_fd(spec.program_id or 0)
    except KernelError as error:
        raise Refusal(f"{_named(spec)} can't be opened: {_why(error, spec)}") from error


def _info(fd: int, spec: ProgramSpec) -> bpf.ProgramInfo:
    if not bpf.is_program(fd):
        raise Refusal(f"{_named(spec)} is a BPF object, but not a program")
    return bpf.program_info(fd)


def _named(spec: ProgramSpec) -> str:
    return f"the pin {spec.pinned}" if spec.pinned else f"program id {spec.program_id}"


def _why(error: KernelError, spec: ProgramSpec) -> str:
    if error.errno == errno.ENOENT and spec.pinned:
        return "there is no such file (is bpffs mounted? mount -t bpf bpf /sys/fs/bpf)"
    if error.errno == errno.ENOENT:
        return "no such program is loaded"
    return str(error)
