# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ReplicaSets: the number of their pods, the nodes that these run on, and their replacement."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.evictions import (
    budget,
    evict,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.kubelet import Kubelet
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.outcomes import (
    eventually,
    status_of,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.workloads import (
    images,
    pods_at,
    replica_set,
)


def has_pods(raw: Client, namespace: str, count: int) -> bool:
    return len(pods_at(raw, namespace)) == count


@pytest.mark.usefixtures("controllers")
class TestReplicaSet:
    def test_pods_are_spread_over_the_nodes(
        self, apps: Any, raw: Client, kubelet: Kubelet, namespace: str
    ) -> None:
        made = apps.create_namespaced_replica_set(namespace, replica_set(namespace, 3))
        eventually(lambda: images(raw, namespace) == ["app:1"] * 3)
        pods = pods_at(raw, namespace)
        assert sorted(pod["spec"]["nodeName"] for pod in pods) == sorted(kubelet.nodes)
        for pod in pods:
            assert pod["metadata"]["name"].startswith("web-")
            (owner,) = pod["metadata"]["ownerReferences"]
            assert (owner["kind"], owner["name"]) == ("ReplicaSet", "web")
            assert (owner["uid"], owner["controller"]) == (made.metadata.uid, True)

        def counted() -> bool:
            status = apps.read_namespaced_replica_set_status("web", namespace).status
            counts = [status.replicas, status.fully_labeled_replicas]
            counts += [status.ready_replicas, status.available_replicas]
            return counts == [3] * 4 and status.observed_generation == 1

        eventually(counted)

    def test_a_terminating_pod_is_replaced_at_once(
        self, core: Any, apps: Any, raw: Client, kubelet: Kubelet, namespace: str
    ) -> None:
        apps.create_namespaced_replica_set(namespace, replica_set(namespace, 2))
        eventually(lambda: len(images(raw, namespace)) == 2)
        kubelet.paused.set()
        gone = pods_at(raw, namespace)[0]["metadata"]["name"]
        core.delete_namespaced_pod(gone, namespace)
        eventually(lambda: len(pods_at(raw, namespace)) == 3)
        kubelet.paused.clear()
        eventually(lambda: len(pods_at(raw, namespace)) == len(images(raw, namespace)) == 2)
        assert gone not in [pod["metadata"]["name"] for pod in pods_at(raw, namespace)]

    def test_its_pods_stay_away_from_a_cordoned_node(
        self, core: Any, apps: Any, raw: Client, kubelet: Kubelet, namespace: str
    ) -> None:
        for name in kubelet.nodes[1:]:
            core.patch_node(name, {"spec": {"unschedulable": True}})
        apps.create_namespaced_replica_set(namespace, replica_set(namespace, 2))
        eventually(lambda: len(images(raw, namespace)) == 2)
        assert {pod["spec"]["nodeName"] for pod in pods_at(raw, namespace)} == {kubelet.nodes[0]}

    def test_an_evicted_pod_comes_back_elsewhere_within_the_budget(
        self, core: Any, apps: Any, raw: Client, kubelet: Kubelet, namespace: str
    ) -> None:
        budget(raw, namespace, 2)
        apps.create_namespaced_replica_set(namespace, replica_set(namespace, 3))
        eventually(lambda: len(images(raw, namespace)) == 3)
        drained = pods_at(raw, namespace)[0]
        core.patch_node(drained["spec"]["nodeName"], {"spec": {"unschedulable": True}})
        name = drained["metadata"]["name"]
        eventually(lambda: evict(raw, namespace, name).code == 201)
        eventually(lambda: name not in [p["metadata"]["name"] for p in pods_at(raw, namespace)])
        eventually(lambda: len(images(raw, namespace)) == 3)
        left = {pod["spec"]["nodeName"] for pod in pods_at(raw, namespace)}
        assert drained["spec"]["nodeName"] not in left

    def test_it_is_scaled(self, apps: Any, raw: Client, kubelet: Kubelet, namespace: str) -> None:
        apps.create_namespaced_replica_set(namespace, replica_set(namespace, 1))
        for replicas in (3, 1, 0):
            change = {"spec": {"replicas": replicas}}
            apps.patch_namespaced_replica_set("web", namespace, change)
            eventually(partial(has_pods, raw, namespace, replicas))

    def test_its_pods_are_deleted_with_it(
        self, apps: Any, raw: Client, kubelet: Kubelet, namespace: str
    ) -> None:
        apps.create_namespaced_replica_set(namespace, replica_set(namespace, 2))
        eventually(lambda: len(images(raw, namespace)) == 2)
        apps.delete_namespaced_replica_set("web", namespace)
        eventually(lambda: not pods_at(raw, namespace))

    def test_a_bad_one_is_refused(self, apps: Any, namespace: str) -> None:
        odd = replica_set(namespace, 1)
        odd["spec"]["selector"] = {"matchLabels": {"other": "one"}}
        assert status_of(lambda: apps.create_namespaced_replica_set(namespace, odd)) == 422
