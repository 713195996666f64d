# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A large cluster in a real kube-apiserver: nodes and pods that exist as objects only.

They are written into its etcd, a hundred at a time, as the API would have written them: through the
API, 30,000 pods with their status take minutes. No controllers run, for nothing may change them. A
pod is as large as one of a Deployment with two containers that runs, managed fields included; half
of the pods are covered by budgets.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.control_plane import (
    NOT_FOUND,
    ControlPlane,
    control_plane,
    find,
)

Object = dict[str, Any]
NAMESPACES = 50
#: Kinds of pods in each namespace; every second has a budget.
APPS = 8
_BATCH = 100
_TIME = "2026-11-23T22:00:00Z"
_DAEMON_SETS = "/apis/apps/v1/namespaces/kube-system"


def pod(number: int, nodes: int) -> tuple[str, Object]:
    """(namespace, object) of a running pod of a ReplicaSet."""
    app = f"app-{number % APPS}"
    namespace = f"shop-{number // APPS % NAMESPACES}"
    metadata = {
        **_metadata(f"{app}-{number:06d}", namespace),
        "labels": {"app": app, "pod-template-hash": "6d4cf56db6", "team": f"team-{number % 17}"},
        "annotations": {"prometheus.io/scrape": "true", "checksum/config": f"{number:064x}"},
        "ownerReferences": [_owner("ReplicaSet", app, app)],
        "managedFields": _managed_fields(),
    }
    names = ("app", "sidecar")
    spec = {
        "nodeName": _node_name(number % nodes),
        "restartPolicy": "Always",
        "containers": [_container(name) for name in names],
    }
    return namespace, {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": spec,
        "status": _status(names, number),
    }


def daemonset_pod(number: int, uid: str) -> tuple[str, Object]:
    """calico-node on one node."""
    _namespace, made = pod(number, number + 1)
    metadata = {
        **_metadata(f"calico-node-{number:05d}", "kube-system"),
        "labels": {"k8s-app": "calico-node", "controller-revision-hash": "one"},
        "ownerReferences": [_owner("DaemonSet", "calico-node", uid)],
    }
    spec = {**made["spec"], "containers": _template()["spec"]["containers"]}
    return "kube-system", {**made, "metadata": metadata, "spec": spec}


def node(number: int) -> Object:
    images = [
        {"names": [f"registry.example.com/image-{n}@sha256:{n:064x}"], "sizeBytes": 100_000_000}
        for n in range(50)
    ]
    status = {"conditions": [{"type": "Ready", "status": "True"}], "images": images}
    metadata = _metadata(_node_name(number))
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": status}


def _node_name(number: int) -> str:
    return f"node-{number:05d}"


def _metadata(name: str, namespace: str | None = None) -> Object:
    made = {"name": name, "uid": str(uuid.uuid4()), "creationTimestamp": _TIME}
    return {**made, "namespace": namespace} if namespace else made


def _owner(kind: str, name: str, uid: str) -> Object:
    return {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": True}


def _container(name: str) -> Object:
    env = [{"name": f"SETTING_{n}", "value": f"value-{n}"} for n in range(10)]
    limits = {"cpu": "500m", "memory": "256Mi"}
    resources = {"limits": limits, "requests": limits}
    image = f"registry.example.com/shop/{name}:v1.2.3"
    return {"name": name, "image": image, "env": env, "resources": resources}


def _status(names: Iterable[str], number: int) -> Object:
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": _TIME}
        for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
    ]
    statuses = [
        {
            "name": name,
            "image": f"registry.example.com/shop/{name}:v1.2.3",
            "imageID": f"registry.example.com/shop/{name}@sha256:{number:064x}",
            "containerID": f"containerd://{number:064x}",
            "ready": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": _TIME}},
        }
        for name in names
    ]
    return {"phase": "Running", "conditions": conditions, "containerStatuses": statuses}


def _managed_fields() -> list[Object]:
    fields: Object = {
        f'k:{{"name":"{name}"}}': {
            ".": {},
            "f:name": {},
            "f:image": {},
            "f:resources": {".": {}, "f:limits": {"f:cpu": {}}, "f:requests": {"f:cpu": {}}},
            "f:env": {f'k:{{"name":"SETTING_{n}"}}': {"f:value": {}} for n in range(10)},
        }
        for name in ("app", "sidecar")
    }
    return [
        {
            "manager": "kube-controller-manager",
            "operation": "Update",
            "apiVersion": "v1",
            "time": _TIME,
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:containers": fields, "f:nodeName": {}}},
        }
    ]


def _template() -> Object:
    env = [{"name": "FELIX_BPFENABLED", "value": "true"}]
    container = {"name": "calico-node", "image": "calico/node:v3.28.1", "env": env}
    return {"metadata": {"labels": {"k8s-app": "calico-node"}}, "spec": {"containers": [container]}}


@dataclass
class LargeCluster:
    """Grows only."""

    api: ControlPlane
    _daemonset_uid: str = ""
    _made: dict[str, int] = field(default_factory=lambda: {"nodes": 0, "pods": 0})

    @property
    def kubeconfig(self) -> Path:
        return self.api.kubeconfig

    def found(self) -> None:
        """All objects except nodes and pods, through the API itself."""
        client = Client(self.api)
        template = _template()
        spec = {"selector": {"matchLabels": template["metadata"]["labels"]}, "template": template}
        body: Object = {"metadata": {"name": "calico-node"}, "spec": spec}
        made = client.do("POST", f"{_DAEMON_SETS}/daemonsets", body)
        self._daemonset_uid = made["metadata"]["uid"]
        revision = {
            "metadata": {
                "name": "calico-node-one",
                "labels": {"controller-revision-hash": "one"},
                "ownerReferences": [_owner("DaemonSet", "calico-node", self._daemonset_uid)],
            },
            "revision": 1,
            "data": {"spec": {"template": template}},
        }
        client.do("POST", f"{_DAEMON_SETS}/controllerrevisions", revision)
        policy = client.do("GET", "/apis/policy")["preferredVersion"]["groupVersion"]
        for number in range(NAMESPACES):
            name = f"shop-{number}"
            client.do("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
            path = f"/apis/{policy}/namespaces/{name}/poddisruptionbudgets"
            for each in range(0, APPS, 2):
                selector = {"matchLabels": {"app": f"app-{each}"}}
                guard = {"selector": selector, "minAvailable": 1}
                client.do("POST", path, {"metadata": {"name": f"guard-{each}"}, "spec": guard})

    def fill(self, nodes: int, pods: int) -> None:
        """``pods`` counts all, including those of the DaemonSet: one per node."""
        others = pods - nodes
        new_nodes = range(self._made["nodes"], nodes)
        self._write((f"minions/{_node_name(n)}", node(n)) for n in new_nodes)
        named = (daemonset_pod(n, self._daemonset_uid) for n in new_nodes)
        self._write(map(_pod_key, named))
        named = (pod(n, nodes) for n in range(self._made["pods"], others))
        self._write(map(_pod_key, named))
        self._made = {"nodes": nodes, "pods": others}

    def _write(self, objects: Iterable[tuple[str, Object]]) -> None:
        connection = http.client.HTTPConnection(urlsplit(self.api.etcd_url).netloc, timeout=60)
        rest = iter(objects)
        try:
            while batch := list(islice(rest, _BATCH)):
                puts = [{"requestPut": _put(f"/registry/{k}", each)} for k, each in batch]
                connection.request("POST", "/v3/kv/txn", json.dumps({"success": puts}))
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != http.HTTPStatus.OK:
                    raise RuntimeError(f"etcd does not take them: {text!r}")
        finally:
            connection.close()


def _pod_key(named: tuple[str, Object]) -> tuple[str, Object]:
    namespace, made = named
    return f"pods/{namespace}/{made['metadata']['name']}", made


def _put(key: str, stored: Object) -> dict[str, str]:
    value = json.dumps(stored, separators=(",", ":")).encode()
    return {
        "key": base64.b64encode(key.encode()).decode(),
        "value": base64.b64encode(value).decode(),
    }


@contextmanager
def large_cluster() -> Iterator[LargeCluster]:
    """An API server with only etcd, stopped when the context ends.

    :raises FileNotFoundError: there are no servers to start.
    """
    binaries = find()
    if binaries is None:
        raise FileNotFoundError(NOT_FOUND)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("etcd", "kube-apiserver"):
            Path(folder, name).symlink_to(binaries / name)
        os.environ["CALICO_BPF_CONTROL_PLANE"] = folder
        with control_plane() as api:
            made = LargeCluster(api)
            made.found()
            yield made
