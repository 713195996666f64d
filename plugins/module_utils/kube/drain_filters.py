# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which pods a drain evicts, which it keeps, and which it evicts only with an option. Pure.

The rules are those of ``kubectl drain --ignore-daemonsets`` (k8s.io/kubectl, pkg/drain/filters.go):
a finished pod is always evicted. Unlike kubectl, a drain does not wait for a finished pod of a
DaemonSet that is being deleted: it uses no resources, and the finalizer of a replacement may keep
it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .pods import (
    Pod,
    controller_of,
    has_local_data,
    is_finished,
    is_mirror,
    name_of,
    terminating_since,
)


@dataclass(frozen=True)
class RemovalOptions:
    """Which pods a drain removes although something is lost with them."""

    #: Pods that no controller recreates.
    force: bool = False
    #: Pods with emptyDir volumes, whose data is deleted with the pod.
    delete_emptydir_data: bool = False


@dataclass
class Choice:
    """The pods of a node; ``why`` by namespace/name."""

    evict: list[Pod] = field(default_factory=list)
    skip: dict[str, str] = field(default_factory=dict)
    refuse: dict[str, str] = field(default_factory=dict)


def choose(pods: Iterable[Pod], removal: RemovalOptions) -> Choice:
    """What a drain with these options does with each pod."""
    choice = Choice()
    for pod in sorted(pods, key=name_of):
        name = name_of(pod)
        if why := _keeps(pod):
            choice.skip[name] = why
        elif why := _missing_options(pod, removal):
            choice.refuse[name] = why
        else:
            choice.evict.append(pod)
    return choice


def _keeps(pod: Pod) -> str | None:
    """Why a drain keeps the pod; None if it does not."""
    if is_mirror(pod):
        return "a static pod of the kubelet"
    owner = controller_of(pod)
    removable = is_finished(pod) and terminating_since(pod) is None
    if owner and owner["kind"] == "DaemonSet" and not removable:
        return f"of the DaemonSet {owner['name']}"
    return None


def _missing_options(pod: Pod, removal: RemovalOptions) -> str | None:
    """The options that the pod's eviction requires and that are not set; None if there are none."""
    if is_finished(pod):
        return None
    needs = []
    if controller_of(pod) is None and not removal.force:
        needs.append("no controller recreates it: set force")
    if has_local_data(pod) and not removal.delete_emptydir_data:
        needs.append("its emptyDir data would be lost: set delete_emptydir_data")
    return "; ".join(needs) or None
