# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of a large cluster, and how reading and judging it grow."""

from __future__ import annotations

import gc
import json
import time
import tracemalloc
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import ApiError
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.api import Kube
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.cluster import (
    Cluster,
    RolloutSpec,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.preflight import judge
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.read_cluster import (
    read_cluster,
)

Object = dict[str, Any]
SPEC = RolloutSpec(version="v3.29.5")
#: Five or ten times the work may take this many times as long; a quadratic part takes far more.
MOST_TIMES = 25
IMAGE = {"name": "calico-node", "image": "calico/node:v3.28.1"}
TEMPLATE = {
    "spec": {"containers": [{**IMAGE, "env": [{"name": "FELIX_BPFENABLED", "value": "1"}]}]}
}
READY = {"conditions": [{"type": "Ready", "status": "True"}], "phase": "Running"}


def pod(name: str, node: str, app: str, owner: str = "ReplicaSet", uid: str = "other") -> Object:
    reference = {"kind": owner, "name": "one", "uid": uid, "controller": True}
    metadata = {
        "name": name,
        "namespace": "kube-system" if owner == "DaemonSet" else "shop",
        "labels": {"app": app, "controller-revision-hash": "one"},
        "ownerReferences": [reference],
        "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {"f:phase": {}}}}] * 10,
    }
    return {
        "metadata": metadata,
        "spec": {"nodeName": node, "containers": [IMAGE]},
        "status": READY,
    }


class Server:
    """A cluster of so many nodes, each with a calico-node, one pod with a budget, and others.

    Objects are made as they are asked for: it holds none of them.
    """

    def __init__(self, nodes: int, others: int = 0) -> None:
        self.nodes = nodes
        self.others = others

    def kube(self) -> Kube:
        return Kube(self.send, patience=0)

    def send(
        self, method: str, path: str, query: Mapping[str, Any], content_type: str, body: Any
    ) -> bytes:
        if path.endswith("daemonsets/calico-node"):
            metadata = {"namespace": "kube-system", "name": "calico-node", "uid": "ours"}
            return json.dumps({"metadata": metadata, "spec": {"template": TEMPLATE}}).encode()
        if path == "/apis/policy":
            return b'{"versions": [{"version": "v1"}]}'
        lists: dict[str, tuple[int, Callable[[int], Object]]] = {
            "nodes": (self.nodes, self.node),
            "pods": (self.nodes * (2 + self.others), self.pod),
            "poddisruptionbudgets": (1, self.budget),
            "controllerrevisions": (2, self.revision),
        }
        plural = path.rsplit("/", 1)[1]
        if plural not in lists:
            raise ApiError(f"GET {path}", 404, "NotFound", "")
        count, make = lists[plural]
        start = int(query.get("continue") or 0)
        end = min(count, start + query["limit"])
        metadata = {"continue": str(end) if end < count else ""}
        return json.dumps({"metadata": metadata, "items": [*map(make, range(start, end))]}).encode()

    def node(self, number: int) -> Object:
        return {"metadata": {"name": f"node-{number}"}, "status": READY}

    def pod(self, number: int) -> Object:
        node, kind = f"node-{number % self.nodes}", number // self.nodes
        if kind == 0:
            return pod(f"calico-node-{number}", node, "calico-node", "DaemonSet", "ours")
        return pod(f"web-{number}", node, "guarded" if kind == 1 else "free")

    def budget(self, number: int) -> Object:
        selector = {"matchLabels": {"app": "guarded"}}
        metadata = {"name": "guard", "namespace": "shop", "annotations": {"long": "x" * 1000}}
        return {"metadata": metadata, "spec": {"selector": selector, "maxUnavailable": 0}}

    def revision(self, number: int) -> Object:
        uid = ("ours", "other")[number]
        metadata = {"name": f"calico-node-{number}", "ownerReferences": [{"uid": uid}]}
        data = {"spec": {"template": TEMPLATE}}
        return {"metadata": metadata, "revision": number + 1, "data": data}


def read(server: Server) -> Cluster:
    return read_cluster(server.kube(), SPEC)


def test_which_objects_are_kept() -> None:
    seen = read(Server(nodes=3, others=400))
    assert [(p.name, p.node) for p in seen.pods] == [
        (f"calico-node-{n}", f"node-{n}") for n in range(3)
    ]
    assert [revision.name for revision in seen.revisions] == ["calico-node-0"]
    assert set(seen.budgets) == {"node-0", "node-1", "node-2"}
    (text,) = seen.budgets["node-0"]
    assert text.startswith("shop/guard: maxUnavailable 0")


@pytest.mark.parametrize(
    ("owner", "annotations"),
    [("DaemonSet", {}), ("ReplicaSet", {"kubernetes.io/config.mirror": "x"})],
)
def test_budgets_are_ignored_for_pods_that_no_drain_evicts(
    owner: str, annotations: dict[str, str]
) -> None:
    server = Server(nodes=1)
    made = pod("web-1", "node-0", "guarded", owner)
    made["metadata"] |= {"namespace": "shop", "annotations": annotations}
    server.pod = lambda number: made  # type: ignore[method-assign]
    assert read(server).budgets == {}


def test_irrelevant_pods_take_no_memory() -> None:
    """The peak is that of a page, however many pages there are."""
    few, many = (peak(partial(read, Server(nodes=1, others=n))) for n in (500, 3_000))
    assert many < 1.5 * few


def peak(work: Callable[[], object]) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_preflight_takes_linear_time() -> None:
    few, many = (seconds(read(Server(nodes))) for nodes in (150, 1_500))
    assert many / few < MOST_TIMES


def seconds(cluster: Cluster) -> float:
    """CPU time, the least of three runs."""
    times = []
    for _run in range(3):
        start = time.process_time()
        judge(SPEC, cluster)
        times.append(time.process_time() - start)
    return min(times)
