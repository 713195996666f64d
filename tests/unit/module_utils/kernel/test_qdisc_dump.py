# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a dump of qdiscs proves: the kernel fills buffers, and may skip interfaces between them."""

from __future__ import annotations

import struct

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel import netlink
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import Qdisc

ROOT, CLSACT = 0xFFFFFFFF, 0xFFFFFFF1
NONE = Qdisc.NONE


Message = tuple[int, int]  # ifindex, parent


class Buffers:
    """A socket that receives one dump, the first of its TcSocket, in these buffers."""

    def __init__(self, *buffers: list[Message]) -> None:
        self._left = [b"".join(_message(*message) for message in buffer) for buffer in buffers]
        self._left.append(struct.pack("=IHHIIi", 20, 3, 2, 1, 0, 0))

    def send(self, _request: bytes) -> None:
        pass

    def recv_into(self, buffer: bytearray) -> int:
        filled = self._left.pop(0)
        buffer[: len(filled)] = filled
        return len(filled)


def _message(index: int, parent: int) -> bytes:
    kind = b"clsact\0\0" if parent == CLSACT else b"noqueue\0"
    body = struct.pack("=BxxxiIII", 0, index, 0, parent, 0) + struct.pack("=HH", 12, 1) + kind
    return struct.pack("=IHHII", 16 + len(body), netlink.RTM_NEWQDISC, 2, 1, 0) + body


class Dumping(netlink.TcSocket):
    def __init__(self, *buffers: list[Message]) -> None:
        self._socket = Buffers(*buffers)  # type: ignore[assignment]
        self._buffer = bytearray(4096)
        self._sequence = 0
        self._unfinished = False
        self._blocks = {}


@pytest.mark.parametrize(
    ("buffers", "proven"),
    [
        pytest.param([[(1, ROOT), (2, ROOT), (2, CLSACT)]], {1: NONE, 2: Qdisc.CLSACT}, id="whole"),
        pytest.param([[(1, ROOT), (2, ROOT)]], {1: NONE}, id="the last one"),
        pytest.param([[(1, ROOT)], [(1, CLSACT), (2, ROOT)]], {1: Qdisc.CLSACT}, id="cut"),
        # Something before it was deleted between the buffers, and 1 or its clsact skipped.
        pytest.param([[(1, ROOT)], [(2, ROOT), (3, ROOT)]], {2: NONE}, id="skipped"),
        pytest.param([[(1, ROOT)], [(3, ROOT)]], {}, id="nothing known"),
    ],
)
def test_an_interface_has_no_qdisc_only_if_its_buffer_goes_on(
    buffers: list[list[Message]], proven: dict[int, Qdisc]
) -> None:
    assert Dumping(*buffers).clsact_qdiscs() == proven
