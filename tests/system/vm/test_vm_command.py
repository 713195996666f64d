# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab of virtual machines as a command: its machines end with it, for any reason."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.lab.run_folder import remove_leftovers
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import CHECKOUT


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_machines_end_with_the_process_that_started_them(
    tmp_path: Path, number: signal.Signals
) -> None:
    """While they boot, which is when users interrupt it."""
    words = [sys.executable, str(CHECKOUT / "tests/support/vm"), f"--files={tmp_path}", "serve"]
    with (tmp_path / "log").open("w") as log:
        lab = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
    try:
        await_true(lambda: len(machines_of(lab.pid)) == 2)
        machines, overlays = machines_of(lab.pid), overlays_of(lab.pid)
        assert all(overlay.exists() for overlay in overlays)
        lab.send_signal(number)
        lab.wait(60)
    finally:
        lab.kill()
        lab.wait()
    await_true(lambda: not any(Path(f"/proc/{pid}").exists() for pid in machines))
    remove_leftovers()  # as the next lab does
    assert not any(overlay.exists() for overlay in overlays)


def machines_of(lab: int) -> list[int]:
    """The process ids of the running QEMUs of a lab."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            program = os.path.basename((entry / "exe").readlink())
        except OSError:
            continue  # it just ended, or is the kernel's
        if parent == lab and program.startswith("qemu-system"):
            found.append(int(entry.name))
    return found


def overlays_of(lab: int) -> list[Path]:
    words = [
        word
        for pid in machines_of(lab)
        for word in Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    ]
    drives = (word for word in words if word.startswith("file=") and ".qcow2" in word)
    return [Path(drive.removeprefix("file=").partition(",")[0]) for drive in drives]


def await_true(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
