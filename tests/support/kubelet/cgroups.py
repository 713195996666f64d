# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cgroups of a node: everything that its kubelet makes lies below one root of its own.

With cgroup v1 that root exists once in each hierarchy, with cgroup v2 once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_MOUNTED = Path("/sys/fs/cgroup")
#: What the kubelet requires of its root with cgroup v2, as far as the machine has them.
_CONTROLLERS = ("cpuset", "cpu", "memory", "hugetlb", "pids")
#: How kubelet and containerd name a pod's cgroup with the driver cgroupfs.
_POD = re.compile(r"/pod([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:/|$)", re.MULTILINE)


def is_v2() -> bool:
    return (_MOUNTED / "cgroup.controllers").exists()


def make_root(name: str) -> None:
    """Make the root cgroup of a node."""
    if is_v2():
        _enable_controllers()
    for hierarchy in _hierarchies():
        (hierarchy / name).mkdir()
        # With v1 a new cpuset is empty, and takes no process.
        for file in ("cpuset.cpus", "cpuset.mems"):
            if hierarchy.name == "cpuset":
                (hierarchy / name / file).write_text((hierarchy / file).read_text())


def remove_roots(prefix: str) -> bool:
    """Remove all roots whose name begins so, as far as they are empty; whether none is left."""
    for hierarchy in _hierarchies():
        for root in hierarchy.glob(f"{prefix}*"):
            for folder in sorted((root, *root.rglob("*/")), reverse=True):  # the deepest first
                with suppress(OSError):
                    folder.rmdir()
    return not roots(prefix)


def roots(prefix: str) -> list[Path]:
    """All root cgroups whose name begins so."""
    return [root for hierarchy in _hierarchies() for root in hierarchy.glob(f"{prefix}*")]


def processes(name: str) -> Iterator[int]:
    """The process ids of all processes below a node's root, as this process sees them."""
    hierarchy = _MOUNTED if is_v2() else _MOUNTED / "pids"
    pending = [hierarchy / name]
    while pending:
        folder = pending.pop()
        with suppress(OSError):  # it has just been removed
            yield from map(int, (folder / "cgroup.procs").read_text().split())
            pending += [entry for entry in folder.iterdir() if entry.is_dir()]


def pod_uid(pid: int) -> str | None:
    """The UID of the pod that a process belongs to; None for any other process."""
    with suppress(OSError):
        if found := _POD.search(Path(f"/proc/{pid}/cgroup").read_text()):
            return found[1]
    return None


def _hierarchies() -> list[Path]:
    if is_v2():
        return [_MOUNTED]
    # cpu and cpuacct often are links to one hierarchy.
    return sorted(
        entry for entry in _MOUNTED.iterdir() if entry.is_dir() and not entry.is_symlink()
    )


def _enable_controllers() -> None:
    """As systemd does; they stay enabled, as other users may rely on them by then."""
    available = (_MOUNTED / "cgroup.controllers").read_text().split()
    wanted = [f"+{name}" for name in _CONTROLLERS if name in available]
    (_MOUNTED / "cgroup.subtree_control").write_text(" ".join(wanted))
