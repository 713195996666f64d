# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts Felix stand-ins in a lab's namespace, one after the other, and reads their state."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin import faults
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin.faults import (
    Faults,
    KillInPass,
)
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab

STANDIN = "ansible_collections.dataplane.calico_bpf.tests.support.lab.standin"
RETRY = 0.3
#: A timeout in seconds for operations that take a fraction of one on an idle machine.
PATIENCE = 10.0


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {PATIENCE:.0f} s"
        time.sleep(0.02)


@dataclass
class Pod:
    """One stand-in in a lab's namespace, and its state."""

    lab: Lab
    directory: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        path = self.directory / "0.log"
        return path.read_text() if path.exists() else ""

    def lines(self, words: str) -> list[str]:
        return [line for line in self.log.splitlines() if words in line]

    def errors(self) -> list[str]:
        return self.lines("leaving it dirty")

    def get(self, path: str, port: int = 9099) -> tuple[int, str]:
        """(status, body); (0, the error) if no server listens."""
        with entered(self.lab.netns):
            try:
                with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                    return answer.status, answer.read().decode()
            except HTTPError as error:
                return error.code, error.read().decode()
            except OSError as error:
                return 0, str(error)

    def is_ready(self) -> bool:
        return self.get("/readiness")[0] == 200

    def wait_until_ready(self) -> None:
        until(self.is_ready, f"ready, in {self.directory}")

    def wait_for_errors(self, more: int) -> None:
        """Wait for so many more passes that leave an endpoint dirty."""
        wanted = len(self.errors()) + more
        until(lambda: len(self.errors()) >= wanted, f"{wanted} errors, in {self.directory}")

    def fault(self, **which: object) -> None:
        faults.write(self.directory / "faults.json", Faults(**which))  # type: ignore[arg-type]

    def beat(self) -> None:
        (self.directory / "heartbeat").touch()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Node:
    """Starts one Felix after the other on a lab's endpoints."""

    lab: Lab
    directory: Path
    stack: ExitStack

    def start(
        self, version: str, attach_type: str = "TC", retry: float = RETRY, **fault: object
    ) -> Pod:
        directory = self.directory / f"{version}-{len(list(self.directory.iterdir()))}"
        directory.mkdir()
        names = ("log", "0.log"), ("heartbeat",) * 2, ("faults", "faults.json")
        config = {
            **{key: str(directory / name) for key, name in names},
            "version": version, "attach_type": attach_type, "retry": retry, "metrics": True,
            "objects": str(self.lab.objects), "workloads": str(self.directory.parent / "workloads"),
        }  # fmt: skip
        (directory / "config.json").write_text(json.dumps(config))
        words = [sys.executable, "-m", STANDIN, str(directory / "config.json")]
        netns = f"--net=/run/netns/{self.lab.netns}"
        if fault:
            faults.write(directory / "faults.json", Faults(**fault))  # type: ignore[arg-type]
        (directory / "heartbeat").touch()
        pod = Pod(self.lab, directory, subprocess.Popen(["nsenter", netns, *words]))
        self.stack.callback(pod.kill)
        return pod

    def ready(self, version: str, attach_type: str = "TC") -> Pod:
        pod = self.start(version, attach_type)
        pod.wait_until_ready()
        return pod

    def killed(self, version: str, **where: str) -> None:
        """A Felix that is killed in its first pass."""
        pod = self.start(version, kill_in_pass=KillInPass(**{"interface": "cali*", **where}))
        assert pod.process.wait(PATIENCE) == -signal.SIGKILL
        assert faults.read(pod.directory / "faults.json").kill_in_pass is None, "it strikes once"


BOTH = ("ingress", "egress")


def both(*slots: tuple[int, int]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    return list(slots), list(slots)


def cpu_time(pod: Pod) -> float:
    """Seconds of user and system time."""
    fields = Path(f"/proc/{pod.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
