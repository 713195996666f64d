# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is attached to an interface: filters by tc, TCX programs by bpf(2) itself.

Debian 12's tc and bpftool do not know TCX yet. The query runs as a script inside the network
namespace, so that the tests' own process never leaves its one.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ansible_collections.dataplane.calico_bpf.tests.integration.lab import Filter, Lab

#: (program id, link id or 0), in the order in which they run.
Programs = list[tuple[int, int]]

_OBJ_GET, _PROG_ATTACH, _PROG_QUERY = 7, 8, 16
_ATTACH_TYPES = {"ingress": 46, "egress": 47}
_SYSCALL = {"x86_64": 321, "ppc64le": 361, "s390x": 351}.get(os.uname().machine, 280)


def tcx(lab: Lab, interface: str, hook: str) -> Programs:
    """The TCX programs at a hook."""
    return [(program, link) for program, link in json.loads(_inside(lab, "query", interface, hook))]


@dataclass(frozen=True)
class Held:
    """All that is attached to an interface, as the kernel's own tools tell it."""

    qdiscs: str
    ingress: tuple[Filter, ...]
    egress: tuple[Filter, ...]
    tcx_ingress: Programs
    tcx_egress: Programs

    def filters(self, hook: str) -> tuple[Filter, ...]:
        return self.ingress if hook == "ingress" else self.egress

    def tcx(self, hook: str) -> Programs:
        return self.tcx_ingress if hook == "ingress" else self.tcx_egress


def held(lab: Lab, interface: str) -> Held:
    return Held(
        lab.tc("qdisc", "show", "dev", interface),
        tuple(lab.filters(interface, "ingress")),
        tuple(lab.filters(interface, "egress")),
        tcx(lab, interface, "ingress"),
        tcx(lab, interface, "egress"),
    )


def attach_tcx(lab: Lab, interface: str, hook: str, pin: str) -> None:
    """Attach a pinned program behind those that are there, without a link."""
    _inside(lab, "attach", interface, hook, pin)


def without_ids(shown: Any) -> Any:
    """A result without the ids that no prediction can know."""
    text = json.dumps(shown, sort_keys=True)
    text = re.sub(r'"(program_id|link_id)": \d+', r'"\1": 0', text)
    return json.loads(re.sub(r":\[\d+\]", ":[0]", text))


def _inside(lab: Lab, *words: str) -> str:
    return lab.exec(sys.executable, str(Path(__file__).resolve()), *words)


def _bpf(command: int, layout: str, *values: int) -> tuple[int, ctypes.Array[ctypes.c_char]]:
    attributes = ctypes.create_string_buffer(struct.pack(layout, *values), 128)
    libc = ctypes.CDLL(None, use_errno=True)
    size = struct.calcsize(layout)
    result: int = libc.syscall(_SYSCALL, command, ctypes.byref(attributes), size)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command})")
    return result, attributes


def _query(ifindex: int, hook: str) -> Programs:
    programs, links = (ctypes.c_uint32 * 64)(), (ctypes.c_uint32 * 64)()
    _, answer = _bpf(
        _PROG_QUERY, "=IIIIQIIQQQQ", ifindex, _ATTACH_TYPES[hook], 0, 0,
        ctypes.addressof(programs), 64, 0, 0, ctypes.addressof(links), 0, 0,
    )  # fmt: skip
    count = struct.unpack_from("=I", answer, 24)[0]
    return list(zip(programs[:count], links[:count], strict=True))


def _attach(ifindex: int, hook: str, pin: str) -> None:
    path = ctypes.create_string_buffer(pin.encode())
    program, _ = _bpf(_OBJ_GET, "=QII", ctypes.addressof(path), 0, 0)
    _bpf(_PROG_ATTACH, "=IIIIIIQ", ifindex, program, _ATTACH_TYPES[hook], 0, 0, 0, 0)


if __name__ == "__main__":
    verb, name, at, *rest = sys.argv[1:]
    index = socket.if_nametoindex(name)
    if verb == "query":
        print(json.dumps(_query(index, at)))
    else:
        _attach(index, at, *rest)
