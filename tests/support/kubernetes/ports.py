# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports of loopback for servers that can't be told to take any: they listen there in a moment."""

from __future__ import annotations

import secrets
import socket
from contextlib import ExitStack

HOST = "127.0.0.1"
#: Below those that the kernel gives to whoever asks for any port or connects to somebody
#: (net.ipv4.ip_local_port_range): on a busy machine such a port would be another's in the meantime.
_OURS = range(11_000, 32_768)


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens at, at random: others may look for some just now."""
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
