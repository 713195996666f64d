# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The three kinds of patch, and patches of the status."""

from __future__ import annotations

from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.kubelet import Kubelet
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.workloads import (
    OLD,
    daemon_set,
)


def test_strategic_merge_goes_by_keys(raw: Client, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/daemonsets"
    raw.do("POST", path, daemon_set(namespace))
    env = [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]
    containers = [{"name": "calico-node", "env": env}, {"name": "more", "image": "more:1"}]
    pod = {"containers": containers, "tolerations": [{"key": "one", "operator": "Exists"}]}
    change = {"spec": {"template": {"spec": pod}}}
    spec = raw.do("PATCH", f"{path}/calico-node", change, patch="strategic-merge")["spec"]
    spec = spec["template"]["spec"]
    made = {each["name"]: each for each in spec["containers"]}
    assert sorted(made) == ["calico-node", "more"]
    assert made["calico-node"]["image"] == OLD
    values = {each["name"]: each["value"] for each in made["calico-node"]["env"]}
    assert values == {"A": "1", "B": "3", "C": "4"}
    assert [each["key"] for each in spec["tolerations"]] == ["one"]

    env = [{"name": "A", "$patch": "delete"}]
    change = {"spec": {"template": {"spec": {"containers": [{"name": "calico-node", "env": env}]}}}}
    spec = raw.do("PATCH", f"{path}/calico-node", change, patch="strategic-merge")["spec"]
    made = {each["name"]: each for each in spec["template"]["spec"]["containers"]}
    assert sorted(each["name"] for each in made["calico-node"]["env"]) == ["B", "C"]


def test_merge_patch_replaces_lists(raw: Client, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/daemonsets"
    raw.do("POST", path, daemon_set(namespace))
    containers = [{"name": "other", "image": "other:1"}]
    change = {
        "metadata": {"annotations": {"a": "1"}},
        "spec": {"template": {"spec": {"containers": containers}}},
    }
    made = raw.do("PATCH", f"{path}/calico-node", change)
    assert [c["name"] for c in made["spec"]["template"]["spec"]["containers"]] == ["other"]
    made = raw.do("PATCH", f"{path}/calico-node", {"metadata": {"annotations": {"a": None}}})
    assert "a" not in made["metadata"].get("annotations", {})


def test_json_patch(raw: Client, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    notes = {"annotations": {"a/b": "1", "c": "2"}}
    raw.do("POST", path, {"metadata": {"name": "one", **notes}})
    change = [
        {"op": "test", "path": "/metadata/annotations/c", "value": "2"},
        {"op": "replace", "path": "/metadata/annotations/a~1b", "value": "3"},
        {"op": "add", "path": "/metadata/annotations/d", "value": "4"},
        {"op": "remove", "path": "/metadata/annotations/c"},
    ]
    made = raw.do("PATCH", f"{path}/one", change, patch="json")
    assert made["metadata"]["annotations"] == {"a/b": "3", "d": "4"}
    assert raw.ask("PATCH", f"{path}/one", change, patch="json").code == 422


def test_conditions_are_merged_by_type(core: Any, kubelet: Kubelet) -> None:
    name = kubelet.nodes[0]
    pressure = {"type": "DiskPressure", "status": "False"}
    core.patch_node_status(name, {"status": {"conditions": [pressure]}})
    node = core.read_node(name)
    states = {each.type: each.status for each in node.status.conditions}
    assert states == {"Ready": "True", "DiskPressure": "False"}


def test_status_and_spec_are_changed_apart(raw: Client, kubelet: Kubelet) -> None:
    path = f"/api/v1/nodes/{kubelet.nodes[0]}"
    both = {"spec": {"unschedulable": True}, "status": {"phase": "Terminated"}}
    made = raw.do("PATCH", path, both)
    assert made["spec"]["unschedulable"]
    assert "phase" not in made["status"]
    both = {"spec": {"unschedulable": None}, "status": {"phase": "Running"}}
    made = raw.do("PATCH", f"{path}/status", both)
    assert made["spec"]["unschedulable"]
    assert made["status"]["phase"] == "Running"
