# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open rtnetlink sockets."""

from __future__ import annotations

import socket

from .syscalls import calling

_SO_RCVBUFFORCE = 33


def open_socket(operation: str, *, port: int = 0, groups: int = 0, flags: int = 0) -> socket.socket:
    """An rtnetlink socket of the caller's network namespace.

    :param port: 0 lets the kernel choose one.
    """
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | flags
    with calling(operation):
        opened = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        try:
            _enlarge_buffer(opened)
            opened.bind((port, groups))
        except OSError:
            opened.close()
            raise
    return opened


def _enlarge_buffer(netlink: socket.socket) -> None:
    """Enlarge the receive buffer; above the system's limit only as root."""
    try:
        netlink.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
    except PermissionError:
        netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
