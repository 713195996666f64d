# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decode the filters of rtnetlink messages. Layouts: linux/rtnetlink.h, linux/pkt_cls.h."""

from __future__ import annotations

import struct
from socket import ntohs

TCA_KIND, TCA_OPTIONS, TCA_CHAIN = 1, 2, 11
TCA_BPF_FD, TCA_BPF_NAME, TCA_BPF_FLAGS, _TCA_BPF_TAG, _TCA_BPF_ID = 6, 7, 8, 10, 11
TCA_BPF_FLAG_ACT_DIRECT = 1
ATTR_TYPE = 0x3FFF

ATTR = struct.Struct("=HH")  # length, type
_ATTR_AT = ATTR.unpack_from
_U32_AT = struct.Struct("=I").unpack_from
_TCMSG_HANDLE_INFO = struct.Struct("=8xI4xI").unpack_from

#: One filter of a dump:
#: priority, protocol, handle, kind, chain, program id, name, tag, direct-action.
RawFilter = tuple[int, int, int, str, int, int, str, str, bool]
PROGRAM_ID = 5


def read_filter(buffer: bytearray, start: int, end: int, found: list[RawFilter]) -> None:
    """Decode one filter; skip the head of a priority, which has handle 0.

    The hot loop of an audit: one pass, with calls to the struct module only.
    """
    handle, info = _TCMSG_HANDLE_INFO(buffer, start)
    if not handle:
        return
    kind = name = tag = bytearray()
    chain = program_id = flags = 0
    at = start + 20
    while at < end:
        length, attribute = _ATTR_AT(buffer, at)
        if attribute == TCA_KIND:
            kind = buffer[at + 4 : at + length - 1]
        elif attribute == TCA_CHAIN:
            chain = _U32_AT(buffer, at + 4)[0]
        elif attribute & ATTR_TYPE == TCA_OPTIONS and kind == b"bpf":
            inner, last = at + 4, at + length
            while inner < last:
                size, attribute = _ATTR_AT(buffer, inner)
                if attribute == TCA_BPF_NAME:
                    name = buffer[inner + 4 : inner + size - 1]
                elif attribute == _TCA_BPF_ID:
                    program_id = _U32_AT(buffer, inner + 4)[0]
                elif attribute == _TCA_BPF_TAG:
                    tag = buffer[inner + 4 : inner + size]
                elif attribute == TCA_BPF_FLAGS:
                    flags = _U32_AT(buffer, inner + 4)[0]
                inner += (size + 3) & ~3
        at += (length + 3) & ~3
    found.append(
        (
            info >> 16, ntohs(info & 0xFFFF), handle, kind.decode(), chain, program_id,
            name.decode(errors="surrogateescape"), tag.hex(),
            bool(flags & TCA_BPF_FLAG_ACT_DIRECT),
        )
    )  # fmt: skip
