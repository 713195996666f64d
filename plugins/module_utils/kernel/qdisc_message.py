# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decode the qdiscs of rtnetlink messages. Layouts: linux/rtnetlink.h."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ..model import Hook, Qdisc, SharedBlock
from .filter_message import ATTR, ATTR_TYPE, TCA_KIND

#: TCA_INGRESS_BLOCK and TCA_EGRESS_BLOCK of a qdisc.
_BLOCKS = {13: Hook.INGRESS, 14: Hook.EGRESS}
_U32_AT = struct.Struct("=I").unpack_from


def read_qdisc(buffer: bytearray, start: int, end: int) -> tuple[Qdisc, tuple[SharedBlock, ...]]:
    """The qdisc at ffff: of an interface, and the shared blocks that it binds to the hooks."""
    qdisc, blocks = Qdisc.NONE, []
    for kind, at, length in attributes(buffer, start + 20, end):
        if kind == TCA_KIND:
            qdisc = Qdisc(text_at(buffer, at, length))
        elif kind in _BLOCKS:
            blocks.append(SharedBlock(_BLOCKS[kind], *_U32_AT(buffer, at)))
    return qdisc, tuple(blocks)


def attributes(buffer: bytearray, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(type, payload's offset, payload's length) of each attribute between ``at`` and ``end``."""
    while at + 4 <= end:
        length, kind = ATTR.unpack_from(buffer, at)
        if length < 4:
            return
        yield kind & ATTR_TYPE, at + 4, length - 4
        at += (length + 3) & ~3


def text_at(buffer: bytearray, at: int, length: int) -> str:
    return buffer[at : at + length].rstrip(b"\0").decode(errors="backslashreplace")
