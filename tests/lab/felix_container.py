# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container calico-node of one pod: a Felix stand-in that really runs in a lab node."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import Refusal
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.tests.felix.releases import Release
from ansible_collections.dataplane.calico_bpf.tests.integration.lab import CHECKOUT
from ansible_collections.dataplane.calico_bpf.tests.lab.kubelet import PodState
from ansible_collections.dataplane.calico_bpf.tests.lab.node import Node

#: A program of its own as the init of a process namespace could not be killed from within.
_CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "sh", "-c", '"$@"; exit "$?"', "sh")
_STANDIN = "ansible_collections.dataplane.calico_bpf.tests.lab.standin"
_HEALTH_PORT = 9099
_PROBE_EVERY = 0.3
_BACK_OFF = 1.0
#: How long a pass may take to come to the point where it is killed.
_PASS = 10.0


@dataclass(frozen=True)
class FelixSettings:
    """What all Felixes of a lab have in common; ``objects`` holds allow.o, times in seconds."""

    objects: Path
    retry: float = 10.0
    metrics: bool = True


class FelixContainer:
    """Runs from its making on, is started again where it ends by itself, until it is stopped."""

    def __init__(
        self, node: Node, pod: Mapping[str, Any], settings: FelixSettings, restarts: int = 0
    ) -> None:
        self.boot = node.boots
        self._node, self._settings = node, settings
        metadata = pod["metadata"]
        self._name = f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}"
        self._folder = f"/var/log/pods/{self._name}/calico-node"
        self._version, self._attach_type = _asked_for(pod)
        self._restarts = restarts
        self._stop_asked: float | None = None
        self._ended: float | None = None
        self._stopped = threading.Event()
        self._is_ready = False
        self._process = self._start()
        threading.Thread(target=self._probe, name=f"probe-{node.name}", daemon=True).start()

    # --- while it runs ------------------------------------------------------------------------

    def ready(self) -> bool:
        """Whether its last probe was good; a Felix that died is started again here."""
        if self._process.poll() is None:
            return self._is_ready
        self._is_ready = False
        if self._ended is None:
            self._ended = time.monotonic()
        elif time.monotonic() - self._ended > _BACK_OFF:
            self._ended = None
            self._restarts += 1
            self._process = self._start()
        return False

    def state(self) -> PodState:
        waiting = "CrashLoopBackOff" if self._ended is not None else ""
        return PodState(restarts=self._restarts, waiting=waiting)

    def log(self) -> list[tuple[float, str]]:
        """What this run of it wrote, each line with its time, without the runtime's prefix."""
        path = self._node.path(self._log)
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [_timed(line) for line in lines]

    @property
    def _log(self) -> str:
        return f"{self._folder}/{self._restarts}.log"

    def _start(self) -> subprocess.Popen[bytes]:
        node = self._node
        self._node.path(self._folder).mkdir(parents=True, exist_ok=True)
        config = node.folder / f"{self._name}.json"
        config.write_text(json.dumps(self._config()))
        words = node.words(*_CONTAINER, sys.executable, "-m", _STANDIN, str(config))
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / ".build/collections")}
        with (node.folder / "felix.out").open("a") as out:
            return subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment,
                start_new_session=True,
            )

    def _config(self) -> dict[str, Any]:
        return {
            "version": self._version,
            "interfaces": ["cali*"],
            "attach_type": self._attach_type,
            "retry": self._settings.retry,
            "heartbeat": str(self._node.heartbeat_file),
            "objects": str(self._settings.objects),
            "log": self._log,
            "faults": str(self._node.faults.file),
            "metrics": self._settings.metrics,
            "workloads": str(self._node.workloads_file),
        }

    def _probe(self) -> None:
        """Ask for its readiness, in a thread that is in the node's network."""
        with suppress(Refusal), entered(f"/proc/{self._node.pid}/ns/net"):
            while not self._stopped.wait(_PROBE_EVERY):
                self._is_ready = _answers_ready()

    # --- its end ------------------------------------------------------------------------------

    def stop(self, grace: int) -> bool:
        """Have it end, at once or after at most ``grace`` seconds; True once it is gone."""
        faults, now = self._node.faults, time.monotonic()
        self._stopped.set()
        if self._stop_asked is None:
            self._stop_asked = now
            if faults.killed_in_pass and self._process.poll() is None:
                self._die_in_pass(faults.killed_in_pass)
        if self._process.poll() is None and not faults.runtime_loses_felix:
            waited = now - self._stop_asked
            if waited >= faults.linger:
                self._signal(signal.SIGKILL if waited >= faults.linger + grace else signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.02)
            return self._process.poll() is not None
        return True

    def _die_in_pass(self, where: Mapping[str, str]) -> None:
        """Let it be killed in the middle of re-attaching; one that does not get there lives on."""
        faults = self._node.faults
        faults.felix(churn=True, kill_in_pass=where)
        deadline = time.monotonic() + _PASS
        while self._process.poll() is None and time.monotonic() < deadline:
            self._node.heartbeat_file.touch()  # it may just have looked
            time.sleep(0.1)
        faults.felix()

    def _signal(self, number: signal.Signals) -> None:
        """To the container's init, with which all of it ends; it only takes a SIGKILL itself."""
        pid = self._process.pid
        generations = 2 if number is signal.SIGKILL else 3
        for _generation in range(generations):
            children = _children(pid)
            if not children:
                return  # it has only begun, or just ended
            pid = children[0]
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _asked_for(pod: Mapping[str, Any]) -> tuple[str, str]:
    """The version and attach type that a pod is to run."""
    containers = pod["spec"]["containers"]
    container = next(each for each in containers if each["name"] == "calico-node")
    version = container["image"].rpartition(":")[2]
    environment = {each["name"]: each.get("value", "") for each in container.get("env", ())}
    default = "TCX" if Release.of(version) >= (3, 31) else "TC"
    return version, environment.get("FELIX_BPFATTACHTYPE", default)


def _timed(line: str) -> tuple[float, str]:
    """A line of a CRI log: TIME STREAM F TEXT, the time to the nanosecond."""
    at, _stream, _whole, text = line.split(" ", 3)
    return datetime.fromisoformat(f"{at[:26].rstrip('Z')}+00:00").timestamp(), text


def _answers_ready() -> bool:
    connection = http.client.HTTPConnection("localhost", _HEALTH_PORT, timeout=2)
    try:
        connection.request("GET", "/readiness")
        return connection.getresponse().status in (200, 204)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except FileNotFoundError:
        return []
