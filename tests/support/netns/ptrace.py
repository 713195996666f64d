# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill a process at one of its system call boundaries, with ptrace(2)."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

_TRACEME, _SYSCALL, _SETOPTIONS = 0, 24, 0x4200
_EXITKILL = 1 << 20
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request: int, pid: int, data: int = 0) -> None:
    if _libc.ptrace(request, pid, None, data) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def killed_at(boundary: int, work: Callable[[], object]) -> bool:
    """Do ``work`` in a child that is killed after so many system calls; false if it makes fewer.

    The child stops twice for each call: when it enters the kernel, and when it leaves it.
    """
    child = os.fork()
    if child == 0:
        try:
            _ptrace(_TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    _ptrace(_SETOPTIONS, child, _EXITKILL)
    for _stop in range(2 * boundary):
        _ptrace(_SYSCALL, child)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status):
            assert os.waitstatus_to_exitcode(status) == 0, "the work failed"
            return False
        assert os.WIFSTOPPED(status), status
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    return True
