# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removes what outlives a cluster's processes, its cgroups and its files, however the cluster ends.

Run as a process of its own, which waits for the end of its input: ``leftovers FOLDER CGROUPS``.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.tests.support.kubelet import cgroups

_PATIENCE = 30.0


def remove(folder: Path, prefix: str) -> bool:
    """Remove the folder and all cgroups whose name begins so; whether none of it is left."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:  # the cluster's last processes may still be ending
        shutil.rmtree(folder, ignore_errors=True)
        if cgroups.remove_roots(prefix) and not folder.exists():
            return True
        time.sleep(0.05)
    return False


if __name__ == "__main__":
    sys.stdin.read()
    sys.exit(0 if remove(Path(sys.argv[1]), sys.argv[2]) else f"not all removed: {sys.argv[1:]}")
