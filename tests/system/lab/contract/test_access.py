# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Permissions, tokens, discovery, health and version."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes import client as official
from kubernetes import dynamic
from kubernetes.dynamic.exceptions import ResourceNotFoundError

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.api import Api
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.evictions import (
    policy_version,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.kubelet import Kubelet
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.workloads import (
    Object,
    daemon_set,
)


def test_a_user_without_rights(api: Api, raw: Client, namespace: str) -> None:
    nobody = Client(api, user="nobody")
    answer = nobody.ask("GET", f"/api/v1/namespaces/{namespace}/pods")
    assert (answer.code, answer.body["reason"]) == (403, "Forbidden")
    assert nobody.ask("PATCH", "/api/v1/nodes/none", {}).code == 403
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    for resource, part in (("leases", ""), ("pods", "eviction")):
        asked: Object = {"namespace": namespace, "verb": "create", "resource": resource}
        asked |= {"group": "coordination.k8s.io"} if resource == "leases" else {}
        asked |= {"subresource": part} if part else {}
        kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
        body = {**kind, "spec": {"resourceAttributes": asked}}
        answers = [client.ask("POST", path, body) for client in (raw, nobody)]
        assert answers[0].code == 201
        assert answers[0].body["status"]["allowed"] is True
        # A user without rights may still review them, unless the defaults are removed too.
        assert answers[1].code == 403 or answers[1].body["status"]["allowed"] is False


def test_without_a_right_token(api: Api) -> None:
    stranger = Client(Api(api.url, "wrong", api.ca_file, api.kubeconfig, api.has_controllers))
    assert stranger.ask("GET", "/api/v1/nodes").code == 401


def test_discovery_is_enough_for_a_dynamic_client(
    http: official.ApiClient, raw: Client, kubelet: Kubelet, namespace: str
) -> None:
    make: Any = dynamic.DynamicClient
    found = make(http)
    daemon_sets = found.resources.get(api_version="apps/v1", kind="DaemonSet")
    daemon_sets.create(body=daemon_set(namespace), namespace=namespace)
    (held,) = daemon_sets.get(namespace=namespace).items
    assert held.metadata.name == "calico-node"
    nodes = found.resources.get(api_version="v1", kind="Node")
    listed = nodes.get(label_selector=f"test={namespace}").items
    assert [node.metadata.name for node in listed] == list(kubelet.nodes)
    budgets = found.resources.get(kind="PodDisruptionBudget", group="policy")
    assert budgets.group_version == f"policy/{policy_version(raw)}"
    with pytest.raises(ResourceNotFoundError):
        found.resources.get(api_version="no.such/v1", kind="Thing")


def test_health_and_version(raw: Client) -> None:
    for path in ("/readyz", "/livez", "/healthz"):
        assert raw.ask("GET", path).body == "ok"
    assert raw.do("GET", "/version")["gitVersion"].startswith("v1.")
