# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The DaemonSet calico-node of a real cluster, as tests create, change and watch it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.image import image_of
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.real_cluster import VERSIONS
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.waiting import wait_until
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import ready

Object = dict[str, Any]
NAMESPACE, NAME = "kube-system", "calico-node"
OLD, NEW = VERSIONS
_LABELS = {"k8s-app": NAME}
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_DAEMONSETS = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What matters to the replacement of a pod; the defaults are those of Calico's manifest."""

    version: str = OLD
    grace_seconds: int = 0
    #: For how long the init container runs; there is none with 0.
    init_seconds: int = 0
    #: Whether Felix ends by SIGKILL only.
    ignore_term: bool = False


class CalicoNode:
    """The DaemonSet of a cluster, through its API."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, settings: Settings) -> None:
        """Create it, and wait until a pod is Ready on every node."""
        self._client.do("POST", _DAEMONSETS, _manifest(settings))
        self.wait_ready()

    def delete(self) -> None:
        """Delete it with all its pods, and wait until they are gone; also where it is absent."""
        self._client.ask("DELETE", f"{_DAEMONSETS}/{NAME}")
        for pod in self.pods():
            self.set_finalizers(pod, [])
        wait_until(lambda: not self.pods(), "all pods of calico-node are gone")
        asked = f"{_DAEMONSETS}/{NAME}"
        wait_until(lambda: self._client.ask("GET", asked).code == 404, "calico-node is gone")

    def set_version(self, version: str = NEW) -> None:
        """Change the image. With OnDelete all pods stay as they are."""
        containers = [{"name": NAME, "image": image_of(version)}]
        change = {"spec": {"template": {"spec": {"containers": containers}}}}
        self._client.do("PATCH", f"{_DAEMONSETS}/{NAME}", change, patch="strategic-merge")

    def pods(self, node: str | None = None) -> list[Object]:
        """All its pods, or those of a node, the oldest first."""
        listed = self._client.do("GET", _PODS, labelSelector=f"k8s-app={NAME}")
        mine: list[Object] = [
            pod for pod in listed["items"] if node in (None, pod["spec"].get("nodeName"))
        ]
        return sorted(mine, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def pod(self, uid: str) -> Object | None:
        """The pod of a UID, if it is there."""
        return next((pod for pod in self.pods() if uid_of(pod) == uid), None)

    def ready_pod(self, node: str) -> Object:
        """The one pod of a node that is Ready, once there is one."""
        found = wait_until(
            lambda: [pod for pod in self.pods(node) if ready(pod)], f"a Ready pod on {node}"
        )
        return found[0]

    def successor(self, old: Object) -> Object:
        """The next pod on the node of a deleted one, once there is one."""
        node, uid = old["spec"]["nodeName"], uid_of(old)
        found = wait_until(
            lambda: [pod for pod in self.pods(node) if uid_of(pod) != uid], f"a new pod on {node}"
        )
        return found[-1]

    def wait_gone(self, old: Object, seconds: float = 60.0) -> None:
        """Wait until the API no longer has a pod."""
        wait_until(lambda: self.pod(uid_of(old)) is None, "the old pod is gone", seconds)

    def wait_ready(self) -> None:
        """Wait until every node has a Ready pod, and no other."""
        wait_until(self._is_complete, "calico-node is Ready on every node")

    def set_finalizers(self, pod: Object, finalizers: list[str]) -> None:
        """Change the finalizers of a pod; one that is gone is left alone."""
        change = {"metadata": {"finalizers": finalizers}}
        answer = self._client.ask("PATCH", _path(pod), change)
        assert answer.code in (200, 404), answer

    def delete_pod(self, pod: Object) -> None:
        """Delete a pod as kubectl does without options: with the grace that it has itself."""
        self._client.do("DELETE", _path(pod), {"preconditions": {"uid": uid_of(pod)}})

    def _is_complete(self) -> bool:
        status = self._client.do("GET", f"{_DAEMONSETS}/{NAME}").get("status") or {}
        wanted, pods = status.get("desiredNumberScheduled", 0), self.pods()
        return wanted > 0 and len(pods) == wanted and all(map(ready, pods))


def uid_of(pod: Object) -> str:
    return str(pod["metadata"]["uid"])


def _path(pod: Object) -> str:
    return f"{_PODS}/{pod['metadata']['name']}"


def _manifest(settings: Settings) -> Object:
    spec = {
        "selector": {"matchLabels": _LABELS},
        "updateStrategy": {"type": "OnDelete"},
        "template": {"metadata": {"labels": _LABELS}, "spec": _pod(settings)},
    }
    return {"metadata": {"name": NAME}, "spec": spec}


def _pod(settings: Settings) -> Object:
    image = {"image": image_of(settings.version), "imagePullPolicy": "Never"}
    felix = {
        **image,
        "name": NAME,
        "command": ["calico-node", "-felix"],
        "env": [{"name": "IGNORE_TERM", "value": "true"}] if settings.ignore_term else [],
        "readinessProbe": {"exec": {"command": ["cat", "/tmp/ready"]}, "periodSeconds": 1},
        "securityContext": {"privileged": True},
    }
    init = {**image, "name": "install-cni", "command": ["sleep", str(settings.init_seconds)]}
    return {
        "hostNetwork": True,
        "priorityClassName": "system-node-critical",
        "terminationGracePeriodSeconds": settings.grace_seconds,
        "tolerations": [{"operator": "Exists"}],
        "initContainers": [init] if settings.init_seconds else [],
        "containers": [felix],
    }
