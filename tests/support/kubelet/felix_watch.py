# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watches the Felix processes of a cluster: which pods have one, and whether two ran at once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple

from ansible_collections.dataplane.calico_bpf.tests.support.kubelet import cgroups
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.node import Node
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.waiting import wait_until

_INTERVAL = 0.02


@dataclass(frozen=True)
class Change:
    """A Felix process was seen for the first time, or no more.

    Those that run when the watch begins are its first changes.
    """

    #: By ``time.monotonic``.
    at: float
    sign: Literal["+", "-"]
    node: str
    pid: int
    uid: str

    def __str__(self) -> str:
        return f"{self.at:.2f} {self.sign}{self.pid} on {self.node} of pod {self.uid[:8]}"


class _Place(NamedTuple):
    """Where a Felix runs: on which node, in which pod."""

    node: str
    uid: str


class FelixWatch:
    """Looks at a cluster's processes every 20 ms from ``with`` on until that is left.

    Felix is taken from the nodes' cgroups, and its pod from its own: what the API says of the pods
    plays no part.
    """

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes = {node.name: node.cgroup for node in nodes}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._lock = threading.Lock()
        #: By process id.
        self._alive: dict[int, _Place] = {}
        self._changes: list[Change] = []
        self._most = 0
        self._error: BaseException | None = None

    def __enter__(self) -> FelixWatch:
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join()
        if self._error:
            raise RuntimeError("the watch ended early") from self._error

    @property
    def most(self) -> int:
        """How many pods of one node had a Felix at once, at most."""
        return self._most

    @property
    def changes(self) -> list[Change]:
        """Everything that changed, in order."""
        with self._lock:
            return list(self._changes)

    def alive(self, uid: str | None = None) -> list[int]:
        """The process ids of all Felixes at the last look, or of those of one pod."""
        with self._lock:
            return sorted(p for p, place in self._alive.items() if uid in (None, place.uid))

    def wait_started(self, uid: str) -> None:
        """Wait until a pod has a Felix."""
        wait_until(lambda: self.alive(uid), f"a Felix of pod {uid}")

    def wait_ended(self, uid: str) -> None:
        """Wait until a pod has no Felix."""
        wait_until(lambda: not self.alive(uid), f"no Felix of pod {uid}")

    def seconds_of_overlap(self) -> float:
        """For how long two pods of one node had a Felix, all such times together."""
        total, since = 0.0, None
        processes: Counter[_Place] = Counter()
        for change in self.changes:
            processes[_Place(change.node, change.uid)] += 1 if change.sign == "+" else -1
            overlaps = _most_of_a_node(+processes) > 1  # of those that have any
            if overlaps and since is None:
                since = change.at
            elif not overlaps and since is not None:
                total, since = total + change.at - since, None
        return total + (time.monotonic() - since if since is not None else 0.0)

    def __str__(self) -> str:
        """The timeline, for the message of a failed assertion."""
        return "\n".join(map(str, self.changes))

    def _watch(self) -> None:
        try:
            while not self._stopped.wait(_INTERVAL):
                self._look()
        except BaseException as error:
            self._error = error
            raise

    def _look(self) -> None:
        found = self._find()
        now = time.monotonic()
        # Finding takes a moment, in which one may end and another begin: they were not alive at
        # once. Those that still run all ran at this time.
        alive = {pid: place for pid, place in found.items() if _is_felix(pid)}
        with self._lock:
            self._record(now, "-", self._alive, alive)
            self._record(now, "+", alive, self._alive)
            self._alive = alive
        self._most = max(self._most, _most_of_a_node(set(alive.values())))

    def _find(self) -> dict[int, _Place]:
        return {
            pid: _Place(node, uid)
            for node, cgroup in self._nodes.items()
            for pid in cgroups.processes(cgroup)
            if _is_felix(pid) and (uid := cgroups.pod_uid(pid))
        }

    def _record(
        self,
        now: float,
        sign: Literal["+", "-"],
        felixes: dict[int, _Place],
        others: dict[int, _Place],
    ) -> None:
        """Note those that are only in the first."""
        for pid in felixes.keys() - others.keys():
            node, uid = felixes[pid]
            self._changes.append(Change(now, sign, node, pid, uid))


def _most_of_a_node(places: Iterable[_Place]) -> int:
    return max(Counter(place.node for place in places).values(), default=0)


def _is_felix(pid: int) -> bool:
    """Whether it runs Felix; a process that has ended and was not reaped yet has no arguments."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"calico-node\0-felix\0")
    return False
