# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Permissions: the lab's user may do everything that is not denied, other users nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes import problems
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.cluster import (
    Target,
    timestamp,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.store import Object


class Access:
    """Denies the lab's user what ``denied`` contains: (verb, "pods" or "pods/eviction")."""

    def __init__(self) -> None:
        self.denied: set[tuple[str, str]] = set()

    def allows(self, user: str | None, verb: str, what: str) -> bool:
        return user is None and (verb, what) not in self.denied

    def check(self, user: str | None, verb: str, target: Target) -> None:
        """:raises Problem: 403. ``user`` is the one who is impersonated, None is the lab's own."""
        resource = target.resource
        what = "/".join(filter(None, (resource.plural, target.subresource)))
        if resource.plural == "selfsubjectaccessreviews" or self.allows(user, verb, what):
            return
        where = f'in the namespace "{target.namespace}"' if target.namespace else ""
        raise problems.forbidden(
            f'{resource.collection} "{target.name}" is forbidden: User "{user or "admin"}" cannot'
            f' {verb} resource "{what}" in API group "{resource.group}" '
            f"{where or 'at the cluster scope'}"
        )

    def review(self, user: str | None, body: Mapping[str, Any]) -> Object:
        """Answer a SelfSubjectAccessReview."""
        asked = body["spec"].get("resourceAttributes") or {}
        what = "/".join(filter(None, (asked.get("resource"), asked.get("subresource"))))
        allowed = self.allows(user, asked.get("verb", ""), what)
        metadata = {"creationTimestamp": timestamp()}
        return {
            "kind": "SelfSubjectAccessReview",
            "apiVersion": "authorization.k8s.io/v1",
            "metadata": metadata,
            "spec": body["spec"],
            "status": {"allowed": allowed},
        }
