# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evictions, with a budget and without."""

from __future__ import annotations

from typing import Any

from kubernetes import client as official

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.evictions import (
    budget,
    evict,
    policy_version,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.kubelet import Kubelet
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.outcomes import (
    eventually,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.workloads import (
    bare_pod,
    images,
    pods_at,
)


def test_evictions_are_counted_against_the_budget(
    raw: Client, kubelet: Kubelet, namespace: str, controllers: None
) -> None:
    for name in ("a", "b", "c"):
        raw.do("POST", f"/api/v1/namespaces/{namespace}/pods", bare_pod(name, kubelet.nodes[0]))
    eventually(lambda: len(images(raw, namespace)) == 3)
    path = budget(raw, namespace, 2)
    eventually(lambda: raw.do("GET", path).get("status", {}).get("disruptionsAllowed") == 1)
    kubelet.paused.set()
    assert evict(raw, namespace, "a", deleteOptions={"dryRun": ["All"]}).code == 201
    assert len(images(raw, namespace)) == 3
    assert evict(raw, namespace, "a").code == 201
    refused = evict(raw, namespace, "b")
    assert refused.code == 429
    assert refused.body["reason"] == "TooManyRequests"
    assert "violate the pod's disruption budget" in refused.body["message"]
    assert [each["reason"] for each in refused.body["details"]["causes"]] == ["DisruptionBudget"]
    kubelet.paused.clear()
    raw.do("POST", f"/api/v1/namespaces/{namespace}/pods", bare_pod("d", kubelet.nodes[1]))
    eventually(lambda: evict(raw, namespace, "b").code == 201)


def test_an_eviction_in_the_version_found_or_in_none(
    raw: Client, core: Any, kubelet: Kubelet, namespace: str
) -> None:
    for name in ("a", "b", "c"):
        raw.do("POST", f"/api/v1/namespaces/{namespace}/pods", bare_pod(name, kubelet.nodes[0]))
    version = {"apiVersion": f"policy/{policy_version(raw)}", "kind": "Eviction"}
    assert evict(raw, namespace, "a", **version).code == 201
    assert evict(raw, namespace, "b").code == 201
    body = official.V1Eviction(metadata=official.V1ObjectMeta(name="c", namespace=namespace))
    core.create_namespaced_pod_eviction("c", namespace, body)
    assert evict(raw, namespace, "none").code == 404
    assert evict(raw, namespace, "c", apiVersion="policy/v9", kind="Eviction").code == 400
    eventually(lambda: not pods_at(raw, namespace))


def test_an_eviction_with_the_pods_own_grace(raw: Client, kubelet: Kubelet, namespace: str) -> None:
    raw.do("POST", f"/api/v1/namespaces/{namespace}/pods", bare_pod("a", kubelet.nodes[0]))
    eventually(lambda: len(images(raw, namespace)) == 1)
    kubelet.paused.set()
    assert evict(raw, namespace, "a", deleteOptions={"gracePeriodSeconds": 3}).code == 201
    (pod,) = pods_at(raw, namespace)
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 3
