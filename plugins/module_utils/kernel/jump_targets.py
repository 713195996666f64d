# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the programs that a preamble jumps to are loaded.

Felix attaches a preamble even if the programs behind it failed to load: 3.31.7 and 3.32.1 then
report ready and no dirty endpoint, and the preamble drops every packet.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from ..errors import KernelError
from ..model import EmptyProgArray, Hook, MissingTarget, Target
from . import bpf, preamble

_T = TypeVar("_T")
#: felix/bpf-gpl/jump.h: cali_progs3, or cali_progs_ing2 and cali_progs_egr2 from 3.31.3 on.
_PROGRAMS, _POLICIES = "cali_progs", "cali_jump"
#: libbpf's name for the map with an object's constants (bpf_object__init_internal_map).
_CONSTANTS = ".rodata"
#: Calico's have less than 600 bytes.
_MOST_CONSTANTS = 4096


class Targets(NamedTuple):
    """``known``: False if the program jumps through arrays, but not as a known preamble does."""

    empty: tuple[EmptyProgArray, ...] = ()
    missing: tuple[MissingTarget, ...] = ()
    known: bool = True


class TargetReader:
    """Reads the targets of programs; each array only once, so that it serves one snapshot."""

    def __init__(self) -> None:
        self._infos: dict[int, bpf.MapInfo | None] = {}
        self._loaded: dict[tuple[int, int], bool] = {}
        self._empty: dict[int, bool] = {}

    def read(self, interface: str, hook: Hook, program: bpf.ProgramInfo) -> Targets:
        """:raises KernelError: a map cannot be read."""
        maps = [info for info in map(self._info, program.map_ids) if info]
        arrays = [m for m in maps if m.type == bpf.BPF_MAP_TYPE_PROG_ARRAY]
        if not arrays:
            return Targets()
        programs, policies = _named(arrays, _PROGRAMS), _named(arrays, _POLICIES)
        jumps = self._jumps(interface, maps)
        if not jumps or not programs or not policies or not _fit(jumps, programs, policies):
            return Targets(self._empty_of(hook, program, arrays), known=False)
        used = [j for j in jumps if j.main is not None]
        if not used:
            place = "the preamble has no index for it, neither for IPv4 nor for IPv6"
            return Targets(missing=(_missing(hook, program, Target.MAIN, place),))
        found = [
            (target, array, index)
            for target, array, index in _wanted(used, programs, policies)
            if not self._is_loaded(array, index)
        ]
        return Targets(
            self._empty_of(hook, program, [a for _target, a, _index in found if a is programs]),
            tuple(
                _missing(hook, program, target, f"index {index} of {_shown(array)}")
                for target, array, index in found
                if array is policies or not self._is_empty(array)
            ),
        )

    def _info(self, map_id: int) -> bpf.MapInfo | None:
        """None if the map no longer exists."""
        if map_id not in self._infos:
            self._infos[map_id] = _map_info(map_id)
        return self._infos[map_id]

    def _jumps(self, interface: str, maps: list[bpf.MapInfo]) -> tuple[preamble.Jumps, ...]:
        for constants in maps:
            if _holds_constants(constants):
                return preamble.decode(_value(constants), interface)
        return ()

    def _is_loaded(self, array: bpf.MapInfo, index: int) -> bool:
        key = array.map_id, index
        if key not in self._loaded:
            self._loaded[key] = _has(array, range(index, index + 1))
        return self._loaded[key]

    def _is_empty(self, array: bpf.MapInfo) -> bool:
        if array.map_id not in self._empty:
            self._empty[array.map_id] = not _has(array, range(array.max_entries))
        return self._empty[array.map_id]

    def _empty_of(
        self, hook: Hook, program: bpf.ProgramInfo, arrays: list[bpf.MapInfo]
    ) -> tuple[EmptyProgArray, ...]:
        return tuple(
            EmptyProgArray(hook, program.program_id, array.map_id, array.name)
            for array in dict.fromkeys(arrays)
            if self._is_empty(array)
        )


def _named(arrays: list[bpf.MapInfo], prefix: str) -> bpf.MapInfo | None:
    return next((a for a in arrays if a.name.startswith(prefix)), None)


def _holds_constants(m: bpf.MapInfo) -> bool:
    return (
        m.type == bpf.BPF_MAP_TYPE_ARRAY
        and m.name.endswith(_CONSTANTS)
        and m.value_size <= _MOST_CONSTANTS
    )


def _fit(jumps: tuple[preamble.Jumps, ...], programs: bpf.MapInfo, policies: bpf.MapInfo) -> bool:
    """Whether every index is one of its array, as it is if the layout is the known one."""
    return all(index < array.max_entries for _t, array, index in _wanted(jumps, programs, policies))


def _wanted(
    jumps: Iterable[preamble.Jumps], programs: bpf.MapInfo, policies: bpf.MapInfo
) -> Iterator[tuple[Target, bpf.MapInfo, int]]:
    """Each program that these jumps lead to, with its array and index."""
    for version in jumps:
        if version.main is not None:
            yield Target.MAIN, programs, version.main
        if version.policy is not None:
            yield Target.POLICY, policies, version.policy
        for index in version.others:
            yield Target.OTHER, programs, index


def _missing(hook: Hook, program: bpf.ProgramInfo, target: Target, place: str) -> MissingTarget:
    return MissingTarget(hook=hook, program_id=program.program_id, target=target, place=place)


def _shown(array: bpf.MapInfo) -> str:
    return f"{array.name} (map {array.map_id})"


def _map_info(map_id: int) -> bpf.MapInfo | None:
    return _with_map(map_id, bpf.map_info, None)


def _value(constants: bpf.MapInfo) -> bytes:
    return _with_map(constants.map_id, lambda fd: bpf.first_value(fd, constants.value_size), b"")


def _has(array: bpf.MapInfo, indices: range) -> bool:
    """Whether the array holds a program at one of ``indices``; true if it no longer exists."""
    return _with_map(
        array.map_id, lambda fd: any(bpf.prog_array_has(fd, index) for index in indices), True
    )


def _with_map(map_id: int, read: Callable[[int], _T], gone: _T) -> _T:
    """What ``read`` makes of the map's descriptor; ``gone`` if the map no longer exists."""
    try:
        fd = bpf.map_fd(map_id)
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return gone
        raise
    try:
        return read(fd)
    finally:
        os.close(fd)
