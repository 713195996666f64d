# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends the process of a task together with its run.

Ansible forks a worker for each task. A run that is killed does not end its workers: one that waits
would renew the Lease, and change the cluster, beside the run that takes over.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time

from ansible.utils.multiprocessing import context

_PR_SET_PDEATHSIG = 1
#: Seconds between two looks at the parent, where the kernel does not do it.
_POLL = 0.5


def end_with_run() -> None:
    """Have this process killed when its run ends; at once if it has ended already.

    The run is the process that forked this one, by the word of multiprocessing: the parent that
    the kernel names is another as soon as the run has ended. A task in the run's own process ends
    with that anyway.
    """
    run = context.parent_process()
    if run is None:
        return
    if not _killed_by_kernel():
        threading.Thread(target=_watch, args=(run.pid,), daemon=True).start()
    if os.getppid() != run.pid:  # after the request, or an end in between would be missed
        _die()


def _killed_by_kernel() -> bool:
    """Whether the kernel kills this process when its parent ends: Linux does, if asked."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    return prctl is not None and prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) == 0


def _watch(run: int) -> None:
    while os.getppid() == run:
        time.sleep(_POLL)
    _die()


def _die() -> None:
    """As the run did: no process is left to report to."""
    os.kill(os.getpid(), signal.SIGKILL)
