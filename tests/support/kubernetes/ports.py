# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loopback ports for servers that cannot choose a free port themselves."""

from __future__ import annotations

import secrets
import socket
from contextlib import ExitStack

HOST = "127.0.0.1"
#: Below the kernel's ephemeral ports (net.ipv4.ip_local_port_range): on a busy machine another
#: process could get one of those before the server listens.
_OURS = range(11_000, 32_768)


def free_ports(count: int) -> list[int]:
    """Distinct unused ports, chosen at random since other processes may look for some now."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            port = secrets.choice(_OURS)
            try:
                held.enter_context(socket.create_server((HOST, port)))
            except OSError:
                continue
            found.append(port)
    return found
