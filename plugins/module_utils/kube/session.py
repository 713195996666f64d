# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every operation on the cluster uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .api import Kube, discard
from .clock import CLOCK, Clock
from .progress import Progress


def no_lease() -> None:
    """A ``renew_lease`` for a session without a Lease."""


@dataclass(frozen=True)
class Session:
    """The API, where progress is shown, the Lease, and the clock.

    ``renew_lease`` is called before each change and while waiting. It raises DataplaneError to end
    the operation.
    """

    kube: Kube
    log: Callable[[str], None] = discard
    renew_lease: Callable[[], object] = no_lease
    clock: Clock = CLOCK

    def progress(self) -> Progress:
        return Progress(self.log, self.clock)
