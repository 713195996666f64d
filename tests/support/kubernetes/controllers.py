# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The DaemonSet, ReplicaSet and disruption controllers, and the garbage collector.

Each pass reads all objects again and is one step of the store: the same objects give the same
passes. Simpler than the real ones: a DaemonSet's nodes are chosen by ``nodeSelector`` alone, and
budgets that need the scale of a pod's owner (percentages, ``maxUnavailable``) are counted over the
existing pods.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.cluster import (
    Cluster,
    Target,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import (
    finished,
    meant_for,
    owner,
    ready,
    terminates,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.problems import Problem
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.resources import (
    BUDGETS,
    DAEMON_SETS,
    NODES,
    PODS,
    REPLICA_SETS,
    REVISIONS,
    Resource,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.selectors import by_selector
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.store import Object

_HASH = "controller-revision-hash"
_GENERATION = "deprecated.daemonset.template.generation"
#: The tolerations that the real controller adds to every pod of a DaemonSet.
_TOLERATED = (
    ("not-ready", "NoExecute"),
    ("unreachable", "NoExecute"),
    ("disk-pressure", "NoSchedule"),
    ("memory-pressure", "NoSchedule"),
    ("pid-pressure", "NoSchedule"),
    ("unschedulable", "NoSchedule"),
)


class Controllers:
    """Runs in its own thread after each change of the store, until the store is closed."""

    def __init__(self, cluster: Cluster, replace_terminal: bool = True) -> None:
        self._cluster = cluster
        self._replace_terminal = replace_terminal
        self._thread = threading.Thread(target=self._work, name="controllers", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the end of the thread after the store was closed."""
        self._thread.join()

    def _work(self) -> None:
        store, seen = self._cluster.store, 0
        while not store.closed:
            with store.lock:
                store.wait(seen)
                seen = store.revision
                if not store.closed:
                    reconcile(self._cluster, self._replace_terminal)


def reconcile(cluster: Cluster, replace_terminal: bool = True) -> None:
    """One pass over all controlled objects.

    ``replace_terminal``: a DaemonSet's pod that is deleted and in a terminal phase no longer holds
    its node (getNodesToDaemonPods in pkg/controller/daemon of current releases); otherwise any pod
    does until it has left the API.
    """
    for key, held in cluster.store.items(DAEMON_SETS.collection):
        target = Target(DAEMON_SETS, key.namespace, key.name)
        # An object whose pods are refused, for example for their template, must not block others.
        with suppress(Problem):
            _DaemonSet(cluster, target, held, replace_terminal).reconcile()
    for key, held in cluster.store.items(REPLICA_SETS.collection):
        with suppress(Problem):
            _ReplicaSet(cluster, Target(REPLICA_SETS, key.namespace, key.name), held).reconcile()
    for key, held in cluster.store.items(BUDGETS.collection):
        _count_budget(cluster, Target(BUDGETS, key.namespace, key.name), held)
    _collect_garbage(cluster)


class _Owner:
    """An owner of pods in one pass."""

    def __init__(self, cluster: Cluster, target: Target, held: Object) -> None:
        self._cluster, self._target, self._held = cluster, target, held
        self._uid = held["metadata"]["uid"]

    def _adopt(self, *resources: Resource) -> None:
        """Adopt the selected objects that have no owner."""
        match = by_selector(self._held["spec"]["selector"])
        mine = {"ownerReferences": [self._reference()]}
        for resource in resources:
            for key, held in self._cluster.store.items(resource.collection, self._target.namespace):
                if match(held) and not owner(held) and not terminates(held):
                    target = Target(resource, key.namespace, key.name)
                    self._cluster.update(target, lambda each: each["metadata"].update(mine))

    def _own(self) -> list[Object]:
        """Its pods, the oldest first."""
        held = self._cluster.store.items(PODS.collection, self._target.namespace)
        pods = [pod for _key, pod in held if owner(pod) == self._uid]
        return sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def _new_pod(self) -> Object:
        pod: Object = copy.deepcopy(self._held["spec"]["template"])
        metadata = pod.setdefault("metadata", {})
        metadata["generateName"] = f"{self._target.name}-"
        metadata["ownerReferences"] = [self._reference()]
        return pod

    def _delete(self, pod: Object) -> None:
        if not terminates(pod):
            metadata = pod["metadata"]
            self._cluster.delete(Target(PODS, metadata["namespace"], metadata["name"]), {})

    def _reference(self) -> Object:
        me = {"apiVersion": "apps/v1", "kind": self._target.resource.kind, "uid": self._uid}
        return {**me, "name": self._target.name, "controller": True, "blockOwnerDeletion": True}

    def _report(self, status: Object, counts: Mapping[str, int]) -> None:
        """The counts of a status, without those of 0 that the real API omits."""
        status |= {name: count for name, count in counts.items() if count}
        status["observedGeneration"] = self._held["metadata"]["generation"]
        self._cluster.update(self._target, lambda held: held.update(status=status))


class _ReplicaSet(_Owner):
    """So many pods, on any nodes. A terminating pod does not count, and is replaced at once."""

    def reconcile(self) -> None:
        self._adopt(PODS)
        wanted = self._held["spec"]["replicas"]
        up = self._active()
        # Pods that are not ready are deleted first.
        for pod in sorted(up, key=ready)[: max(0, len(up) - wanted)]:
            self._delete(pod)
        for _missing in range(wanted - len(up)):
            self._cluster.create(Target(PODS, self._target.namespace), self._new_pod())
        self._count()

    def _active(self) -> list[Object]:
        return [pod for pod in self._own() if not terminates(pod) and not finished(pod)]

    def _count(self) -> None:
        up = self._active()
        labels = self._held["spec"]["template"]["metadata"]["labels"]
        labelled = by_selector({"matchLabels": labels})
        available = sum(ready(pod) for pod in up)
        counts = {"readyReplicas": available, "availableReplicas": available}
        counts["fullyLabeledReplicas"] = sum(labelled(pod) for pod in up)
        self._report({"replicas": len(up)}, counts)


class _DaemonSet(_Owner):
    """A pod on each node."""

    def __init__(
        self, cluster: Cluster, target: Target, held: Object, replace_terminal: bool
    ) -> None:
        super().__init__(cluster, target, held)
        self._replace_terminal = replace_terminal
        self._hash = _hash(held["spec"]["template"])
        self._nodes = [
            n["metadata"]["name"]
            for _k, n in cluster.store.items(NODES.collection)
            if _chosen(held, n)
        ]

    def reconcile(self) -> None:
        self._adopt(PODS, REVISIONS)
        self._record_revision()
        self._place()
        if self._held["spec"]["updateStrategy"]["type"] == "RollingUpdate":
            self._roll()
        self._count()

    def _pods(self) -> dict[str, list[Object]]:
        """The pods that occupy a node, by node, the oldest first."""
        placed: dict[str, list[Object]] = {node: [] for node in self._nodes}
        for pod in self._own():
            if not (self._replace_terminal and terminates(pod) and finished(pod)):
                placed.setdefault(_node(pod), []).append(pod)
        return placed

    def _place(self) -> None:
        """One pod on each node."""
        for node, pods in sorted(self._pods().items()):
            failed = [pod for pod in pods if pod["status"]["phase"] == "Failed"]
            wanted = 1 if node in self._nodes else 0
            for pod in failed or pods[wanted:]:
                self._delete(pod)
            if wanted and not pods:
                self._create(node)

    def _roll(self) -> None:
        pods = [pods[0] for pods in self._pods().values() if pods]
        old = [pod for pod in pods if not self._is_current(pod) and not terminates(pod)]
        down = len(self._nodes) - sum(ready(pod) for pod in pods)
        limit = self._held["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"]
        allowed = max(0, _share(limit, len(self._nodes)) - down)
        up = [pod for pod in old if ready(pod)]
        for pod in [*(pod for pod in old if not ready(pod)), *up[:allowed]]:
            self._delete(pod)

    def _is_current(self, pod: Object) -> bool:
        return bool(pod["metadata"]["labels"].get(_HASH) == self._hash)

    def _create(self, node: str) -> None:
        pod = self._new_pod()
        pod["metadata"].setdefault("labels", {})[_HASH] = self._hash
        spec = pod["spec"]
        spec["tolerations"] = [*(spec.get("tolerations") or ()), *_tolerations()]
        spec.setdefault("affinity", {})["nodeAffinity"] = _affinity(node)
        self._cluster.create(Target(PODS, self._target.namespace), pod)

    def _record_revision(self) -> None:
        """Make the current template the latest revision, also if an older revision has it."""
        held = self._cluster.store.items(REVISIONS.collection, self._target.namespace)
        ours = [revision for _key, revision in held if owner(revision) == self._uid]
        latest = max((revision["revision"] for revision in ours), default=0)
        name = f"{self._target.name}-{self._hash}"
        present = next((r for r in ours if r["metadata"]["name"] == name), None)
        target = Target(REVISIONS, self._target.namespace, name)
        if present is None:
            self._cluster.create(target, self._revision(name, latest + 1))
        elif present["revision"] != latest:
            self._cluster.update(target, lambda r: r.update(revision=latest + 1))

    def _revision(self, name: str, number: int) -> Object:
        template = self._held["spec"]["template"]
        labels = (template.get("metadata") or {}).get("labels") or {}
        return {
            "metadata": {
                "name": name,
                "labels": {**labels, _HASH: self._hash},
                "annotations": {_GENERATION: str(self._held["metadata"]["generation"])},
                "ownerReferences": [self._reference()],
            },
            "data": {"spec": {"template": {**template, "$patch": "replace"}}},
            "revision": number,
        }

    def _count(self) -> None:
        placed = self._pods()
        here = [placed[node][0] for node in self._nodes if placed[node]]
        available = sum(ready(pod) for pod in here)
        wanted = len(self._nodes)
        status: dict[str, Any] = {
            "currentNumberScheduled": len(here),
            "desiredNumberScheduled": wanted,
            "numberMisscheduled": sum(1 for node in placed if node not in self._nodes),
            "numberReady": available,
        }
        counts = {"numberAvailable": available, "numberUnavailable": wanted - available}
        counts["updatedNumberScheduled"] = sum(self._is_current(pod) for pod in here)
        self._report(status, counts)


def _count_budget(cluster: Cluster, target: Target, budget: Object) -> None:
    match = by_selector(budget["spec"].get("selector"))
    held = cluster.store.items(PODS.collection, target.namespace)
    pods = [pod for _key, pod in held if match(pod) and not finished(pod)]
    healthy = sum(ready(pod) for pod in pods)
    if "maxUnavailable" in budget["spec"]:
        desired = max(0, len(pods) - _share(budget["spec"]["maxUnavailable"], len(pods)))
    else:
        desired = _share(budget["spec"].get("minAvailable", 1), len(pods))
    status = {
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "disruptionsAllowed": max(0, healthy - desired) if pods else 0,
        "expectedPods": len(pods),
        "observedGeneration": budget["metadata"]["generation"],
    }
    cluster.update(target, lambda held: held.update(status=status))


def _collect_garbage(cluster: Cluster) -> None:
    """Delete objects whose owner is gone."""
    everything = cluster.store.everything()
    alive = {held["metadata"]["uid"] for _key, held in everything}
    for key, held in everything:
        references = held["metadata"].get("ownerReferences")
        if references and not terminates(held) and not any(r["uid"] in alive for r in references):
            resource = cluster.resources.stored_in(key.collection)
            cluster.delete(Target(resource, key.namespace, key.name), {})


def _hash(template: Object) -> str:
    digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()
    return digest[:10]


def _chosen(daemon_set: Object, node: Object) -> bool:
    wanted = daemon_set["spec"]["template"]["spec"].get("nodeSelector")
    return by_selector({"matchLabels": wanted})(node)


def _node(pod: Object) -> str:
    """The node of a DaemonSet's pod, by its binding or its affinity."""
    return str(pod["spec"].get("nodeName") or meant_for(pod))


def _affinity(node: str) -> Object:
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    return {"requiredDuringSchedulingIgnoredDuringExecution": terms}


def _tolerations() -> Iterable[Object]:
    for name, effect in _TOLERATED:
        yield {"key": f"node.kubernetes.io/{name}", "operator": "Exists", "effect": effect}


def _share(limit: int | str, whole: int) -> int:
    """A number, or a percentage of the whole rounded up."""
    if isinstance(limit, str) and limit.endswith("%"):
        return math.ceil(whole * int(limit[:-1]) / 100)
    return int(limit)
