# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clusters as the preflight reads them, and the parts of its result that tests compare."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.annotations import (
    FORMER_REVISION,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.cluster import (
    Cluster,
    DaemonSet,
    Node,
    NodeState,
    Pod,
    Revision,
    RolloutSpec,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.preflight import (
    PreflightResult,
    Problem,
)

OLD, NEW = "v3.28.1", "v3.29.5"


def template(version: str, **env: str) -> dict[str, Any]:
    listed = [{"name": name, "value": value} for name, value in env.items()]
    node = {"name": "calico-node", "image": f"calico/node:{version}", "env": listed}
    cni = {"name": "install-cni", "image": f"calico/cni:{version}"}
    return {"spec": {"initContainers": [cni], "containers": [node]}}


def bpf(version: str = OLD, **env: str) -> dict[str, Any]:
    return template(version, FELIX_BPFENABLED="true", **env)


def revision(number: int, version: str, **env: str) -> Revision:
    return Revision(
        name=f"calico-node-{version}",
        number=number,
        hash=f"hash-{version}",
        template=bpf(version, **env),
    )


def pod(node: str, version: str = OLD, **changes: Any) -> Pod:
    made = Pod(
        name=f"pod-{node}",
        node=node,
        image=f"calico/node:{version}",
        revision=f"hash-{version}",
        ready=True,
    )
    return replace(made, **changes)


def cluster(*nodes: str, version: str = OLD, **changes: Any) -> Cluster:
    """A healthy cluster with kernel 5.15, all nodes at ``version``."""
    made = Cluster(
        daemonset=DaemonSet(namespace="kube-system", name="calico-node", template=bpf(version)),
        revisions=(revision(1, version),),
        pods=tuple(pod(name, version) for name in nodes),
        nodes=tuple(Node(name, kernel="5.15.0-105-generic") for name in nodes),
        encapsulation="none",
    )
    return replace(made, **changes)


def upgraded(*done: str, former: str = OLD, version: str = NEW) -> Cluster:
    """Nodes a, b and c: those ``done``, and the template, are at the new version."""
    annotations = {FORMER_REVISION: f"calico-node-{former}"}
    nodes = [
        Node(n, verified=f"hash-{version}", upgraded_at=f"2026-11-23T22:0{i}:00Z")
        for i, n in enumerate(done)
    ]
    nodes += [Node(n) for n in "abc" if n not in done]
    return Cluster(
        daemonset=DaemonSet(
            namespace="kube-system",
            name="calico-node",
            template=bpf(version),
            annotations=annotations,
        ),
        revisions=(revision(1, former), revision(2, version)),
        pods=tuple(pod(n, version if n in done else former) for n in "abc"),
        nodes=tuple(replace(node, kernel="5.15.0") for node in nodes),
        encapsulation="none",
    )


SPEC = RolloutSpec(version=NEW)


def blockers(result: PreflightResult) -> list[Problem]:
    return [problem for problem in result.problems if problem.blocks]


def warnings(result: PreflightResult) -> list[Problem]:
    return [problem for problem in result.problems if not problem.blocks]


def blocked(result: PreflightResult) -> list[tuple[str, str | None]]:
    return [(each.code, each.node or each.advisory) for each in blockers(result)]


def warned(result: PreflightResult) -> list[tuple[str, str | None]]:
    return [(each.code, each.node or each.advisory) for each in warnings(result)]


def states(result: PreflightResult) -> dict[str, NodeState]:
    return {each.node.name: each.state for each in result.nodes}
