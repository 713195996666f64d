# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kinds that a CustomResourceDefinition defines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kubernetes import client as official

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import (
    conditions,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.outcomes import (
    eventually,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.workloads import (
    Object,
)


def test_a_custom_kind(raw: Client, http: official.ApiClient) -> None:
    path = "/apis/crd.projectcalico.org/v1/felixconfigurations"
    assert raw.ask("GET", path).code == 404
    with custom_kind(raw, "crd.projectcalico.org", "FelixConfiguration"):
        made: Object = {"apiVersion": "crd.projectcalico.org/v1", "kind": "FelixConfiguration"}
        made |= {"metadata": {"name": "default"}, "spec": {"bpfEnabled": True}}
        eventually(lambda: raw.ask("POST", path, made).code in (201, 409))
        change = {"spec": {"bpfAttachType": "TC"}}
        assert raw.ask("PATCH", f"{path}/default", change, patch="strategic-merge").code == 415
        held = raw.do("PATCH", f"{path}/default", change)
        assert held["spec"] == {"bpfEnabled": True, "bpfAttachType": "TC"}
        assert held["metadata"]["generation"] == 2
        unversioned = {**made, "metadata": {"name": "default"}}
        assert raw.ask("PUT", f"{path}/default", unversioned).code == 422
        custom: Any = official.CustomObjectsApi(http)
        listed = custom.list_cluster_custom_object(
            "crd.projectcalico.org", "v1", "felixconfigurations"
        )
        assert [each["kind"] for each in listed["items"]] == ["FelixConfiguration"]


def test_the_status_of_a_custom_kind(raw: Client) -> None:
    path = "/apis/operator.tigera.io/v1/tigerastatuses"
    with custom_kind(raw, "operator.tigera.io", "TigeraStatus", plural="tigerastatuses"):
        made: Object = {"apiVersion": "operator.tigera.io/v1", "kind": "TigeraStatus"}
        available = {"conditions": [{"type": "Available", "status": "True"}]}
        made |= {"metadata": {"name": "calico"}, "spec": {}, "status": available}
        eventually(lambda: raw.ask("POST", path, made).code in (201, 409))
        assert "status" not in raw.do("GET", f"{path}/calico")
        held = raw.do("PATCH", f"{path}/calico/status", {"status": available})
        assert conditions(held) == {"Available": "True"}
        assert held["metadata"]["generation"] == 1


@contextmanager
def custom_kind(raw: Client, group: str, kind: str, plural: str = "") -> Iterator[None]:
    """A CustomResourceDefinition, established; its objects go with it."""
    plural = plural or f"{kind.lower()}s"
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    with_status: Object = {"subresources": {"status": {}}} if kind != "FelixConfiguration" else {}
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, **with_status}
    body = {
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "scope": "Cluster",
            "versions": [{**version, "schema": {"openAPIV3Schema": schema}}],
        },
    }
    raw.do("POST", path, body)
    name = f"{path}/{plural}.{group}"
    eventually(lambda: conditions(raw.do("GET", name)).get("Established") == "True")
    try:
        yield
    finally:
        raw.do("DELETE", name)
        eventually(lambda: raw.ask("GET", name).code == 404)
