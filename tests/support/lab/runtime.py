# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kubelet of the lab's nodes, which runs real processes and interfaces for its pods."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.api import Api
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Refused
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.kubelet import (
    Kubelet,
    Pod,
    PodState,
    now,
    path_of,
)
from ansible_collections.dataplane.calico_bpf.tests.support.lab.felix_container import (
    FelixContainer,
    FelixSettings,
)
from ansible_collections.dataplane.calico_bpf.tests.support.lab.node import Node


class LabKubelet(Kubelet):
    """Runs a Felix for each calico-node pod, and creates an endpoint for each pod with a network.

    Every ``heartbeat`` seconds it reports each node's status, and notifies the node's Felix. A node
    that is down sends no heartbeat and its Ready condition is Unknown; when it is up again, its
    pods are started again.
    """

    def __init__(
        self, api: Api, nodes: Mapping[str, Node], felix: FelixSettings, heartbeat: float
    ) -> None:
        super().__init__(api, list(nodes))
        self._nodes = nodes
        self._felix = felix
        self._heartbeat = heartbeat
        self._runs: dict[str, _Run] = {}
        self._reported_up = dict.fromkeys(nodes, True)

    def __enter__(self) -> LabKubelet:
        for node in self._nodes.values():
            node.beat()
        super().__enter__()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        return self

    # --- pods ---------------------------------------------------------------------------------

    def is_up(self, node: str) -> bool:
        return self._nodes[node].alive

    def start_pod(self, pod: Pod) -> None:
        node, before = self._nodes[pod["spec"]["nodeName"]], self._run(pod)
        restarts = before.state().restarts + 1 if before else 0
        self._runs[pod["metadata"]["uid"]] = _start(node, pod, self._felix, restarts)

    def pod_ready(self, pod: Pod) -> bool:
        node, run = self._nodes[pod["spec"]["nodeName"]], self._run(pod)
        if run is None or run.boot != node.boots:
            self.start_pod(pod)
            return False
        return run.ready()

    def pod_state(self, pod: Pod) -> PodState:
        run = self._run(pod)
        return run.state() if run else PodState()

    def stop_pod(self, pod: Pod) -> bool:
        node, run = self._nodes[pod["spec"]["nodeName"]], self._run(pod)
        if not node.alive:
            return False
        if run is None or run.boot != node.boots:
            return True
        ended = run.stop(int(pod["metadata"].get("deletionGracePeriodSeconds", 0)))
        if not ended or not node.alive:  # a node that is down reports no end of a container
            return False
        del self._runs[pod["metadata"]["uid"]]
        return True

    def pod_log(self, namespace: str, name: str, container: str) -> str:
        return "".join(line for _at, line in self.timed_log(namespace, name))

    def timed_log(self, namespace: str, name: str) -> list[tuple[float, str]]:
        """The log lines of a calico-node pod, each with its time (seconds since 1970)."""
        for uid, (pod, _started) in list(self._running.items()):
            if (pod["metadata"]["namespace"], pod["metadata"]["name"]) == (namespace, name):
                run = self._runs.get(uid)
                return run.log() if isinstance(run, FelixContainer) else []
        return []

    def _run(self, pod: Pod) -> _Run | None:
        return self._runs.get(pod["metadata"]["uid"])

    # --- nodes --------------------------------------------------------------------------------

    def _look(self) -> None:
        for name, node in self._nodes.items():
            if node.alive is not self._reported_up[name]:
                self._reported_up[name] = node.alive
                self._report_ready(name)
                if not node.alive:
                    self._lose_pods(name)
        super()._look()

    def _lose_pods(self, name: str) -> None:
        """Mark the pods as the node controller does when a node stops posting its status."""
        unknown = {"type": "Ready", "status": "False", "reason": "NodeNotReady"}
        for pod, _started in list(self._running.values()):
            if pod["spec"]["nodeName"] == name:
                body = {"status": {"conditions": [unknown]}}
                self._client.ask("PATCH", f"{path_of(pod)}/status", body, patch="strategic-merge")

    def _beat(self) -> None:
        while not self._stopping.wait(self._heartbeat):
            for name, node in self._nodes.items():
                if node.alive and not self.paused.is_set():
                    with suppress(Refused, OSError):  # the next heartbeat is sent anyway
                        self._report_ready(name)
                        node.beat()

    def _report_ready(self, name: str) -> None:
        """Set the Ready condition as the kubelet does, or for a node that is down the API."""
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "lab"}
        ready |= {"lastHeartbeatTime": now()}
        if not self._reported_up[name]:
            why = "Kubelet stopped posting node status."
            ready = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
            ready |= {"message": why}
        body = {"status": {"conditions": [ready]}}
        path = f"/api/v1/nodes/{name}/status"
        self._client.do("PATCH", path, body, patch="strategic-merge")

    def _node(self, name: str) -> dict[str, Any]:
        made = super()._node(name)
        node = self._nodes[name]
        made["status"]["nodeInfo"] = {
            "machineID": name,
            "systemUUID": name,
            "bootID": f"{name}-{node.boots}",
            "kernelVersion": node.kernel_release,
            "osImage": "lab",
            "containerRuntimeVersion": "lab://1",
            "kubeletVersion": self.release,
            "kubeProxyVersion": self.release,
            "operatingSystem": "linux",
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, ""),
        }
        return made


class _Run(Protocol):
    """What runs for a pod since one boot of its node."""

    boot: int

    def ready(self) -> bool: ...

    def state(self) -> PodState: ...

    def stop(self, grace: int) -> bool: ...


def _start(node: Node, pod: Pod, felix: FelixSettings, restarts: int) -> _Run:
    if pod["metadata"].get("labels", {}).get("k8s-app") == "calico-node":
        return FelixContainer(node, pod, felix, restarts)
    if pod["spec"].get("hostNetwork"):
        return _Nothing(node, restarts)
    return _Endpoint(node, pod, restarts)


class _Nothing:
    """A pod in its node's network, for which nothing is run."""

    def __init__(self, node: Node, restarts: int) -> None:
        self.boot = node.boots
        self._restarts = restarts

    def ready(self) -> bool:
        return True

    def state(self) -> PodState:
        return PodState(restarts=self._restarts)

    def stop(self, grace: int) -> bool:
        return True


class _Endpoint(_Nothing):
    """The network of a pod, in which nothing runs."""

    def __init__(self, node: Node, pod: Pod, restarts: int) -> None:
        super().__init__(node, restarts)
        self._node = node
        self._namespace, self._name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        self._address = node.add_endpoint(self._namespace, self._name)

    def state(self) -> PodState:
        return PodState(self._address, self._restarts)

    def stop(self, grace: int) -> bool:
        self._node.remove_endpoint(self._namespace, self._name)
        return True
