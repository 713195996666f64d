# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container calico-node of one pod: a process of the Felix stand-in in a lab node."""

from __future__ import annotations

import http.client
import json
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import Refusal
from ansible_collections.dataplane.calico_bpf.tests.support.felix.releases import Release
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.kubelet import PodState
from ansible_collections.dataplane.calico_bpf.tests.support.lab.container import Container
from ansible_collections.dataplane.calico_bpf.tests.support.lab.node import Node

_STANDIN = "ansible_collections.dataplane.calico_bpf.tests.support.lab.standin"
_PROBE_EVERY = 0.3
_BACK_OFF = 1.0
#: Seconds until a pass must have reached the point at which it is killed.
_PASS = 10.0


@dataclass(frozen=True)
class FelixSettings:
    """The settings of all Felixes of a lab; ``objects`` contains allow.o, times are in seconds."""

    objects: Path
    retry: float = 10.0
    metrics: bool = True


class FelixContainer:
    """Runs from its creation until it is stopped; restarted if it ends by itself."""

    def __init__(
        self, node: Node, pod: Mapping[str, Any], settings: FelixSettings, restarts: int = 0
    ) -> None:
        self.boot = node.boots
        self._node, self._settings = node, settings
        metadata = pod["metadata"]
        self._uid = metadata["uid"]
        self._name = f"{metadata['namespace']}_{metadata['name']}_{self._uid}"
        self._folder = f"/var/log/pods/{self._name}/calico-node"
        self._version, self._attach_type = _asked_for(pod)
        self._restarts = restarts
        self._stop_asked: float | None = None
        self._ended: float | None = None
        self._stopped = threading.Event()
        self._is_ready = False
        self._container = self._start()
        threading.Thread(target=self._probe, name=f"probe-{node.name}", daemon=True).start()

    # --- state --------------------------------------------------------------------------------

    def ready(self) -> bool:
        """Whether the last probe succeeded; a Felix that died is restarted here."""
        if not self._container.ended():
            return self._is_ready
        self._is_ready = False
        if self._ended is None:
            self._ended = time.monotonic()
        elif time.monotonic() - self._ended > _BACK_OFF:
            self._ended = None
            self._restarts += 1
            self._container = self._start()
        return False

    def state(self) -> PodState:
        waiting = "CrashLoopBackOff" if self._ended is not None else ""
        return PodState(restarts=self._restarts, waiting=waiting)

    def log(self) -> list[tuple[float, str]]:
        """The log of this run, each line with its time, without the runtime's prefix."""
        return [_timed(line) for line in self._node.read(self._log).splitlines(keepends=True)]

    @property
    def _log(self) -> str:
        return f"{self._folder}/{self._restarts}.log"

    def _start(self) -> Container:
        node = self._node
        config = node.folder / f"{self._name}.json"
        node.write(config, json.dumps(self._config()))
        name = f"{self._name}_{self._restarts}"
        return node.contain_python(name, self._uid, _STANDIN, str(node.inside(config)))

    def _config(self) -> dict[str, Any]:
        inside = self._node.inside
        return {
            "version": self._version,
            "interfaces": ["cali*"],
            "attach_type": self._attach_type,
            "retry": self._settings.retry,
            "heartbeat": str(inside(self._node.heartbeat_file)),
            "objects": str(inside(self._settings.objects)),
            "log": self._log,
            "faults": str(inside(self._node.faults.file)),
            "metrics": self._settings.metrics,
            "workloads": str(inside(self._node.workloads_file)),
        }

    def _probe(self) -> None:
        """Probe the readiness in a separate thread, while the node is up since the same boot."""
        node = self._node
        with suppress(Refusal), node.felix_health() as address:
            while node.alive and node.boots == self.boot and not self._stopped.wait(_PROBE_EVERY):
                self._is_ready = _answers_ready(address)

    # --- stopping -----------------------------------------------------------------------------

    def stop(self, grace: int) -> bool:
        """Stop it, at once or after at most ``grace`` seconds; True once it has ended."""
        faults, now = self._node.faults, time.monotonic()
        self._stopped.set()
        if self._stop_asked is None:
            self._stop_asked = now
            if faults.killed_in_pass and not self._container.ended():
                self._die_in_pass(faults.killed_in_pass)
        if not self._container.ended() and not faults.runtime_loses_felix:
            waited = now - self._stop_asked
            if waited >= faults.linger:
                kill = waited >= faults.linger + grace
                self._container.signal(signal.SIGKILL if kill else signal.SIGTERM)
            return self._container.ended(within=0.02)
        return True

    def _die_in_pass(self, where: Mapping[str, str]) -> None:
        """Kill it in the middle of a re-attachment; if it does not get there, it keeps running."""
        faults = self._node.faults
        faults.felix(churn=True, kill_in_pass=where)
        deadline = time.monotonic() + _PASS
        while not self._container.ended() and time.monotonic() < deadline:
            self._node.beat()  # it may just have looked
            time.sleep(0.1)
        faults.felix()


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


def _answers_ready(address: tuple[str, int]) -> bool:
    connection = http.client.HTTPConnection(*address, timeout=2)
    try:
        connection.request("GET", "/readiness")
        return connection.getresponse().status in (200, 204)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
