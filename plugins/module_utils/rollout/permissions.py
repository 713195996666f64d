# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The permissions that a run needs, in one list. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Permission:
    """One verb on one resource; without ``namespace`` in the whole cluster."""

    verb: str
    resource: str
    group: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        group = f".{self.group}" if self.group else ""
        where = f" in namespace {self.namespace}" if self.namespace else " in the whole cluster"
        return f"{self.verb} {self.resource}{group}{where}"

    def review(self) -> dict[str, Any]:
        """The SelfSubjectAccessReview that checks it."""
        resource, _slash, subresource = self.resource.partition("/")
        attributes = {"verb": self.verb, "resource": resource, "group": self.group}
        attributes.update(subresource=subresource, namespace=self.namespace)
        return {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {k: v for k, v in attributes.items() if v}},
        }


def needed(namespace: str, lease_namespace: str) -> Iterator[Permission]:
    """All permissions that a run uses; ``namespace`` is the DaemonSet's."""
    everywhere: tuple[tuple[str, str, str], ...] = (
        ("get list patch", "nodes", ""),
        ("list", "pods", ""),
        ("create", "pods/eviction", ""),
        ("list", "poddisruptionbudgets", "policy"),
    )
    inside = (
        ("get delete patch", "pods", "", namespace),
        ("get", "pods/log", "", namespace),
        ("get patch", "daemonsets", "apps", namespace),
        ("list", "controllerrevisions", "apps", namespace),
        ("get create update", "leases", "coordination.k8s.io", lease_namespace),
    )
    for verbs, resource, group, where in (*((*verbs, "") for verbs in everywhere), *inside):
        for verb in verbs.split():
            yield Permission(verb, resource, group, where)
