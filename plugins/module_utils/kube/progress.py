# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows progress while an operation waits."""

from __future__ import annotations

from collections.abc import Callable

from .clock import CLOCK, Clock


class Progress:
    """Shows what an operation waits for: at each change, and again every ``every`` seconds."""

    def __init__(
        self, log: Callable[[str], None], clock: Clock = CLOCK, every: float = 10.0
    ) -> None:
        self._log = log
        self._clock = clock
        self._every = every
        self._started = self._shown_at = clock.now()
        self._shown = ""

    @property
    def seconds(self) -> float:
        """How long the operation has waited."""
        return self._clock.now() - self._started

    def show(self, text: str) -> None:
        now = self._clock.now()
        if text != self._shown or now - self._shown_at >= self._every:
            self._shown, self._shown_at = text, now
            self._log(f"{text} ({self.seconds:.0f} s)")
