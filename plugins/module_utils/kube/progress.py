# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said while something is waited for: each change at once, and that it still is."""

from __future__ import annotations

from collections.abc import Callable

from .clock import CLOCK, Clock


class Progress:
    """Tells what is waited for when that changes, and every ``every`` seconds."""

    def __init__(
        self, tell: Callable[[str], None], clock: Clock = CLOCK, every: float = 10.0
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._every = every
        self._begun = self._told_at = clock.now()
        self._told = ""

    @property
    def seconds(self) -> float:
        """Since the waiting began."""
        return self._clock.now() - self._begun

    def show(self, text: str) -> None:
        now = self._clock.now()
        if text != self._told or now - self._told_at >= self._every:
            self._told, self._told_at = text, now
            self._tell(f"{text} ({self.seconds:.0f} s)")
