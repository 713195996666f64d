# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is applied to a lab's API, modelled on Calico's manifest (manifests/calico-bpf.yaml)."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
SYSTEM, DEMO = "kube-system", "demo"


def calico_node(version: str, attach_type: str | None) -> Object:
    """The DaemonSet of an install by manifest."""
    labels = {"k8s-app": "calico-node"}
    environment = {
        "DATASTORE_TYPE": "kubernetes",
        "FELIX_BPFENABLED": "true",
        "FELIX_HEALTHENABLED": "true",
        **({"FELIX_BPFATTACHTYPE": attach_type} if attach_type else {}),
    }
    cni, node = f"docker.io/calico/cni:{version}", f"docker.io/calico/node:{version}"
    privileged = {"securityContext": {"privileged": True}}
    spec = {
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "hostNetwork": True,
        "tolerations": [
            {"effect": "NoSchedule", "operator": "Exists"},
            {"key": "CriticalAddonsOnly", "operator": "Exists"},
            {"effect": "NoExecute", "operator": "Exists"},
        ],
        "terminationGracePeriodSeconds": 0,
        "priorityClassName": "system-node-critical",
        "initContainers": [
            {"name": "upgrade-ipam", "image": cni, **privileged},
            {"name": "install-cni", "image": cni, **privileged},
            {"name": "mount-bpffs", "image": node, **privileged},
        ],
        "containers": [
            {
                "name": "calico-node",
                "image": node,
                "env": [{"name": n, "value": v} for n, v in environment.items()],
                **privileged,
            }
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "calico-node", "namespace": SYSTEM, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def images(version: str) -> Object:
    """The strategic merge patch that gives calico-node another version."""
    cni, node = f"docker.io/calico/cni:{version}", f"docker.io/calico/node:{version}"
    init = [{"name": name, "image": cni} for name in ("upgrade-ipam", "install-cni")]
    init.append({"name": "mount-bpffs", "image": node})
    containers = [{"name": "calico-node", "image": node}]
    return {"spec": {"template": {"spec": {"initContainers": init, "containers": containers}}}}


def agent(number: int) -> Object:
    """A DaemonSet whose pods have endpoints that no drain takes away."""
    name = f"agent-{number}"
    labels = {"app": name}
    spec = {**_app("agent"), "tolerations": [{"operator": "Exists"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": DEMO},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def web(replicas: int) -> Object:
    """A ReplicaSet whose pods a drain moves."""
    labels = {"app": "web"}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "web", "namespace": DEMO},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": _app("web")},
        },
    }


def budget(policy_version: str, minimum: int) -> Object:
    return {
        "apiVersion": f"policy/{policy_version}",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web", "namespace": DEMO},
        "spec": {"minAvailable": minimum, "selector": {"matchLabels": {"app": "web"}}},
    }


def _app(name: str) -> Object:
    container = {"name": name, "image": f"{name}:1"}
    return {"terminationGracePeriodSeconds": 1, "containers": [container]}
