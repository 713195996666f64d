# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records events: of filters by ``tc monitor``, of a folder's files by inotify."""

from __future__ import annotations

import ctypes
import os
import re
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import (
    Lab,
)

_serial = count(1)


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@contextmanager
def filter_events(lab: Lab, tmp_path: Path) -> Iterator[list[str]]:
    """The filter events of ``tc monitor`` during the body; complete after the body."""
    shown = tmp_path / f"monitor-{next(_serial)}"
    events: list[str] = []

    def marks() -> int:
        """Provoke an event that has nothing to do with the test; how many were seen so far."""
        lab.tc("qdisc", "add", "dev", "lo", "clsact")
        lab.tc("qdisc", "del", "dev", "lo", "clsact")
        return shown.read_text().count("deleted qdisc clsact")

    words = ["nsenter", f"--net=/run/netns/{lab.netns}", "tc", "monitor"]
    with shown.open("w") as file, subprocess.Popen(words, stdout=file) as monitor:
        try:
            wait_until(marks)
            yield events
            before = marks()
            wait_until(lambda: marks() > before)
        finally:
            monitor.terminate()
    events += re.findall(r"^.*\bfilter dev .* handle .*$", shown.read_text(), re.MULTILINE)


@contextmanager
def renames_and_deletes(directory: Path) -> Iterator[list[tuple[str, str]]]:
    """(event, file name) for what became of a folder's files during the body, by inotify."""
    kinds = {0x40: "moved from", 0x80: "moved to", 0x200: "deleted"}
    libc = ctypes.CDLL(None)
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    libc.inotify_add_watch(fd, os.fsencode(directory), sum(kinds))
    seen: list[tuple[str, str]] = []
    try:
        yield seen
        data = os.read(fd, 1 << 16)
    finally:
        os.close(fd)
    at = 0
    while at < len(data):
        _unused, mask, _unused, length = struct.unpack_from("=iIII", data, at)
        name = data[at + 16 : at + 16 + length].rstrip(b"\0").decode()
        seen.append((kinds[mask], name))
        at += 16 + length
