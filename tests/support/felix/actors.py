# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real processes that a node's observer is to see: Felixes, hanging ``tc``, and who attaches."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab

_WAITS = "read -r line"
_BURNS = "while :; do :; done"
#: Replaces a filter until its input ends; with "second", by a socket which is not its first.
_ATTACHES = """
import select, sys
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel import bpf
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.netlink import TcSocket
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import Hook
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin.process import show_as

pin, ifindex, which = sys.argv[1:]
show_as("calico-node", "-felix")
first, program = TcSocket(), bpf.open_pin(pin)
tc = TcSocket() if which == "second" else first
print(flush=True)
while not select.select([sys.stdin], [], [], 0.1)[0]:
    tc.add_filter(int(ifindex), Hook.INGRESS, 49152, 1, program, "cali_tc_preambl", replace=True)
"""
CONTAINER = ("unshare", "--pid", "--fork", "--kill-child")


@contextmanager
def alone() -> Iterator[tuple[str, ...]]:
    """A pid namespace, so that only a test's own processes are seen: what to run commands with.

    All its processes end with it.
    """
    words = [*CONTAINER, "--mount-proc", "sh", "-c", "echo; exec cat"]
    with _running(words) as (process, _said):
        init = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().strip()
        yield "nsenter", f"--target={init}", "--pid", "--mount"


@contextmanager
def felix(
    prefix: tuple[str, ...], *, burns: bool = False, container: bool = False
) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A process with Felix's arguments, and its id there; it ends when it reads a line."""
    script = f'echo $$; exec -a calico-node sh -c "{_BURNS if burns else _WAITS}" -felix'
    words = [*prefix, *(CONTAINER if container else ()), "bash", "-c", script]
    with _running(words) as (process, said):
        yield int(said), process


@contextmanager
def attacher(
    lab: Lab, interface: str, *, which: str = "first", container: bool = False
) -> Iterator[None]:
    """A process called calico-node, in the lab's network namespace, that replaces a filter."""
    words = [sys.executable, "-c", _ATTACHES, lab.pin(), str(lab.ifindex(interface)), which]
    enter = ["nsenter", f"--net=/run/netns/{lab.netns}"]
    with _running([*enter, *(CONTAINER if container else ()), *words]):
        yield


@contextmanager
def hanging_tc(prefix: tuple[str, ...], count: int) -> Iterator[None]:
    """So many ``tc`` processes that wait for input that never comes."""
    pipe = subprocess.PIPE
    held = [subprocess.Popen([*prefix, "tc", "-batch", "-"], stdin=pipe) for _n in range(count)]
    try:
        yield
    finally:
        for process in held:
            process.communicate()


@contextmanager
def dead_tc() -> Iterator[None]:
    """A ``tc`` that has ended and was not waited for."""
    process = subprocess.Popen(["tc", "-V"], stdout=subprocess.DEVNULL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    try:
        yield
    finally:
        process.wait()


@contextmanager
def _running(words: list[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process, and the line that it says when it is ready."""
    pipe = subprocess.PIPE
    # Not communicate(): the children of one that is killed may keep its output open.
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said, f"{words} did not start"
        try:
            yield process, said
        finally:
            process.kill()
