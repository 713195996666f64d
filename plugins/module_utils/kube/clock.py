# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The clocks, and how to sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone


def _utc() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class Clock:
    """Tests replace it."""

    #: Seconds of a monotonic clock, to measure how long something takes.
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    #: The time of day, for timestamps.
    utc: Callable[[], datetime] = _utc

    def stamp(self) -> str:
        """The time of day to the second, as the API writes a Time."""
        return self.utc().strftime("%Y-%m-%dT%H:%M:%SZ")


CLOCK = Clock()
