# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The DaemonSets, ReplicaSets and pods that the tests of the API create."""

from __future__ import annotations

from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import (
    ready,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.outcomes import (
    eventually,
)

Object = dict[str, Any]
OLD, NEW = "calico/node:v3.28.1", "calico/node:v3.29.5"


def daemon_set(namespace: str, strategy: str = "OnDelete", **pod: Any) -> Object:
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    container = {"name": "calico-node", "image": OLD, "env": env}
    spec = {
        "nodeSelector": {"test": namespace},
        "tolerations": [{"operator": "Exists"}],
        "terminationGracePeriodSeconds": 5,
        "containers": [container],
        **pod,
    }
    labels = {"k8s-app": "calico-node"}
    return {
        "metadata": {"name": "calico-node"},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": strategy},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def bare_pod(name: str, node: str | None = None, grace: int = 5) -> Object:
    spec: Object = {"containers": [{"name": "app", "image": "app:1"}]}
    spec["terminationGracePeriodSeconds"] = grace
    spec |= {"nodeName": node} if node else {}
    return {"metadata": {"name": name, "labels": {"app": "web"}}, "spec": spec}


def image(wanted: str) -> Object:
    containers = [{"name": "calico-node", "image": wanted}]
    return {"spec": {"template": {"spec": {"containers": containers}}}}


def pods_at(raw: Client, namespace: str) -> list[Object]:
    pods: list[Object] = raw.do("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
    return pods


def images(raw: Client, namespace: str) -> list[str]:
    """The images of the pods that are ready."""
    up = filter(ready, pods_at(raw, namespace))
    return sorted(pod["spec"]["containers"][0]["image"] for pod in up)


def roll_out(apps: Any, raw: Client, namespace: str, **how: Any) -> list[Object]:
    """A DaemonSet whose three pods are ready."""
    apps.create_namespaced_daemon_set(namespace, daemon_set(namespace, **how))
    eventually(lambda: images(raw, namespace) == [OLD] * 3)
    return pods_at(raw, namespace)


def replica_set(namespace: str, replicas: int) -> Object:
    labels = {"app": "web"}
    spec = {**bare_pod("web")["spec"], "nodeSelector": {"test": namespace}}
    return {
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }
