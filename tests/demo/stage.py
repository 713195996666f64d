# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What both demos need: headings, tables, promises, and senders that leave the CPU to others."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_PR_SET_TIMERSLACK = 29


class Promises:
    """What must hold at the end; a broken promise is reported at once."""

    def __init__(self) -> None:
        self.broken: list[str] = []

    def require(self, good: bool, what: str) -> None:
        if not good:
            self.broken.append(what)
            print(f"  NOT AS PROMISED: {what}", flush=True)


def heading(number: int, text: str) -> None:
    print(f"\n{number}. {text}", flush=True)


def show(lines: Sequence[Sequence[str]]) -> None:
    """A table; ``lines`` are its rows."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print(" ", "  ".join(f"{cell:{w}}" for cell, w in zip(line, widths, strict=True)).rstrip())


@contextmanager
def unhurried() -> Iterator[None]:
    """Processes started here oversleep by up to a millisecond, which limits their packet rate.

    At full speed, as in the tests, a dozen of them use up two CPUs.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(1_000_000))
    try:
        yield
    finally:
        libc.prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(0))  # the default again
