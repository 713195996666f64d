# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What others see of the process: its command line, its CPU time, the tc processes it waits for."""

from __future__ import annotations

import ctypes
import subprocess
import threading
import time
from pathlib import Path

_PR_SET_NAME = 15
_PR_SET_MM, _PR_SET_MM_MAP = 35, 14
#: The kernel reads a process's command line from its memory: this must stay.
_shown: list[ctypes.Array[ctypes.c_char]] = []


class _MemoryMap(ctypes.Structure):
    """struct prctl_mm_map: unlike its fields one by one, set without CAP_SYS_RESOURCE."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in (
            "start_code", "end_code", "start_data", "end_data", "start_brk", "brk", "start_stack",
            "arg_start", "arg_end", "env_start", "env_end", "auxv",
        )),
        ("auxv_size", ctypes.c_uint32),
        ("exe_fd", ctypes.c_uint32),
    )  # fmt: skip


def show_as(*argv: str) -> None:
    """Have /proc/PID/cmdline and /proc/PID/comm tell these words.

    :raises OSError: the kernel has no CONFIG_CHECKPOINT_RESTORE, or would not.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.sbrk.restype = ctypes.c_void_p
    words = ctypes.create_string_buffer(b"".join(word.encode() + b"\0" for word in argv))
    _shown.append(words)
    start = ctypes.addressof(words)
    now = _addresses()
    memory = _MemoryMap(
        *(now[field] for field in (26, 27, 45, 46, 47)), libc.sbrk(0), now[28],
        start, start + len(words) - 1, now[50], now[51], 0, 0, 0xFFFFFFFF,
    )  # fmt: skip
    size = ctypes.c_ulong(ctypes.sizeof(memory))
    if libc.prctl(_PR_SET_MM, _PR_SET_MM_MAP, ctypes.byref(memory), size, ctypes.c_ulong(0)):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_MM_MAP)")
    libc.prctl(_PR_SET_NAME, ctypes.create_string_buffer(argv[0].encode()))


def _addresses() -> dict[int, int]:
    """The fields of /proc/self/stat from the third on, by their numbers in proc(5)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return {number: int(value) for number, value in enumerate(fields[1:], 4)}


class HeldTc:
    """``tc`` processes that hang: they wait for input that never comes, and go with its writer."""

    def __init__(self) -> None:
        self._held: list[subprocess.Popen[bytes]] = []

    def hold(self, count: int) -> None:
        while len(self._held) < count:
            self._held.append(subprocess.Popen(["tc", "-batch", "-"], stdin=subprocess.PIPE))
        while len(self._held) > count:
            self._held.pop().communicate()


class Burner:
    """CPU time used for nothing, without keeping the process's other threads from their work."""

    def __init__(self) -> None:
        self._cores = 0.0
        self._threads: list[threading.Thread] = []

    def burn(self, cores: float) -> None:
        self._cores = cores
        while len(self._threads) < cores:
            share = (len(self._threads),)
            thread = threading.Thread(target=self._burn, args=share, name="burn", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _burn(self, number: int) -> None:
        from hashlib import pbkdf2_hmac  # it takes long to import, and releases the GIL

        while True:
            duty = min(self._cores - number, 1.0)
            start = time.monotonic()
            if duty > 0:
                pbkdf2_hmac("sha256", b"", b"", 20000)
            busy = time.monotonic() - start
            time.sleep(busy * (1 - duty) / duty if duty > 0 else 0.2)
