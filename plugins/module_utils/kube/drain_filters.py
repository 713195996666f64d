# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which pods a drain evicts, which it keeps, and which it evicts only on request. Pure.

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
class Leave:
    """What the caller accepts to lose."""

    #: Pods that no controller recreates.
    force: bool = False
    #: Data in emptyDir volumes, which is deleted with the pod.
    delete_emptydir_data: bool = False


@dataclass
class Choice:
    """The pods of a node; ``why`` by namespace/name."""

    evict: list[Pod] = field(default_factory=list)
    skip: dict[str, str] = field(default_factory=dict)
    refuse: dict[str, str] = field(default_factory=dict)


def choose(pods: Iterable[Pod], leave: Leave) -> Choice:
    choice = Choice()
    for pod in sorted(pods, key=name_of):
        name = name_of(pod)
        if why := _stays(pod):
            choice.skip[name] = why
        elif why := _needs(pod, leave):
            choice.refuse[name] = why
        else:
            choice.evict.append(pod)
    return choice


def _stays(pod: Pod) -> str | None:
    if is_mirror(pod):
        return "a static pod of the kubelet"
    owner = controller_of(pod)
    goes = is_finished(pod) and terminating_since(pod) is None
    if owner and owner["kind"] == "DaemonSet" and not goes:
        return f"of the DaemonSet {owner['name']}"
    return None


def _needs(pod: Pod, leave: Leave) -> str | None:
    """The options that the caller has to set before the pod is evicted."""
    if is_finished(pod):
        return None
    needs = []
    if controller_of(pod) is None and not leave.force:
        needs.append("no controller recreates it: set force")
    if has_local_data(pod) and not leave.delete_emptydir_data:
        needs.append("its emptyDir data would be lost: set delete_emptydir_data")
    return "; ".join(needs) or None
