# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that a run could change, to be held against the same taken later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.lab.rollout import LEASE, Rollout
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Filter

_KINDS = (
    "/api/v1/nodes",
    "/api/v1/pods",
    "/apis/apps/v1/daemonsets",
    "/apis/apps/v1/replicasets",
    "/apis/apps/v1/controllerrevisions",
)


@dataclass(frozen=True)
class Snapshot:
    """Of a lab that has no heartbeats."""

    #: By kind, namespace and name.
    objects: dict[str, dict[str, Any]]
    #: Who holds the Lease, by all that it says; nothing where it is not there.
    lease: dict[str, Any]
    #: At each hook, by node and interface.
    filters: dict[tuple[str, str], dict[str, list[Filter]]]

    @property
    def without_lease(self) -> Snapshot:
        """For a run that only worked under it."""
        return Snapshot(self.objects, {}, self.filters)


def snapshot(rollout: Rollout) -> Snapshot:
    client = rollout.cluster.client
    policy = client.do("GET", "/apis/policy")["preferredVersion"]["groupVersion"]
    lease = client.ask("GET", LEASE)
    return Snapshot(
        {
            f"{kind} {held['metadata'].get('namespace', '')}/{held['metadata']['name']}": held
            for kind in (*_KINDS, f"/apis/{policy}/poddisruptionbudgets")
            for held in client.do("GET", kind)["items"]
        },
        lease.body if lease.code == 200 else {},
        {
            (name, interface): node.filters(interface)
            for name, node in rollout.cluster.nodes.items()
            for interface in node.interfaces()
        },
    )
