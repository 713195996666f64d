# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter changes in a network namespace, as the kernel multicasts them (RTNLGRP_TC)."""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple

from ..model import Hook
from .netlink import (
    EGRESS,
    HEADER_PARTS,
    INGRESS,
    RTM_DELTFILTER,
    RTM_NEWTFILTER,
    TCMSG_INDEX_PARENT,
    RawFilter,
    enlarge_buffer,
    port_of,
    read_filter,
)

_RTMGRP_TC = 1 << 3
_HOOKS = {INGRESS: Hook.INGRESS, EGRESS: Hook.EGRESS}


class FilterChange(NamedTuple):
    ifindex: int
    hook: Hook
    #: The netlink port of the request; for a process's first socket its process id.
    port: int
    #: The filter that was attached; None if one was detached.
    added: RawFilter | None


class TcWatch:
    """Collects changes from its creation on; the kernel queues those not read yet."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        enlarge_buffer(self._socket)
        self._socket.bind((0, _RTMGRP_TC))
        self._buffer = bytearray(1 << 18)
        #: The kernel dropped changes because its queue was full.
        self.overrun = False

    def close(self) -> None:
        self._socket.close()

    def changes(self, seconds: float) -> Iterator[FilterChange]:
        """The changes so far, and those within the next ``seconds``."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while True:
            yield from self._pending()
            left = deadline - time.monotonic()
            if left <= 0:
                return
            poll.poll(left * 1000)

    def _pending(self) -> Iterator[FilterChange]:
        while True:
            try:
                end = self._socket.recv_into(self._buffer)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.overrun = True
                continue
            yield from self._decoded(end)

    def _decoded(self, end: int) -> Iterator[FilterChange]:
        at = 0
        while at < end:
            length, kind, _flags, _sequence = HEADER_PARTS(self._buffer, at)
            if kind in (RTM_NEWTFILTER, RTM_DELTFILTER):
                ifindex, parent = TCMSG_INDEX_PARENT(self._buffer, at + 16)
                added: list[RawFilter] = []
                if kind == RTM_NEWTFILTER:
                    read_filter(self._buffer, at + 16, at + length, added)
                if parent in _HOOKS:
                    port = port_of(self._buffer, at)
                    yield FilterChange(ifindex, _HOOKS[parent], port, added[0] if added else None)
            at += (length + 3) & ~3
