# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The smallest HTTP server that serves a text at a path: http.server takes long to import."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin.messages import Messages

_REASONS = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}


class Answer(NamedTuple):
    status: int
    body: str
    type: str = "text/plain; charset=utf-8"


NOT_FOUND = Answer(404, "404 page not found\n")


def serve(
    messages: Messages, what: str, address: tuple[str, int], answer: Callable[[str], Answer]
) -> None:
    """Answer requests by path, in a thread; a port that is taken is tried again each second."""

    def run() -> None:
        while True:
            try:
                with socket.create_server(address) as listening:
                    while True:
                        _answer_one(listening, answer)
            except OSError as error:
                where = f"listen tcp {address[0]}:{address[1]}"
                messages.endpoint_failed(what, f"{where}: bind: {str(error.strerror).lower()}")
                time.sleep(1)

    threading.Thread(target=run, name=what, daemon=True).start()


def _answer_one(listening: socket.socket, answer: Callable[[str], Answer]) -> None:
    connection, _peer = listening.accept()
    with connection:
        connection.settimeout(2)
        try:
            connection.sendall(_response(answer(_requested(connection))))
        except (TimeoutError, ConnectionError):
            return  # the client has given up


def _requested(connection: socket.socket) -> str:
    """The path; to be closed by us, the request must have been read to its end."""
    request = b""
    while b"\r\n\r\n" not in request:
        piece = connection.recv(4096)
        if not piece:
            raise ConnectionAbortedError
        request += piece
    return request.split()[1].decode()


def _response(answer: Answer) -> bytes:
    body = answer.body.encode()
    head = (
        f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\nContent-Type: {answer.type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
