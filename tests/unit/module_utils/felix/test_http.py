# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers of a hostile process: none holds the caller beyond the deadline, or fills its memory."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import repeat, takewhile

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import Refusal
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.felix import http
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.felix.probe import ProbeTarget

_TIMEOUT = 0.5
_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"


@contextmanager
def answering(pieces: Callable[[], Iterator[bytes]], pause: float = 0.05) -> Iterator[str]:
    """A server that sends ``pieces`` with a pause after each, for as long as anyone listens."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        with suppress(OSError):
            connection, _address = listener.accept()
            with connection:
                for piece in takewhile(lambda _piece: not ended.is_set(), pieces()):
                    connection.sendall(piece)
                    time.sleep(pause)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ended.set()
        listener.close()
        thread.join(5)
        assert not thread.is_alive()


def one_by_one(*parts: bytes) -> Callable[[], Iterator[bytes]]:
    """The first parts at once, and the last one again and again."""
    *first, last = parts

    def pieces() -> Iterator[bytes]:
        yield from first
        yield from repeat(last)

    return pieces


HOSTILE = {
    "nothing": one_by_one(b""),
    "a status line byte by byte": one_by_one(b"HTTP/1.1", b" "),
    "headers byte by byte": one_by_one(_OK, b"X"),
    "headers one by one": one_by_one(_OK, b"X: 1\r\n"),
    "100 Continue again and again": one_by_one(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "the size of a chunk byte by byte": one_by_one(_CHUNKED, b"0"),
    "chunks of one byte": one_by_one(_CHUNKED, b"1\r\nx\r\n"),
    "trailers without an end": one_by_one(_CHUNKED + b"0\r\n", b"X: 1\r\n"),
    "a body byte by byte": one_by_one(_OK + b"Content-Length: 100000\r\n\r\n", b"x"),
    "a body without a length": one_by_one(_OK + b"\r\n", b"x"),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_an_answer_that_never_ends(how: str) -> None:
    start = time.monotonic()
    with answering(HOSTILE[how]) as url, pytest.raises(http.Unreachable) as failed:
        http.get(url, _TIMEOUT)
    assert time.monotonic() - start < 4 * _TIMEOUT
    assert not failed.value.refused
    assert "no answer within 0.5 s" in str(failed.value) or "got more than 100 headers" in str(
        failed.value
    )


def test_a_flood_ends_too() -> None:
    start = time.monotonic()
    flood = answering(HOSTILE["100 Continue again and again"], pause=0)
    with flood as url, pytest.raises(http.Unreachable, match="no answer within"):
        http.get(url, _TIMEOUT)
    assert time.monotonic() - start < 4 * _TIMEOUT


@pytest.mark.parametrize("head", [_OK + b"\r\n", _OK + b"Content-Length: 99999999\r\n\r\n"])
def test_an_answer_that_is_too_long(head: bytes) -> None:
    too_long = pytest.raises(http.Unreachable, match="the answer is longer than 8 MiB")
    with too_long, answering(one_by_one(head, bytes(1 << 20)), pause=0) as url:
        http.get(url, 10)


@pytest.mark.parametrize(
    "answer",
    [b"", b"\0" * 100, b"HTTP/9.9 abc\r\n\r\n", _CHUNKED + b"zz\r\n", b"HTTP/1.1 999999999\r\n"],
)
def test_an_answer_that_is_not_http(answer: bytes) -> None:
    with answering(lambda: iter([answer])) as url, pytest.raises(http.Unreachable):
        http.get(url, _TIMEOUT)


def test_a_plain_answer() -> None:
    with answering(lambda: iter([_OK + b"Content-Length: 2\r\n\r\nok"])) as url:
        assert http.get(url, _TIMEOUT) == http.Answer(200, "OK", "ok")


def test_a_closed_port_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(http.Unreachable) as failed:
        http.get(f"http://127.0.0.1:{port}", _TIMEOUT)
    assert failed.value.refused


@pytest.mark.parametrize(
    "url", ["", "ftp://a", "http://", "http://a:0", "http://a:99999", "http://[1"]
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(Refusal, match="not an HTTP URL"):
        http.get(url, _TIMEOUT)


def test_credentials_are_not_shown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://me:secret@127.0.0.1:{server.getsockname()[1]}/x?y=1"
    with pytest.raises(http.Unreachable) as failed:
        http.get(url, _TIMEOUT)
    assert "secret" not in str(failed.value)
    assert "/x?y=1" in str(failed.value)
    assert "secret" not in str(ProbeTarget(url=url, host=None, port=None, interface=None))
