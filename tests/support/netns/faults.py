# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""System calls of rtnetlink sockets that fail on demand."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass, field
from typing import Any

import pytest


def refused(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@dataclass
class Faults:
    """Which calls of all sockets fail: by number, from 1, in the order in which they are made.

    A send that fails is not made. The answer that a failed receive would have returned is lost.
    """

    fail: dict[int, int] = field(default_factory=dict)
    #: Fail every call from this one on with ENOBUFS.
    fail_from: int | None = None
    calls: list[str] = field(default_factory=list)

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(socket, "socket", self._open)

    def called(self, call: str) -> None:
        """:raises OSError: if this call is to fail."""
        self.calls.append(call)
        number = len(self.calls)
        if self.fail_from is not None and number >= self.fail_from:
            raise refused(errno.ENOBUFS)
        if number in self.fail:
            raise refused(self.fail[number])

    def _open(self, *kind: int) -> FaultySocket:
        self.called("open")
        return FaultySocket(_REAL(*kind), self)


_REAL = socket.socket


class FaultySocket:
    """A socket, each call of which may fail as ``faults`` says."""

    def __init__(self, real: socket.socket, faults: Faults) -> None:
        self._real = real
        self._faults = faults

    def send(self, request: bytes) -> int:
        self._faults.called("send")
        return self._real.send(request)

    def recv_into(self, buffer: bytearray) -> int:
        end = self._real.recv_into(buffer)
        self._faults.called("receive")
        return end

    def bind(self, address: tuple[int, int]) -> None:
        self._faults.called("bind")
        self._real.bind(address)

    def setsockopt(self, *option: int) -> None:
        self._faults.called("set an option")
        self._real.setsockopt(*option)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)
