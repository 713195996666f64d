# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cgroups for the pods of a lab, named as a kubelet with the cgroupfs driver names them.

A process belongs to a pod by its cgroup, and by nothing else that can be seen on a node.
"""

from __future__ import annotations

import time
from pathlib import Path

_MOUNT = Path("/sys/fs/cgroup")
#: Seconds for killed processes to leave their cgroups.
_PATIENCE = 10.0


def pod_cgroup(lab: str, uid: str) -> Path:
    """Create the cgroup of a pod in those of a lab."""
    made = _of_lab(lab) / "kubepods/burstable" / f"pod{uid}"
    made.mkdir(parents=True, exist_ok=True)
    return made


def entering(cgroup: Path) -> list[str]:
    """The command that runs a command in a cgroup; it must run in the initial pid namespace."""
    return ["sh", "-c", 'echo "$$" > "$0/cgroup.procs" && exec "$@"', str(cgroup)]


def remove_cgroups(lab: str) -> None:
    """Remove those of a lab, whose processes have ended or are about to.

    :raises OSError: a process is still in one.
    """
    deadline = time.monotonic() + _PATIENCE
    while (root := _of_lab(lab)).exists():
        try:
            for folder in sorted(filter(Path.is_dir, root.rglob("*")), reverse=True):
                folder.rmdir()
            root.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _of_lab(lab: str) -> Path:
    return _hierarchy() / f"calico-bpf-{lab}"


def _hierarchy() -> Path:
    """The unified hierarchy; with cgroup v1 any of them, since each names the same cgroup."""
    unified = (_MOUNT / "cgroup.procs").exists()
    return _MOUNT if unified else _MOUNT / "pids"
