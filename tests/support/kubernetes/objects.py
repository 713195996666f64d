# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads fields of Kubernetes objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Held = Mapping[str, Any]


def conditions(held: Held) -> dict[str, str]:
    """The status of each condition by its type."""
    listed = (held.get("status") or {}).get("conditions") or ()
    return {each["type"]: each["status"] for each in listed}


def terminates(held: Held) -> bool:
    return held["metadata"].get("deletionTimestamp") is not None


def ready(pod: Held) -> bool:
    return not terminates(pod) and conditions(pod).get("Ready") == "True"


def finished(pod: Held) -> bool:
    return pod["status"].get("phase") in ("Succeeded", "Failed")


def owner(held: Held) -> str | None:
    """The uid of the controller that an object belongs to."""
    references = held["metadata"].get("ownerReferences") or ()
    return next((each["uid"] for each in references if each.get("controller")), None)


def meant_for(pod: Held) -> str | None:
    """The one node that a DaemonSet's pod may be bound to; None for any other pod."""
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            if field["key"] == "metadata.name":
                return str(field["values"][0])
    return None
