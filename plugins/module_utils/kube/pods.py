# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pod says of itself. Pure: pods are as the API gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Pod = Mapping[str, Any]

REVISION_LABEL = "controller-revision-hash"
_MIRROR = "kubernetes.io/config.mirror"


def name_of(held: Mapping[str, Any]) -> str:
    """namespace/name."""
    return f"{held['metadata']['namespace']}/{held['metadata']['name']}"


def path_of(pod: Pod) -> str:
    metadata = pod["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"


def uid_of(held: Mapping[str, Any]) -> str:
    return str(held["metadata"]["uid"])


def controller_of(held: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The owner reference that controls it."""
    references = held["metadata"].get("ownerReferences") or ()
    return next((each for each in references if each.get("controller")), None)


def terminating_since(pod: Pod) -> str | None:
    """When the deletion was asked for and the grace period ends, or None."""
    since: str | None = pod["metadata"].get("deletionTimestamp")
    return since


def is_finished(pod: Pod) -> bool:
    return phase_of(pod) in ("Succeeded", "Failed")


def is_mirror(pod: Pod) -> bool:
    """Whether a kubelet made it for a static pod of its own, which the API can't stop."""
    return _MIRROR in (pod["metadata"].get("annotations") or {})


def has_local_data(pod: Pod) -> bool:
    return any("emptyDir" in volume for volume in pod["spec"].get("volumes") or ())


def phase_of(pod: Pod) -> str:
    return str((pod.get("status") or {}).get("phase") or "Unknown")


def condition(held: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The condition of that type, empty where there is none."""
    listed = (held.get("status") or {}).get("conditions") or ()
    return next((each for each in listed if each["type"] == kind), {})


def is_ready(held: Mapping[str, Any]) -> bool:
    """A pod's or a node's word."""
    return condition(held, "Ready").get("status") == "True"


def revision_of(pod: Pod) -> str:
    """The hash of the ControllerRevision that it was made from."""
    return str((pod["metadata"].get("labels") or {}).get(REVISION_LABEL) or "")


def container_states(pod: Pod) -> dict[str, str]:
    """What each container does, in words such as ``waiting: ErrImagePull``; the inits first."""
    status = pod.get("status") or {}
    statuses = [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]
    return {each["name"]: _state(each) for each in statuses}


def _state(status: Mapping[str, Any]) -> str:
    state: Mapping[str, Any] = status.get("state") or {}
    kind = next(iter(state), "not started")
    detail = state.get(kind) or {}
    word = kind
    if kind == "running":
        word = "ready" if status.get("ready") else "running, not ready"
    why = ": ".join(filter(None, (detail.get("reason"), detail.get("message"))))
    told = f"{word}: {why}" if why else word
    restarts = status.get("restartCount") or 0
    return f"{told}, restarted {restarts} times" if restarts else told
