# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load one program of an ELF object, with the node's own libbpf.

Felix itself loads with libbpf; with ctypes nothing must be built on the node.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

from ..errors import ProgramRefused, Refusal, end_of
from . import bpf

_LIBBPF_WARN = 0
_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


def load(path: str, program: str | None) -> int:
    """Load only ``program`` (or the object's only one) as a TC classifier.

    :returns: the program's fd, which the caller closes.
    :raises Refusal: there is no such file or program, the object is broken, or the type is wrong.
    :raises ProgramRefused: the kernel refuses the program; with the verifier's log.
    """
    if not os.path.isfile(path):
        raise Refusal(f"object: there is no file {path}")
    lib = _library()
    words: list[str] = []
    printer = _printer_into(words)
    lib.libbpf_set_print(printer)
    handle = lib.bpf_object__open_file(os.fsencode(path), None)
    if not handle:
        reason = end_of(_reason(lib, ctypes.get_errno(), words))
        raise Refusal(f"object {path} can't be opened: {reason}")
    try:
        return _load_one(lib, handle, path, program, words)
    finally:
        lib.bpf_object__close(handle)


def _load_one(lib: Any, handle: int, path: str, program: str | None, words: list[str]) -> int:
    programs = _programs(lib, handle)
    name = _wanted(path, programs, program)
    kind = lib.bpf_program__type(programs[name])
    if kind != bpf.BPF_PROG_TYPE_SCHED_CLS:
        raise Refusal(
            f"program {name} of {path} has BPF program type {kind}; only a TC classifier "
            f'(type {bpf.BPF_PROG_TYPE_SCHED_CLS}, SEC("tc")) can be attached at a hook'
        )
    for other, pointer in programs.items():
        lib.bpf_program__set_autoload(pointer, other == name)
    result = lib.bpf_object__load(handle)
    if result:
        log = _reason(lib, -result, words)
        raise ProgramRefused(f"the kernel refused program {name} of {path}", log)
    return bpf.duplicate(lib.bpf_program__fd(programs[name]))


def _programs(lib: Any, handle: int) -> dict[str, int]:
    found: dict[str, int] = {}
    pointer = lib.bpf_object__next_program(handle, None)
    while pointer:
        found[lib.bpf_program__name(pointer).decode()] = pointer
        pointer = lib.bpf_object__next_program(handle, pointer)
    return found


def _wanted(path: str, programs: dict[str, int], program: str | None) -> str:
    names = ", ".join(sorted(programs)) or "none"
    if program is None:
        if len(programs) == 1:
            return next(iter(programs))
        raise Refusal(f"object {path} has the programs {names}: choose one with `program`")
    if program not in programs:
        raise Refusal(f"object {path} has no program {program}; it has {names}")
    return program


def _library() -> Any:
    try:
        lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise Refusal(
            f"`object` needs libbpf 1 on the node ({error}); on Debian and Ubuntu it is the "
            "package libbpf1, on RHEL libbpf"
        ) from None
    lib.bpf_object__open_file.restype = ctypes.c_void_p
    lib.bpf_object__open_file.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    lib.bpf_object__next_program.restype = ctypes.c_void_p
    lib.bpf_object__next_program.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    lib.bpf_program__name.restype = ctypes.c_char_p
    lib.bpf_program__set_autoload.argtypes = [ctypes.c_void_p, ctypes.c_bool]
    for function in (
        "bpf_program__name",
        "bpf_program__type",
        "bpf_program__fd",
        "bpf_object__load",
        "bpf_object__close",
    ):
        getattr(lib, function).argtypes = [ctypes.c_void_p]
    return lib


def _printer_into(words: list[str]) -> Any:
    """A libbpf print callback that keeps the warnings, which include the verifier's log."""
    libc = ctypes.CDLL(None)
    libc.vsnprintf.argtypes = [
        ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p
    ]  # fmt: skip

    def keep(level: int, layout: bytes, arguments: int) -> int:
        if level == _LIBBPF_WARN:
            text = ctypes.create_string_buffer(1 << 18)
            libc.vsnprintf(text, len(text), layout, arguments)
            words.append(text.value.decode(errors="backslashreplace"))
        return 0

    return _PRINT(keep)


def _reason(lib: Any, number: int, words: list[str]) -> str:
    text = ctypes.create_string_buffer(128)
    lib.libbpf_strerror(number, text, len(text))
    return "\n".join([text.value.decode(), *(word.rstrip() for word in words)])
