# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watch a network namespace: which programs are attached and detached, and by which process.

The kernel reports each change of a filter. It only counts changes of TCX, so their
process is unknown.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing

from ..errors import DataplaneError, KernelError
from ..kernel.netlink import TcSocket
from ..kernel.processes import Sampler
from ..kernel.snapshot import matching
from ..kernel.tc_monitor import FilterChange, TcWatch
from ..kernel.tcx_revision import tcx_revision
from ..model import HOOKS
from .churn import Churn, Count

#: Seconds between two looks at the processes. A ``tc`` lives for some milliseconds.
_INTERVAL = 0.02


def watched(
    seconds: float, interfaces: Sequence[str], exclude: Sequence[str], sampler: Sampler
) -> Churn:
    """The changes of the next ``seconds`` at the interfaces that match these globs.

    :raises DataplaneError: without the privilege to query TCX.
    """
    with TcSocket() as tc, closing(TcWatch()) as watch:
        return _Window(tc, watch, sampler, interfaces, exclude).watched(seconds)


class _Window:
    def __init__(
        self,
        tc: TcSocket,
        watch: TcWatch,
        sampler: Sampler,
        interfaces: Sequence[str],
        exclude: Sequence[str],
    ) -> None:
        self._tc = tc
        self._watch = watch
        self._sampler = sampler
        self._wanted = interfaces, exclude
        self._names: dict[int, str] = {}
        self._count = Count()
        self._looked_at = 0.0

    def watched(self, seconds: float) -> Churn:
        start = time.monotonic()
        self._learn_names()
        revisions = self._revisions()
        left = seconds
        while left > 0:
            self._look()
            for change in self._watch.changes(min(_INTERVAL, left)):
                self._add(change)
            left = start + seconds - time.monotonic()
        self._look()
        self._add_tcx(revisions)
        return self._count.over(time.monotonic() - start, self._watch.overrun)

    def _learn_names(self) -> None:
        self._names.update({index: name for name, index in self._tc.links().items()})

    def _look(self) -> None:
        self._sampler.look()
        self._looked_at = time.monotonic()

    def _add(self, change: FilterChange) -> None:
        if change.ifindex not in self._names:
            self._learn_names()
            # It was created and deleted before its name was read.
            self._names.setdefault(change.ifindex, f"ifindex {change.ifindex}")
        name = self._names[change.ifindex]
        if matching([name], *self._wanted):
            self._count.add(name, change.added is not None, self._owner(change.port))

    def _revisions(self) -> dict[int, int]:
        """The sum of both hooks' revisions, by ifindex."""
        wanted = set(matching(self._names.values(), *self._wanted))
        try:
            return {
                index: sum(tcx_revision(index, hook) or 0 for hook in HOOKS)
                for index, name in self._names.items()
                if name in wanted
            }
        except KernelError as error:
            raise DataplaneError(f"{error}; watching needs root (become: true)") from None

    def _add_tcx(self, before: Mapping[int, int]) -> None:
        """Add the TCX changes of the interfaces that existed all the time."""
        for index, revision in self._revisions().items():
            changes = revision - before.get(index, revision)
            if changes > 0:
                self._count.add(self._names[index], True, "unknown", changes)

    def _owner(self, port: int) -> str:
        """The process of a port; the process may still exist if it is looked up at once."""
        owner = self._sampler.owner(port)
        if owner == "gone" and time.monotonic() - self._looked_at > _INTERVAL / 4:
            self._look()
            owner = self._sampler.owner(port)
        return owner
