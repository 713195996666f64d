# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a node runs Calico's eBPF dataplane, by what a Felix in that mode leaves on the node.

The workload interfaces alone do not show it: another program may have removed every filter.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from ..errors import KernelError
from .processes import Felix, felixes
from .snapshot import Reader, Snapshot

#: Felix pins its maps here, by names such as cali_v4_ct3 (felix/bpf/bpfdefs/defs.go at v3.31.0). A
#: Felix that is not in eBPF mode removes them when it starts (CleanUpProgramsAndPins in
#: felix/dataplane/linux/int_dataplane.go at v3.29.1).
MAP_PINS = "/sys/fs/bpf/tc/globals"
_MAP_PREFIX = "cali_"


class Mode(str, Enum):
    """``unknown``: there is no trace of eBPF mode, but not everything could be read."""

    EBPF = "ebpf"
    ABSENT = "absent"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Dataplane:
    """``why``: the evidence, or what is missing."""

    mode: Mode
    why: str


def read_dataplane(reader: Reader, snapshot: Snapshot, map_pins: str = MAP_PINS) -> Dataplane:
    """The mode of the node whose wanted interfaces are in ``snapshot``.

    :raises KernelError: the other interfaces cannot be read.
    """
    unread: list[str] = []
    evidence = next(_evidence(reader, snapshot, map_pins, unread), None)
    if evidence is not None:
        return Dataplane(Mode.EBPF, evidence)
    if unread:
        return Dataplane(
            Mode.UNKNOWN,
            "it is not known whether this node runs Calico's eBPF dataplane: could not read "
            f"{'; '.join(unread)}. Run as root",
        )
    return Dataplane(
        Mode.ABSENT,
        "there is no trace of Calico's eBPF dataplane on this node: no interface has a program of "
        f"Calico, {map_pins} has no map of Calico, and no Felix here uses BPF maps",
    )


def _evidence(
    reader: Reader, snapshot: Snapshot, map_pins: str, unread: list[str]
) -> Iterator[str]:
    """Each trace of eBPF mode, the cheapest to read first."""
    attached = sum(endpoint.has_calico for endpoint in snapshot.endpoints)
    if attached:
        yield f"{attached} of {len(snapshot.endpoints)} interfaces have programs of Calico"
    pinned = _pinned_maps(map_pins, unread)
    if pinned:
        yield f"maps of Calico in {map_pins}: {pinned}"
    for felix in _with_bpf_maps(unread):
        yield f"Felix (process {felix}) uses BPF maps"
    others = reader.read(["*"])
    names = [endpoint.interface for endpoint in others.endpoints if endpoint.has_calico]
    if names:
        yield f"{', '.join(names)}: programs of Calico"
    unread += [f"{what} ({why})" for what, why in others.unread.items()]


def _pinned_maps(directory: str, unread: list[str]) -> int:
    try:
        return sum(name.startswith(_MAP_PREFIX) for name in os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        unread.append(f"{directory} ({error.strerror})")
        return 0


def _with_bpf_maps(unread: list[str]) -> Iterator[int]:
    """The Felix processes of this network namespace that have BPF maps open."""
    for felix in _felixes(unread):
        try:
            if os.readlink(f"/proc/{felix.pid}/ns/net") != os.readlink("/proc/thread-self/ns/net"):
                continue
            if _has_map_open(felix.pid):
                yield felix.pid
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError as error:
            unread.append(f"the files of Felix (process {felix.pid}, {error.strerror})")


def _felixes(unread: list[str]) -> list[Felix]:
    try:
        return felixes()
    except KernelError as error:
        unread.append(str(error))
        return []


def _has_map_open(pid: int) -> bool:
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{name}") == "anon_inode:bpf-map":
                return True
        except FileNotFoundError:  # closed since
            continue
    return False
