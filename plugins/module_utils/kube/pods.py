# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the fields of a pod. Pure: pods are dicts as the API returns them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Pod = Mapping[str, Any]

REVISION_LABEL = "controller-revision-hash"
_MIRROR = "kubernetes.io/config.mirror"


def name_of(pod: Mapping[str, Any]) -> str:
    """namespace/name."""
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def path_of(pod: Pod) -> str:
    metadata = pod["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"


def uid_of(resource: Mapping[str, Any]) -> str:
    return str(resource["metadata"]["uid"])


def controller_of(resource: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The owner reference of its controller."""
    references = resource["metadata"].get("ownerReferences") or ()
    return next((owner for owner in references if owner.get("controller")), None)


def terminating_since(pod: Pod) -> str | None:
    """The deletionTimestamp, when the grace period ends; None if the pod is not being deleted."""
    since: str | None = pod["metadata"].get("deletionTimestamp")
    return since


def is_finished(pod: Pod) -> bool:
    return phase_of(pod) in ("Succeeded", "Failed")


def is_mirror(pod: Pod) -> bool:
    """Whether it mirrors a static pod of the kubelet, which the API can't stop."""
    return _MIRROR in (pod["metadata"].get("annotations") or {})


def has_local_data(pod: Pod) -> bool:
    return any("emptyDir" in volume for volume in pod["spec"].get("volumes") or ())


def has_own_network(pod: Pod) -> bool:
    """Whether it runs with an interface that the CNI plugin made."""
    if pod["spec"].get("hostNetwork") or terminating_since(pod) is not None:
        return False
    return phase_of(pod) == "Running"


def phase_of(pod: Pod) -> str:
    return str((pod.get("status") or {}).get("phase") or "Unknown")


def condition(resource: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The condition of that type; empty if there is none."""
    conditions = (resource.get("status") or {}).get("conditions") or ()
    return next((found for found in conditions if found["type"] == kind), {})


def is_ready(resource: Mapping[str, Any]) -> bool:
    """Whether a pod or a node is Ready."""
    return condition(resource, "Ready").get("status") == "True"


def revision_of(pod: Pod) -> str:
    """The hash of the ControllerRevision that it was created from."""
    return str((pod["metadata"].get("labels") or {}).get(REVISION_LABEL) or "")


def container_states(pod: Pod) -> dict[str, str]:
    """The state of each container, such as ``waiting: ErrImagePull``; init containers first."""
    status = pod.get("status") or {}
    statuses = [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]
    return {container["name"]: _state(container) for container in statuses}


def _state(status: Mapping[str, Any]) -> str:
    state: Mapping[str, Any] = status.get("state") or {}
    kind = next(iter(state), "not started")
    detail = state.get(kind) or {}
    word = kind
    if kind == "running":
        word = "ready" if status.get("ready") else "running, not ready"
    why = ": ".join(filter(None, (detail.get("reason"), detail.get("message"))))
    text = f"{word}: {why}" if why else word
    restarts = status.get("restartCount") or 0
    return f"{text}, restarted {restarts} times" if restarts else text
