# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for the kubelets of some nodes, which uses only the Kubernetes API."""

from __future__ import annotations

import http.client
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.api import Api
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client, Refused
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import (
    conditions,
    finished,
    terminates,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.releases import (
    reports_terminal_phase,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.scheduling import choose_node

Pod = Mapping[str, Any]
#: Seconds between two reads of the pods.
_PAUSE = 0.05
_READINESS = ("ContainersReady", "Ready")


@dataclass(frozen=True)
class PodState:
    """The state of a pod: its address, and how often each of its containers was restarted."""

    address: str = "127.0.0.1"
    restarts: int = 0
    #: Why no container runs now, such as CrashLoopBackOff.
    waiting: str = ""


class Kubelet:
    """Registers nodes and runs the lifecycle of their pods; a context manager.

    It behaves like the kubelets of the API's release. Pods become Ready ``ready_after`` seconds
    after their start. A subclass may run real processes for them, in ``start_pod``, ``pod_ready``,
    ``pod_state``, ``stop_pod`` and ``pod_log``: all but the last are called from one thread, which
    they must not block.
    """

    def __init__(
        self,
        api: Api,
        nodes: Sequence[str],
        *,
        labels: Mapping[str, str] | None = None,
        ready_after: float = 0.0,
    ) -> None:
        self.nodes = tuple(nodes)
        self.ready_after = ready_after
        #: While it is set, nothing changes on these nodes.
        self.paused = threading.Event()
        self._client = Client(api)
        self.release: str = self._client.do("GET", "/version")["gitVersion"]
        self._labels = dict(labels or {})
        self._running: dict[str, tuple[Pod, float]] = {}
        self._stopping = threading.Event()
        self._logs = _LogServer(self._pod_log_now)
        self._thread = threading.Thread(target=self._work, name="kubelet", daemon=True)

    def __enter__(self) -> Kubelet:
        self._logs.start()
        for node in self.nodes:
            self._client.do("POST", "/api/v1/nodes", self._node(node))
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._logs.stop()
        for node in self.nodes:
            self._client.ask("DELETE", f"/api/v1/nodes/{node}")

    def is_up(self, node: str) -> bool:
        """Whether the node runs; the pods of other nodes are left unchanged."""
        return True

    # --- what runs for a pod ------------------------------------------------------------------

    def start_pod(self, pod: Pod) -> None:
        """Start the pod."""

    def pod_ready(self, pod: Pod) -> bool:
        """Whether the pod is ready now."""
        started = self._running[pod["metadata"]["uid"]][1]
        return time.monotonic() - started >= self.ready_after

    def pod_state(self, pod: Pod) -> PodState:
        """The state that is reported beside the readiness."""
        return PodState()

    def stop_pod(self, pod: Pod) -> bool:
        """Stop the pod. True when it has ended; until then it is called again."""
        return True

    def _pod_log_now(self, namespace: str, pod: str, container: str) -> str:
        """Call ``pod_log``, which a test may have replaced after the start of the server."""
        return self.pod_log(namespace, pod, container)

    def pod_log(self, namespace: str, name: str, container: str) -> str:
        """The log of a container."""
        return f"{namespace}/{name}/{container} started\n"

    # --- the work -----------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._stopping.wait(_PAUSE):
            if not self.paused.is_set():
                try:
                    self._look()
                except (Refused, OSError, http.client.HTTPException):
                    continue  # the API is away for a while, or a pod was deleted in between

    def _look(self) -> None:
        pods = self._client.do("GET", "/api/v1/pods")["items"]
        present = {pod["metadata"]["uid"] for pod in pods}
        for uid, (pod, _started) in list(self._running.items()):
            if uid not in present and self.stop_pod(pod):  # deleted without a grace period
                del self._running[uid]
        for pod in pods:
            node = pod["spec"].get("nodeName")
            if node in self.nodes:
                if self.is_up(node):
                    self._sync(pod)
            elif node is None and not terminates(pod):
                self._schedule(pod, pods)

    def _sync(self, pod: Pod) -> None:
        uid = pod["metadata"]["uid"]
        if terminates(pod):
            if uid not in self._running or self.stop_pod(pod):
                self._running.pop(uid, None)
                self._report_end(pod)
                self._remove(pod)
        elif not finished(pod):
            if uid not in self._running:
                self._running[uid] = (pod, time.monotonic())
                self.start_pod(pod)
            self._report(pod, self.pod_ready(pod))

    def _schedule(self, pod: dict[str, Any], pods: Sequence[Pod]) -> None:
        """Schedule the pod; a real scheduler, if there is one, may be faster (409)."""
        nodes = self._client.do("GET", "/api/v1/nodes")["items"]
        chosen = choose_node(pod, [n for n in nodes if n["metadata"]["name"] in self.nodes], pods)
        if chosen:
            target = {"apiVersion": "v1", "kind": "Node", "name": chosen}
            metadata = {"name": pod["metadata"]["name"]}
            body = {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
            self._client.ask("POST", f"{path_of(pod)}/binding", body)
            pod["spec"]["nodeName"] = chosen  # for the choice of the next pod's node

    def _remove(self, pod: Pod) -> None:
        preconditions = {"uid": pod["metadata"]["uid"]}
        options = {"gracePeriodSeconds": 0, "preconditions": preconditions}
        self._client.ask("DELETE", path_of(pod), options)

    def _report_end(self, pod: Pod) -> None:
        """All containers are terminated; current releases then report a terminal phase, too."""
        terminal = reports_terminal_phase(self.release)
        statuses = pod["status"].get("containerStatuses", ())
        terminated = [each for each in statuses if each["state"].get("terminated")]
        if finished(pod) or (not terminal and len(terminated) == len(pod["spec"]["containers"])):
            return  # already reported
        killed = not pod["metadata"].get("deletionGracePeriodSeconds")
        phase = ("Failed" if killed else "Succeeded") if terminal else pod["status"]["phase"]
        status = {"status": _ended_status(pod, phase, 137 if killed else 0)}
        self._client.do("PATCH", f"{path_of(pod)}/status", status)

    def _report(self, pod: Pod, ready: bool) -> None:
        phase, reported = pod["status"].get("phase"), conditions(pod).get("Ready")
        restarts = {each["restartCount"] for each in pod["status"].get("containerStatuses", ())}
        state = self.pod_state(pod)
        if (phase, reported, restarts) != ("Running", str(ready), {state.restarts}):
            status = {"status": _running_status(pod, ready, state)}
            self._client.do("PATCH", f"{path_of(pod)}/status", status)

    def _node(self, name: str) -> dict[str, Any]:
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "lab"}
        ready |= {"lastHeartbeatTime": now(), "lastTransitionTime": now()}
        endpoints = {"kubeletEndpoint": {"Port": self._logs.port}}
        addresses = [{"type": "InternalIP", "address": "127.0.0.1"}]
        addresses.append({"type": "Hostname", "address": name})
        room = {"cpu": "8", "memory": "16Gi", "pods": "110"}
        status = {"conditions": [ready], "addresses": addresses, "daemonEndpoints": endpoints}
        status |= {"capacity": room, "allocatable": room}
        labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", **self._labels}
        return {"metadata": {"name": name, "labels": labels}, "status": status}


def path_of(pod: Pod) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _running_status(pod: Pod, ready: bool, state: PodState) -> dict[str, Any]:
    true = dict.fromkeys(("Initialized", "PodScheduled"), "True")
    states = {**true, "ContainersReady": str(ready), "Ready": str(ready)}
    listed = [{"type": t, "status": s, "lastTransitionTime": now()} for t, s in states.items()]
    running = {"running": {"startedAt": now()}}
    containers = [
        {
            "name": each["name"],
            "image": each["image"],
            "imageID": "",
            "ready": ready,
            "started": not state.waiting,
            "restartCount": state.restarts,
            # The other state is set to null, or the merge would keep it.
            "state": {"running": None, "waiting": None}
            | ({"waiting": {"reason": state.waiting}} if state.waiting else running),
        }
        for each in pod["spec"]["containers"]
    ]
    addresses = {"hostIP": "127.0.0.1", "podIP": state.address}
    status = {"phase": "Running", "conditions": listed, "containerStatuses": containers}
    return {"startTime": now(), **status, **addresses}


def _ended_status(pod: Pod, phase: str, exit_code: int) -> dict[str, Any]:
    false = [
        {"type": kind, "status": "False", "reason": "PodCompleted", "lastTransitionTime": now()}
        for kind in ("ContainersReady", "Ready")
    ]
    others = [c for c in pod["status"].get("conditions", ()) if c["type"] not in _READINESS]
    before = {each["name"]: each for each in pod["status"].get("containerStatuses", ())}
    containers = [
        {
            "name": each["name"],
            "image": each["image"],
            "imageID": "",
            "ready": False,
            "started": False,
            "restartCount": before.get(each["name"], {}).get("restartCount", 0),
            "state": {"terminated": {"exitCode": exit_code, "finishedAt": now()}},
        }
        for each in pod["spec"]["containers"]
    ]
    return {"phase": phase, "conditions": [*others, *false], "containerStatuses": containers}


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class _LogServer:
    """Answers /containerLogs over TLS, as the API asks a kubelet for them."""

    def __init__(self, read: Callable[[str, str, str], str]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                split = urlsplit(self.path)
                namespace, name, container = split.path.split("/")[2:5]
                lines = read(namespace, name, container).splitlines(keepends=True)
                tail = int(parse_qs(split.query).get("tailLines", [len(lines)])[0])
                text = "".join(lines[len(lines) - min(tail, len(lines)) :]).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing is logged."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = _certified().wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _certified() -> ssl.SSLContext:
    """A context with a fresh self-signed certificate; its files are gone on return."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder, "certificate"), Path(folder, "key")
        words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"]
        words += ["ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=kubelet", "-days", "2"]
        words += ["-keyout", str(key), "-out", str(certificate)]
        subprocess.run(words, check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return context
