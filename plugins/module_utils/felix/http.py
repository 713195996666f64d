# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP GET with one deadline for the whole exchange and a limit of bytes, without proxies.

Another process of the node may answer in place of Felix. The timeout of a socket limits each read
alone, so that headers, chunks or trailers that arrive byte by byte, or ``100 Continue`` again and
again, never end. Therefore the socket is shut down at the deadline.
"""

from __future__ import annotations

import errno
import http.client
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ..errors import DataplaneError, Refusal

#: Felix's metrics of a large cluster have about one MiB.
_MOST = 8 << 20
#: Of socket.h.
_SHUT_RDWR = 2


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
    what = f"GET {without_credentials(url)}"
    deadline = _Deadline(connection, timeout)
    try:
        with deadline:
            connection.connect()
            deadline.holds(connection.sock)
            connection.request("GET", path)
            with connection.getresponse() as response:
                body = response.read(_MOST + 1)
    except (OSError, UnicodeError, ValueError, http.client.HTTPException) as error:
        raise unreachable(what, TimeoutError() if deadline.passed else error, timeout) from None
    if deadline.passed:
        raise unreachable(what, TimeoutError(), timeout)
    if len(body) > _MOST:
        raise Unreachable(f"{what}: the answer is longer than {_MOST >> 20} MiB")
    return Answer(response.status, response.reason, body.decode(errors="replace"))


def without_credentials(url: str) -> str:
    """``url`` without its user and password, which must not be shown."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


class _Deadline:
    """Shuts a connection's socket down after ``seconds``, so that no read outlives them."""

    def __init__(self, connection: http.client.HTTPConnection, seconds: float) -> None:
        self._connection = connection
        self._socket: Any = None
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self.passed = False

    def holds(self, connected: Any) -> None:
        """The connection forgets its socket while the body of an answer is still read."""
        self._socket = connected

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_exception: object) -> None:
        self._timer.cancel()
        self._connection.close()

    def _end(self) -> None:
        self.passed = True
        connected = self._socket or self._connection.sock
        if connected is None:  # the name is being resolved, or the connect has its own timeout
            return
        try:
            connected.shutdown(_SHUT_RDWR)
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.EBADF):
                raise


def unreachable(what: str, error: Exception, timeout: float) -> Unreachable:
    if isinstance(error, TimeoutError) or "timed out" in str(error):
        return Unreachable(f"{what}: no answer within {timeout:g} s")
    number = error.errno if isinstance(error, OSError) else None
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or repr(error)
    return Unreachable(f"{what}: {text}", refused=number == errno.ECONNREFUSED)
