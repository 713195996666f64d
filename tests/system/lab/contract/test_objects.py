# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects: metadata, versions, dry runs, selectors and finalizers."""

from __future__ import annotations

from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.kubelet import Kubelet
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.outcomes import (
    eventually,
    status_of,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.workloads import (
    NEW,
    bare_pod,
    daemon_set,
    image,
)


def test_an_object_gets_its_metadata(raw: Client, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/daemonsets"
    answer = raw.ask("POST", path, daemon_set(namespace))
    assert answer.code == 201
    metadata = answer.body["metadata"]
    assert metadata["uid"]
    assert metadata["creationTimestamp"].endswith("Z")
    assert int(metadata["resourceVersion"]) > 0
    assert metadata["generation"] == 1


def test_generation_counts_changes_of_the_spec_alone(apps: Any, namespace: str) -> None:
    apps.create_namespaced_daemon_set(namespace, daemon_set(namespace))
    labelled = {"metadata": {"labels": {"a": "b"}}}
    assert (
        apps.patch_namespaced_daemon_set("calico-node", namespace, labelled).metadata.generation
        == 1
    )
    changed = apps.patch_namespaced_daemon_set("calico-node", namespace, image(NEW))
    assert changed.metadata.generation == 2


def test_missing_and_duplicate(core: Any, namespace: str) -> None:
    assert status_of(lambda: core.read_namespaced_pod("none", namespace)) == 404
    assert status_of(lambda: core.delete_namespaced_pod("none", namespace)) == 404
    assert status_of(lambda: core.patch_node("none", {"spec": {"unschedulable": True}})) == 404
    body = {"metadata": {"name": "one"}}
    core.create_namespaced_config_map(namespace, body)
    assert status_of(lambda: core.create_namespaced_config_map(namespace, body)) == 409
    assert status_of(lambda: core.create_namespaced_config_map("no-such", body)) == 404


def test_a_status_says_what_is_wrong(raw: Client, namespace: str) -> None:
    answer = raw.ask("GET", f"/api/v1/namespaces/{namespace}/pods/none")
    assert (answer.code, answer.body["kind"]) == (404, "Status")
    assert (answer.body["reason"], answer.body["code"]) == ("NotFound", 404)
    assert answer.body["details"]["name"] == "none"
    assert raw.ask("GET", "/apis/no.such/v1/things").code == 404


def test_a_stale_version_is_refused(core: Any, kubelet: Kubelet) -> None:
    name = kubelet.nodes[0]
    node = core.read_node(name)
    old = node.metadata.resource_version
    core.patch_node(name, {"spec": {"unschedulable": True}})
    node.metadata.annotations = {"late": "yes"}
    assert status_of(lambda: core.replace_node(name, node)) == 409
    late = {"metadata": {"resourceVersion": old, "annotations": {"late": "yes"}}}
    assert status_of(lambda: core.patch_node(name, late)) == 409
    assert core.read_node(name).spec.unschedulable


def test_leases_are_guarded_by_their_version(leases: Any, namespace: str) -> None:
    body = {"metadata": {"name": "run"}, "spec": {"holderIdentity": "a"}}
    held = leases.create_namespaced_lease(namespace, body)
    held.spec.holder_identity = "b"
    renewed = leases.replace_namespaced_lease("run", namespace, held)
    assert renewed.spec.holder_identity == "b"
    held.spec.holder_identity = "c"
    assert status_of(lambda: leases.replace_namespaced_lease("run", namespace, held)) == 409
    assert status_of(lambda: leases.replace_namespaced_lease("run", namespace, body)) == 422
    stale = {"preconditions": {"resourceVersion": held.metadata.resource_version}}
    assert status_of(lambda: leases.delete_namespaced_lease("run", namespace, body=stale)) == 409
    assert leases.read_namespaced_lease("run", namespace).spec.holder_identity == "b"
    fresh = {"preconditions": {"resourceVersion": renewed.metadata.resource_version}}
    leases.delete_namespaced_lease("run", namespace, body=fresh)
    assert status_of(lambda: leases.read_namespaced_lease("run", namespace)) == 404


def test_a_lease_is_created_by_a_put_too(raw: Client, namespace: str) -> None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/run"
    body = {"metadata": {"name": "run"}, "spec": {"holderIdentity": "a"}}
    assert raw.ask("PUT", path, body).code in (200, 201)
    assert raw.do("GET", path)["spec"]["holderIdentity"] == "a"


def test_dry_run_changes_nothing(core: Any, namespace: str) -> None:
    maps = {"metadata": {"name": "one"}, "data": {"a": "1"}}
    core.create_namespaced_config_map(namespace, maps, dry_run="All")
    assert status_of(lambda: core.read_namespaced_config_map("one", namespace)) == 404
    made = core.create_namespaced_config_map(namespace, maps)
    changed = {"data": {"a": "2"}}
    patched = core.patch_namespaced_config_map("one", namespace, changed, dry_run="All")
    assert patched.data == {"a": "2"}
    made.data = {"a": "3"}
    assert (
        core.replace_namespaced_config_map("one", namespace, made, dry_run="All").data["a"] == "3"
    )
    core.delete_namespaced_config_map("one", namespace, dry_run="All")
    core.delete_namespaced_config_map("one", namespace, body={"dryRun": ["All"]})
    held = core.read_namespaced_config_map("one", namespace)
    assert held.data == {"a": "1"}
    assert held.metadata.resource_version == made.metadata.resource_version


def test_label_and_field_selectors(core: Any, kubelet: Kubelet, namespace: str) -> None:
    one, two, _three = kubelet.nodes
    for name, node, labels in (
        ("a", one, {"app": "web", "tier": "front"}),
        ("b", two, {"app": "web"}),
        ("c", two, {"app": "db"}),
    ):
        body = bare_pod(name, node)
        body["metadata"]["labels"] = labels
        core.create_namespaced_pod(namespace, body)

    def names(**how: str) -> str:
        return "".join(p.metadata.name for p in core.list_namespaced_pod(namespace, **how).items)

    assert names(label_selector="app=web") == "ab"
    assert names(label_selector="app!=web") == "c"
    assert names(label_selector="app in (web,db),!tier") == "bc"
    assert names(label_selector="tier") == "a"
    assert names(label_selector="app notin (db)") == "ab"
    assert names(field_selector=f"spec.nodeName={two}") == "bc"
    assert names(field_selector=f"spec.nodeName={two},metadata.name!=b") == "c"
    assert names(label_selector="app=web", field_selector=f"spec.nodeName={two}") == "b"
    everywhere = core.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={one}")
    assert [pod.metadata.name for pod in everywhere.items] == ["a"]
    assert status_of(lambda: names(field_selector="spec.priority=1")) == 400


def test_a_deleted_namespace_deletes_its_objects(core: Any, controllers: None) -> None:
    name = core.create_namespace({"metadata": {"generateName": "contract-"}}).metadata.name
    core.create_namespaced_config_map(name, {"metadata": {"name": "one"}})
    core.delete_namespace(name)

    def gone() -> bool:
        return not core.list_namespace(field_selector=f"metadata.name={name}").items

    eventually(gone)
    assert not core.list_namespaced_config_map(name).items


def test_a_finalizer_holds_an_object(core: Any, namespace: str) -> None:
    body = {"metadata": {"name": "one", "finalizers": ["lab.example/hold"]}}
    core.create_namespaced_config_map(namespace, body)
    core.delete_namespaced_config_map("one", namespace)
    assert core.read_namespaced_config_map("one", namespace).metadata.deletion_timestamp
    release = [{"op": "remove", "path": "/metadata/finalizers"}]
    core.patch_namespaced_config_map("one", namespace, release)
    assert status_of(lambda: core.read_namespaced_config_map("one", namespace)) == 404
