# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kubelet of a node."""

from __future__ import annotations

import http.client
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.containerd import SOCKET
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.namespaces import Namespaces
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.server import Server

_HEALTH_PORT = 10248
_PATIENCE = 60.0


class Kubelet:
    """A kubelet that can be started and stopped."""

    def __init__(self, namespaces: Namespaces, folder: Path, programs: Path) -> None:
        self._namespaces = namespaces
        self._folder = folder
        self._programs = programs
        self._server: Server | None = None
        self._address = ""
        self._flags: list[str] = []

    def configure(self, node: str, address: str, cgroup: str, kubeconfig: Path) -> None:
        """Set how it joins the cluster."""
        self._folder.mkdir()
        self._address = address
        config = self._folder / "config.json"  # JSON is YAML
        config.write_text(json.dumps(self._configuration(cgroup), indent=2))
        self._flags = [
            f"--config={config}",
            f"--kubeconfig={kubeconfig}",
            f"--root-dir={self._folder}/root",
            f"--cert-dir={self._folder}/pki",
            f"--hostname-override={node}",
            f"--node-ip={address}",
            "--v=2",
        ]

    def begin(self) -> None:
        """Start it, without waiting."""
        self._server = Server(
            "kubelet",
            self._namespaces.words(str(self._programs / "kubelet"), *self._flags),
            self._folder / "kubelet.log",
            self._programs,
            entered=True,
        )

    def wait(self) -> None:
        """Wait until it is healthy.

        :raises RuntimeError: it does not become healthy, or ends.
        """
        assert self._server
        deadline = time.monotonic() + _PATIENCE
        while not self._is_healthy():
            self._server.check()
            if time.monotonic() > deadline:
                raise self._server.failure(f"was not healthy within {_PATIENCE:.0f} s")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it. Containers go on running."""
        assert self._server
        self._server.stop()

    def kill(self) -> None:
        if self._server:
            self._server.kill()

    def probe(self) -> bool:
        """Whether it says that it is healthy.

        :raises OSError: it does not answer.
        """
        connection = http.client.HTTPConnection(self._address, _HEALTH_PORT, timeout=5)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == http.HTTPStatus.OK
        finally:
            connection.close()

    def _is_healthy(self) -> bool:
        with suppress(OSError, http.client.HTTPException):
            return self.probe()
        return False

    def _configuration(self, cgroup: str) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self._address,
            "healthzBindAddress": self._address,
            "healthzPort": _HEALTH_PORT,
            # Only this machine reaches the address.
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{cgroup}",
            "failCgroupV1": False,
            # What belongs to the machine is neither judged nor changed.
            "enforceNodeAllocatable": [],
            "evictionHard": _NEVER_EVICT,
            "failSwapOn": False,
            "imageGCHighThresholdPercent": 100,
            "localStorageCapacityIsolation": False,
            "makeIPTablesUtilChains": False,
            "resolvConf": "",
            "podLogsDir": f"{self._folder}/pod-logs",
            "volumePluginDir": f"{self._folder}/volume-plugins",
        }


_NEVER_EVICT = {
    "memory.available": "1Mi",
    "nodefs.available": "0%",
    "nodefs.inodesFree": "0%",
    "imagefs.available": "0%",
    "imagefs.inodesFree": "0%",
}
