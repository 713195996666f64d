# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The clocks that waiting goes by, and the waiting itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone


def _utc() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class Clock:
    """Tests put their own in."""

    #: Seconds, for how long something takes.
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    #: The time of day, for what others read.
    utc: Callable[[], datetime] = _utc


CLOCK = Clock()
