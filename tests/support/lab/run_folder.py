# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder and cgroups for each lab that runs. A lock that is free shows what a killed one left."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ansible_collections.dataplane.calico_bpf.tests.support.lab.pod_cgroup import remove_cgroups
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import CHECKOUT

_RUNS = CHECKOUT / ".build/lab-runs"


@contextmanager
def run_folder() -> Iterator[Path]:
    """A new folder that goes at the end."""
    with _alone():
        folder = Path(tempfile.mkdtemp(dir=_RUNS))
        held = (folder / "lock").open("w")
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        with held:
            yield folder
    finally:
        remove_cgroups(folder.name)
        with _alone():
            shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers() -> None:
    """Remove the files of labs whose process is gone: all else went with the process."""
    with _alone():
        for lock in _RUNS.glob("*/lock"):
            with lock.open() as held:
                if _is_free(held):
                    remove_cgroups(lock.parent.name)
                    shutil.rmtree(lock.parent, ignore_errors=True)


def _is_free(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _alone() -> Iterator[None]:
    """No other process creates or removes a folder during this."""
    _RUNS.mkdir(parents=True, exist_ok=True)
    with (_RUNS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
