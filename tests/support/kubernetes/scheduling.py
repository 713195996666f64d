# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The choice of a node for a pod, as far as the lab needs a scheduler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import (
    conditions,
    meant_for,
    owner,
    terminates,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.selectors import by_selector

Held = Mapping[str, Any]


def choose_node(pod: Held, nodes: Sequence[Held], pods: Sequence[Held]) -> str | None:
    """The node for an unscheduled pod; None if no node takes it, or if it has no owner.

    A DaemonSet's pod goes to the node of its affinity. Any other pod goes to a node that is Ready
    and not cordoned and that its nodeSelector selects: the one with the fewest ``pods`` of its
    owner, then of all.
    """
    names = [node["metadata"]["name"] for node in nodes]
    if meant := meant_for(pod):
        return meant if meant in names else None
    owned_by = owner(pod)
    if not owned_by:
        return None
    selected = by_selector({"matchLabels": pod["spec"].get("nodeSelector")})
    free = [node["metadata"]["name"] for node in nodes if _takes_pods(node) and selected(node)]
    stay = [each for each in pods if not terminates(each)]
    held = [each["spec"].get("nodeName") for each in stay]
    siblings = [each["spec"].get("nodeName") for each in stay if owner(each) == owned_by]

    def load(node: str) -> tuple[int, int]:
        return siblings.count(node), held.count(node)

    return min(free, key=load, default=None)


def _takes_pods(node: Held) -> bool:
    return (
        not (node.get("spec") or {}).get("unschedulable")
        and conditions(node).get("Ready") == "True"
    )
