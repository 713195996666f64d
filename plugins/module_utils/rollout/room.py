# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the pods evicted from a batch of nodes can start on the other nodes. Pure.

A pod that does not start elsewhere counts as disrupted: its budget allows no further eviction, and
the drain times out. Taints and tolerations are checked; affinity and resources are not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from ..kube.pdb import Covered, Obstacle, Taint, obstacles_of
from .cluster import Cluster, Node


@dataclass(frozen=True)
class TightBatch:
    """Nodes that leave no other node for their pods, and the budgets that block their drains."""

    nodes: tuple[str, ...]
    obstacles: tuple[Obstacle, ...]
    #: Nodes that an earlier run of this collection left cordoned.
    cordoned: tuple[Node, ...]


def batches(serial: Sequence[object], names: Sequence[str]) -> list[tuple[str, ...]]:
    """Batches as in Ansible's ``serial``: numbers or percentages, of which the last repeats."""
    sizes = [_size(str(each), len(names)) for each in serial] or [1]
    made: list[tuple[str, ...]] = []
    at = 0
    while at < len(names):
        size = sizes[min(len(made), len(sizes) - 1)]
        end = at + size if size > 0 else len(names)
        made.append(tuple(names[at:end]))
        at = end
    return made


def _size(text: str, total: int) -> int:
    if text.endswith("%"):
        return int(float(text[:-1]) / 100 * total) or 1
    return int(text)


def tight_batch(
    planned: Sequence[Sequence[str]], done: Collection[str], cluster: Cluster
) -> TightBatch | None:
    """The first batch whose drains cannot complete; nodes that are ``done`` are not drained."""
    schedulable = [node for node in cluster.nodes if node.ready and not node.unschedulable]
    ours = [node for node in cluster.nodes if node.unschedulable and node.cordoned_by is not None]
    uncordoned: set[str] = set()  # by earlier batches
    for batch in planned:
        drained = {name: None for name in batch if name not in done}
        released = (node for node in ours if node.ready and node.name in uncordoned)
        others = (node for node in chain(schedulable, released) if node.name not in drained)
        pods = [pod for name in drained for pod in cluster.covered.get(name, ())]
        obstacles = obstacles_of(_stuck(pods, others) if pods else [])
        if waiting := tuple(each for each in obstacles if not each.never):
            left = tuple(node for node in ours if node.name not in uncordoned)
            return TightBatch(tuple(drained), waiting, left)
        uncordoned.update(drained)
    return None


def _stuck(pods: Sequence[Covered], others: Iterator[Node]) -> list[Covered]:
    """The pods that none of the ``others`` takes; reading them stops at the first untainted one."""
    tainted = []
    for node in others:
        if not node.taints:
            return []
        tainted.append(node)
    return [pod for pod in pods if not any(_takes(node, pod) for node in tainted)]


def _takes(node: Node, pod: Covered) -> bool:
    """Whether the pod tolerates all taints of the node."""
    return all(_tolerates(pod, taint) for taint in node.taints)


def _tolerates(pod: Covered, taint: Taint) -> bool:
    key, value, effect = taint
    return any(
        each.effect in ("", effect)
        and (each.key in ("", key) if each.exists else (each.key, each.value) == (key, value))
        for each in pod.tolerations
    )
