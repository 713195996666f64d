# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count how often programs are attached and detached, and by which process. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Interface:
    interface: str
    attached: int = 0
    detached: int = 0
    by: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Churn:
    """``overrun``: the kernel dropped changes, so the counts are too low."""

    seconds: float
    changes: int
    per_minute: float
    interfaces: tuple[Interface, ...]
    overrun: bool


class Count:
    """Counts by interface."""

    def __init__(self) -> None:
        self._interfaces: dict[str, Interface] = {}

    def add(self, interface: str, attached: bool, by: str, times: int = 1) -> None:
        counted = self._interfaces.setdefault(interface, Interface(interface))
        if attached:
            counted.attached += times
        else:
            counted.detached += times
        if by not in counted.by:
            counted.by = sorted([*counted.by, by])

    def over(self, seconds: float, overrun: bool) -> Churn:
        """:param seconds: more than 0."""
        interfaces = tuple(self._interfaces[name] for name in sorted(self._interfaces))
        changes = sum(i.attached + i.detached for i in interfaces)
        per_minute = round(changes * 60 / seconds, 1)
        return Churn(
            seconds=round(seconds, 1),
            changes=changes,
            per_minute=per_minute,
            interfaces=interfaces,
            overrun=overrun,
        )
