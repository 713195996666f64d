# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter changes in a network namespace, as the kernel multicasts them (RTNLGRP_TC)."""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Generator, Iterator
from typing import NamedTuple

from ..model import Hook
from .filter_message import RawFilter, read_filter
from .netlink import (
    EGRESS,
    HEADER_PARTS,
    INGRESS,
    RTM_DELTFILTER,
    RTM_NEWTFILTER,
    TCMSG_INDEX_PARENT,
    port_of,
)
from .netlink_socket import open_socket
from .syscalls import calling, failed

_RTMGRP_TC = 1 << 3
_WATCH = "watch the changes of filters"
#: Reads after which those who wait for the changes so far have them: more than the queue holds.
_MOST_READS = 1 << 15
#: Reads in a row that only report dropped changes; then the socket is broken or flooded.
_MOST_OVERRUNS = 8
_OVERRUN_PAUSE = 0.05
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
        self._socket = open_socket(_WATCH, groups=_RTMGRP_TC, flags=socket.SOCK_NONBLOCK)
        self._buffer = bytearray(1 << 18)
        #: The kernel dropped changes because its queue was full.
        self.overrun = False

    def __enter__(self) -> TcWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def changes(self, seconds: float) -> Iterator[FilterChange]:
        """The changes so far, and those within the next ``seconds``.

        It ends in time even if changes arrive, or are dropped, faster than they can be read.

        :raises KernelError: the socket cannot be read.
        """
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while True:
            only_overruns = yield from self._pending()
            left = deadline - time.monotonic()
            if left <= 0:
                return
            if only_overruns:
                time.sleep(min(left, _OVERRUN_PAUSE))
                continue
            with calling(_WATCH):
                poll.poll(left * 1000)

    def _pending(self) -> Generator[FilterChange, None, bool]:
        """:returns: whether it ended because every read reported dropped changes."""
        overruns = 0
        for _read in range(_MOST_READS):
            try:
                end = self._socket.recv_into(self._buffer)
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise failed(_WATCH, error) from error
                self.overrun = True
                overruns += 1
                if overruns == _MOST_OVERRUNS:
                    return True
                continue
            overruns = 0
            yield from self._decoded(end)
        return False

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
