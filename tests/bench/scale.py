# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one upgrade of many nodes costs with parallel batches.

    python tests/bench/scale.py [NODES [FORKS]]

Needs root. The batches are the default ones. CPU time is that of ansible-playbook and all that it
started, the modules on the nodes included, which are on this machine. Memory is the proportional
share (PSS) of ansible-playbook and its workers.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.bench.rollout import upgrade
from ansible_collections.dataplane.calico_bpf.tests.support.lab.rollout import new_rollout
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import end_on_signals

NODES, FORKS = 100, 25
#: Felix is watched as long as by default.
VARIABLES: dict[str, Any] = {"calico_bpf_batches": [1, "10%", "25%"], "verify_window": 12}


class Memory(threading.Thread):
    """Watches ansible-playbook and its workers."""

    def __init__(self, run: int) -> None:
        super().__init__(name="memory", daemon=True)
        self._run = run
        self._over = threading.Event()
        self.most_megabytes = 0.0

    def run(self) -> None:
        while not self._over.wait(0.5):
            processes = (self._run, *_workers(self._run))
            megabytes = sum(map(_pss, processes)) / 1024
            self.most_megabytes = max(self.most_megabytes, megabytes)

    def stop(self) -> None:
        self._over.set()
        self.join()


def _workers(run: int) -> list[int]:
    """Its children with the same command line: forks that have not run exec."""
    children = _read(run, f"task/{run}/children").split()
    return [int(pid) for pid in children if _read(int(pid), "cmdline") == _read(run, "cmdline")]


def _pss(pid: int) -> int:
    """In kilobytes; 0 once the process has ended."""
    lines = _read(pid, "smaps_rollup").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _read(pid: int, name: str) -> str:
    """A file of a process; "" once it has ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def main() -> None:
    given = [int(word) for word in sys.argv[1:]]
    nodes, forks = (*given, *(NODES, FORKS)[len(given) :])
    end_on_signals()
    with new_rollout("embedded", nodes=nodes, endpoints=2) as rollout:
        start = time.monotonic()
        running = rollout.start("--forks", str(forks), **VARIABLES)
        memory = Memory(running.process.pid)
        memory.start()
        try:
            cpu = upgrade(running)
        finally:
            memory.stop()
        seconds = time.monotonic() - start
        rollout.must_be_complete()
    print(f"{nodes} nodes, {forks} forks: {seconds:.0f} s, {cpu:.0f} s CPU", end=", ")
    print(f"{memory.most_megabytes:.0f} MB")


if __name__ == "__main__":
    main()
