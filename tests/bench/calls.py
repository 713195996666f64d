# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the audit and its floor make the same system calls, by strace.

    python tests/bench/calls.py

Needs root and strace. Both read the same node. From the opening of the netlink socket to its
closing, every call but those for memory is compared: its arguments (netlink requests byte by byte)
and its result. What differs between any two processes is left out: file descriptors, addresses,
and the netlink port.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections import Counter
from difflib import unified_diff
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.netlink import TcSocket
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.snapshot import Reader
from ansible_collections.dataplane.calico_bpf.tests.bench.measures import compile_floors
from ansible_collections.dataplane.calico_bpf.tests.bench.node import GLOBS, Node, new_node
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import (
    compile_programs,
    end_on_signals,
    private_mounts,
)

ENDPOINTS = 20
ARRAYS = "arrays"
_MEMORY = re.compile(r"(mmap|munmap|mremap|madvise|brk)\(")
_LEFT_OUT = (
    (re.compile(r"0x[0-9a-f]{5,}"), "ADDRESS"),
    # Of a query, what strace does not know by name: prog_attach_flags is 0, link_ids an address.
    (re.compile(r'(extra_data="(?:\\x00){12})(?:\\x..){8}'), r"\1ADDRESS"),
    (re.compile(r"nl_pad=\w+, |nlmsg_pid=\d+|nl_pid=\d+"), ""),
    (re.compile(r"^(\w+\()\d+"), r"\1FD"),
    (re.compile(r"(bpf_fd|map_fd)=\d+"), r"\1=FD"),
    (re.compile(r"(GET_FD_BY_ID.*|^openat.*|^socket.*) = \d+$"), r"\1 = FD"),
    (re.compile(r"^(recvfrom\(FD), .*(, 262144, .*)"), r"\1\2"),
    (re.compile(r"\s+= "), " = "),
)


def calls(node: Node, folder: Path, *words: str) -> list[str]:
    """What a command does between the opening and the closing of its netlink socket."""
    trace = folder / "trace"
    node.lab.exec("strace", "-v", "-xx", "-s", "4096", "-o", str(trace), *words)
    lines = trace.read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("socket(AF_NETLINK"))
    close = f"close({lines[start].rsplit('= ', 1)[1]})"
    end = next(n for n in range(start, len(lines)) if lines[n].startswith(close))
    return [_comparable(line) for line in lines[start : end + 1] if not _MEMORY.match(line)]


def _comparable(line: str) -> str:
    for pattern, instead in _LEFT_OUT:
        line = pattern.sub(instead, line)
    return line


def audit(look_into_programs: bool) -> None:
    """What the floor is compared with; computing the verdicts makes no calls."""
    with TcSocket() as tc:
        Reader(tc, look_into_programs=look_into_programs).read(GLOBS)


def compare(node: Node, folder: Path, floor: Path, *mode: str) -> bool:
    python = calls(node, folder, sys.executable, __file__, "audit", *mode)
    c = calls(node, folder, str(floor), "cali", *mode)
    names = Counter(call.split("(")[0] for call in c)
    print(f"audit{''.join(f' with {m}' for m in mode)}: {len(python)} calls, its floor {len(c)}:")
    print("  " + ", ".join(f"{count} {name}" for name, count in names.most_common()))
    difference = list(unified_diff(python, c, "audit", "floor", lineterm="", n=1))
    print(*(difference or ["  all the same"]), sep="\n")
    return not difference


def main() -> int:
    if sys.argv[1:2] == ["audit"]:
        audit(ARRAYS in sys.argv[2:])
        return 0
    end_on_signals()
    private_mounts()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        compile_programs(folder)
        floors = compile_floors(folder)
        with new_node(folder, ENDPOINTS) as node:
            same = [compare(node, folder, floors.audit, *mode) for mode in ((), (ARRAYS,))]
    return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())
