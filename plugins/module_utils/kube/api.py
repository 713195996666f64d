# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Kubernetes API by paths and plain dicts, with retries while the server is busy or away."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from ..errors import ApiError
from .clock import CLOCK, Clock

Object = dict[str, Any]
Kept = TypeVar("Kept")

_JSON = "application/json"
_TRANSIENT = frozenset({429, 500, 502, 503, 504})
#: Objects in one answer, as in kubectl; and how often reading a list that expires is started.
_PAGE, _STARTS = 500, 3
_GONE = 410
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 4.0


class ConnectionLost(ApiError):
    """The server did not respond."""


class BudgetExhausted(ApiError):
    """A PodDisruptionBudget does not allow an eviction now, as ``message`` says.

    The server works as it should: an immediate retry does not help.
    """

    def __init__(self, operation: str, status: int, reason: str, message: str) -> None:
        super().__init__(operation, status, reason, message)
        self.message = message


class _Expired(Exception):
    """The server no longer has the snapshot that a list's next page belongs to."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(str(error))
        self.error = error


class Send(Protocol):
    """Sends one request and returns the body of the answer."""

    def __call__(
        self, method: str, path: str, query: Mapping[str, Any], content_type: str, body: Any
    ) -> bytes:
        """:raises ApiError: the server answered with an error, or not at all."""


def discard(text: str) -> None:
    """A ``log`` that drops what it gets."""


class Kube:
    """The Kubernetes API by paths and plain dicts.

    Requests that end in 429, 5xx or a lost connection are retried for ``patience`` seconds, and
    ``log`` gets a line about it. A write whose answer was lost may be sent twice: the error of the
    second (409, or 404 for a delete) is raised like any other. Every method raises ``ApiError``.
    """

    def __init__(
        self,
        send: Send,
        patience: float = 60.0,
        log: Callable[[str], None] = discard,
        clock: Clock = CLOCK,
    ) -> None:
        self._send = send
        self._patience = patience
        self._log = log
        self._clock = clock

    def without_retries(self) -> Kube:
        """The same API without retries."""
        return Kube(self._send, 0, self._log, self._clock)

    def get(self, path: str, **query: Any) -> Object:
        return self._ask("GET", path, query)

    def find(self, path: str) -> Object | None:
        """None if there is no such object."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def items(self, path: str, **query: Any) -> list[Object]:
        """All objects of a list that does not grow with the cluster."""
        return self.collect(path, lambda listed: listed, **query)

    def collect(self, path: str, keep: Callable[[Object], Kept | None], **query: Any) -> list[Kept]:
        """What ``keep`` returns for each object of a list, without None.

        The list is read in pages, with one page in memory at a time. All pages are of one snapshot:
        if the server no longer has it (410), reading starts over. The result is never partial.
        """
        starts = 0
        while True:
            starts += 1
            try:
                return self._collect_once(path, keep, query)
            except _Expired as expired:
                if starts == _STARTS:
                    raise expired.error from expired
            self._log(f"GET {path}: the list expired while it was read; started over")

    def _collect_once(
        self, path: str, keep: Callable[[Object], Kept | None], query: Mapping[str, Any]
    ) -> list[Kept]:
        """:raises _Expired: the server no longer has the snapshot of the list."""
        kept: list[Kept] = []
        page: dict[str, Any] = {"limit": _PAGE, **query}
        while True:
            try:
                answer = self.get(path, **page)
            except ApiError as error:
                if error.status == _GONE and "continue" in page:
                    raise _Expired(error) from error
                raise
            following = (answer.get("metadata") or {}).get("continue")
            if "items" not in answer or (following and following == page.get("continue")):
                raise ApiError(f"GET {path}", 200, "", "the answer is not the list's next page")
            kept += [made for listed in answer["items"] or () if (made := keep(listed)) is not None]
            if not following:
                return kept
            page["continue"] = following
            del answer  # before the next page arrives

    def text(self, path: str, **query: Any) -> str:
        """An answer that is not JSON, such as a log."""
        return self._send_with_retries("GET", path, query).decode(errors="replace")

    def create(self, path: str, body: Object, *, dry_run: bool = False) -> Object:
        return self._ask("POST", path, _dry(dry_run), body)

    def replace(self, path: str, body: Object) -> Object:
        return self._ask("PUT", path, body=body)

    def patch(self, path: str, body: Any, kind: str = "merge", *, dry_run: bool = False) -> Object:
        """``kind``: merge, strategic-merge, or json, where ``body`` is a list of operations."""
        return self._ask("PATCH", path, _dry(dry_run), body, f"application/{kind}-patch+json")

    def delete(self, path: str, body: Object | None = None) -> Object:
        """``body``: the DeleteOptions."""
        return self._ask("DELETE", path, body=body)

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = _JSON,
    ) -> Object:
        answer: Object = json.loads(
            self._send_with_retries(method, path, query or {}, content_type, body)
        )
        return answer

    def _send_with_retries(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        content_type: str = _JSON,
        body: Any = None,
    ) -> bytes:
        until = self._clock.now() + self._patience
        pause = _FIRST_PAUSE
        while True:
            try:
                return self._send(method, path, query, content_type, body)
            except ApiError as error:
                if not _is_transient(error) or self._clock.now() + pause > until:
                    raise
                if pause == _FIRST_PAUSE:
                    self._log(f"{error}; retried for {self._patience:.0f} s")
            self._clock.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _dry(run: bool) -> dict[str, str]:
    return {"dryRun": "All"} if run else {}


def _is_transient(error: ApiError) -> bool:
    """Whether a retry may succeed."""
    if isinstance(error, BudgetExhausted):
        return False
    return isinstance(error, ConnectionLost) or error.status in _TRANSIENT
