# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP GET with a deadline, without proxies."""

from __future__ import annotations

import errno
import http.client
import time
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from ..errors import DataplaneError, Refusal

_MOST = 16 << 20


class Unreachable(DataplaneError):
    """No answer; ``refused``: the connection was refused."""

    def __init__(self, text: str, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


@dataclass(frozen=True)
class Answer:
    status: int
    reason: str
    body: str


def parts_of(url: str) -> SplitResult:
    """:raises Refusal: ``url`` is not an HTTP URL."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise Refusal(
            f"{url!r} is not an HTTP URL, such as http://localhost:9099; no request was sent"
        )
    return parts


def get(url: str, timeout: float) -> Answer:
    """The answer, with any status.

    :raises Unreachable: there is none within ``timeout`` seconds.
    :raises Refusal: ``url`` is not an HTTP URL.
    """
    parts = parts_of(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout)
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    deadline = time.monotonic() + timeout
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = _read(response, deadline)
        return Answer(response.status, response.reason, body.decode(errors="replace"))
    except (OSError, UnicodeError, http.client.HTTPException) as error:
        raise unreachable(f"GET {url}", error, timeout) from None
    finally:
        connection.close()


def unreachable(what: str, error: Exception, timeout: float) -> Unreachable:
    if isinstance(error, TimeoutError) or "timed out" in str(error):
        return Unreachable(f"{what}: no answer within {timeout:g} s")
    number = error.errno if isinstance(error, OSError) else None
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or repr(error)
    return Unreachable(f"{what}: {text}", refused=number == errno.ECONNREFUSED)


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """The body; the deadline also holds for a body that arrives slowly."""
    body = b""
    while len(body) < _MOST:
        piece = response.read1(1 << 16)
        if not piece:
            break
        body += piece
        if time.monotonic() > deadline:
            raise TimeoutError
    return body
