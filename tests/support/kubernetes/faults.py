# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults that a test injects, instead of or in the middle of correct answers."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.problems import Problem


@dataclass
class _Fault:
    method: str
    path: re.Pattern[str]
    left: int
    #: So many matching requests pass before the fault.
    spare: int = 0
    #: 0: the connection is closed without an answer.
    status: int = 0
    after: int = 0

    def meets(self, method: str, path: str) -> bool:
        return self.left > 0 and self.method == method and bool(self.path.search(path))


class Faults:
    """The faults in the order of their injection; each is used up by the requests that match."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ordered: list[_Fault] = []

    def refuse(
        self, method: str, path: str, status: int, times: int = 1, *, spare: int = 0
    ) -> None:
        """Answer ``status``, and do nothing, to requests whose path a regular expression finds.

        The first ``spare`` of them are let pass.
        """
        self._order(_Fault(method, re.compile(path), times, spare, status=status))

    def cut(self, method: str, path: str, times: int = 1) -> None:
        """Break the connection of requests whose path a regular expression finds, unanswered."""
        self._order(_Fault(method, re.compile(path), times))

    def cut_watch(self, path: str, after: int, times: int = 1) -> None:
        """Break the connection of a watch after so many events, without an end of its answer."""
        self._order(_Fault("WATCH", re.compile(path), times, after=after))

    @property
    def unmet(self) -> list[str]:
        """The faults that are not used up."""
        with self._lock:
            return [f"{f.method} {f.path.pattern}" for f in self._ordered if f.left]

    def meet(self, method: str, path: str) -> None:
        """Make a request fail if a fault matches it.

        :raises Problem: it is to be refused.
        :raises ConnectionAbortedError: it is to have no answer.
        """
        if fault := self._take(lambda f: f.meets(method, path)):
            if not fault.status:
                raise ConnectionAbortedError
            status = HTTPStatus(fault.status)
            raise Problem(status, status.phrase.replace(" ", ""), f"ordered: {status.phrase}")

    def watch_length(self, path: str) -> int | None:
        """After how many events the connection of a new watch breaks."""
        fault = self._take(lambda f: f.meets("WATCH", path))
        return fault.after if fault else None

    def _order(self, fault: _Fault) -> None:
        with self._lock:
            self._ordered.append(fault)

    def _take(self, meets: Callable[[_Fault], bool]) -> _Fault | None:
        with self._lock:
            fault = next(filter(meets, self._ordered), None)
            if fault and fault.spare:
                fault.spare -= 1
                return None
            if fault:
                fault.left -= 1
            return fault
