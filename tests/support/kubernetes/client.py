# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Kubernetes client of a few lines, for the lab itself and for tests that look at HTTP."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.api import Api

Object = dict[str, Any]
_TYPES = {kind: f"application/{kind}-patch+json" for kind in ("merge", "strategic-merge", "json")}


@dataclass(frozen=True)
class Answer:
    code: int
    body: Any


class Refused(Exception):
    """The API refused a request; ``answer`` is its response."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.code}: {answer.body}")
        self.answer = answer


class Client:
    """Sends requests to an API; usable from several threads, each with its own connection."""

    def __init__(self, api: Api, user: str | None = None) -> None:
        self._address = urlsplit(api.url)
        self._tls = ssl.create_default_context(cafile=api.ca_file) if api.ca_file else None
        self._headers = {"Authorization": f"Bearer {api.token}"}
        self._headers |= {"Impersonate-User": user} if user else {}
        self._own = threading.local()

    def ask(
        self, method: str, path: str, body: Any = None, patch: str = "merge", **query: Any
    ) -> Answer:
        """Send one request; the answer, also if it is an error. ``patch``: the kind of a PATCH."""
        kind = _TYPES[patch] if method == "PATCH" else "application/json"
        headers = {**self._headers, "Content-Type": kind, "Accept": "application/json, */*"}
        data = None if body is None else json.dumps(body)
        where = f"{path}?{urlencode(query)}" if query else path
        try:
            connection = self._connection()
            connection.request(method, where, data, headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self._own.connection = None
            raise
        is_json = "json" in (answer.getheader("Content-Type") or "")
        return Answer(answer.status, json.loads(text) if is_json else text.decode())

    def do(self, method: str, path: str, body: Any = None, **how: Any) -> Any:
        """The body of a good answer.

        :raises Refused: for any other.
        """
        answer = self.ask(method, path, body, **how)
        if answer.code >= 300:
            raise Refused(answer)
        return answer.body

    def watch(self, path: str, **query: Any) -> Iterator[Object]:
        """The events of one watch until it ends or is cut (``http.client.HTTPException``)."""
        connection = self._connect()
        try:
            where = f"{path}?{urlencode({'watch': 'true', **query})}"
            connection.request("GET", where, headers=self._headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise Refused(Answer(answer.status, json.loads(answer.read())))
            begun = b""
            while (
                data := answer.read1()
            ):  # readline cannot distinguish a broken connection from an end
                *lines, begun = (begun + data).split(b"\n")
                yield from map(json.loads, lines)
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if getattr(self._own, "connection", None) is None:
            self._own.connection = self._connect()
        connection: http.client.HTTPConnection = self._own.connection
        return connection

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._address.hostname or "", self._address.port
        if self._tls:
            return http.client.HTTPSConnection(host, port, context=self._tls, timeout=60)
        return http.client.HTTPConnection(host, port, timeout=60)
