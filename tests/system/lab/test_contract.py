# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab takes for granted of a Kubernetes API, asked of the embedded ones and the real one.

The official Python client asks where it can; raw HTTP shows what lies below it. A test that only
one of the two could pass does not belong here (test_embedded.py has the rest).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from kubernetes import client as official
from kubernetes import config as official_config
from kubernetes import dynamic
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic.exceptions import ResourceNotFoundError

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.api import Api
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.kubelet import Kubelet
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import (
    conditions,
    finished,
    ready,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.releases import (
    reports_terminal_phase,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.serving import APIS, serving

Object = dict[str, Any]
OLD, NEW = "calico/node:v3.28.1", "calico/node:v3.29.5"
HASH = "controller-revision-hash"


# --- the two APIs, and what a test has of them ----------------------------------------------------


@pytest.fixture(scope="module", params=APIS)
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    with serving(request.param) as served:
        yield served


@pytest.fixture(scope="module")
def raw(api: Api) -> Client:
    return Client(api)


@pytest.fixture(scope="module")
def http(api: Api) -> Iterator[official.ApiClient]:
    """The official client, from the kubeconfig."""
    make: Any = official_config.new_client_from_config
    with make(str(api.kubeconfig)) as made:
        yield made


# The official client takes plain objects too, but its types say otherwise: hence Any.


@pytest.fixture(scope="module")
def core(http: official.ApiClient) -> Any:
    return official.CoreV1Api(http)


@pytest.fixture(scope="module")
def apps(http: official.ApiClient) -> Any:
    return official.AppsV1Api(http)


@pytest.fixture(scope="module")
def leases(http: official.ApiClient) -> Any:
    return official.CoordinationV1Api(http)


@pytest.fixture
def namespace(core: Any) -> Iterator[str]:
    made = core.create_namespace({"metadata": {"generateName": "contract-"}})
    yield made.metadata.name
    core.delete_namespace(made.metadata.name)


@pytest.fixture
def kubelet(api: Api, namespace: str) -> Iterator[Kubelet]:
    """Three nodes of this test alone."""
    names = [f"{namespace}-{number}" for number in range(3)]
    with Kubelet(api, names, labels={"test": namespace}) as made:
        yield made


@pytest.fixture
def controllers(api: Api) -> None:
    if not api.has_controllers:
        pytest.skip("no kube-controller-manager beside the kube-apiserver")


def eventually(condition: Callable[[], Any], patience: float = 30) -> Any:
    """The first true answer of a condition; fails when there is none in time."""
    until = time.monotonic() + patience
    while not (answer := condition()):
        assert time.monotonic() < until, "not in time"
        time.sleep(0.02)
    return answer


def status_of(asked: Callable[[], Any]) -> int:
    """The HTTP status of a call that must fail."""
    with pytest.raises(ApiException) as refused:
        asked()
    return int(refused.value.status)


def daemon_set(namespace: str, strategy: str = "OnDelete", **pod: Any) -> Object:
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    container = {"name": "calico-node", "image": OLD, "env": env}
    spec = {
        "nodeSelector": {"test": namespace},
        "tolerations": [{"operator": "Exists"}],
        "terminationGracePeriodSeconds": 5,
        "containers": [container],
        **pod,
    }
    labels = {"k8s-app": "calico-node"}
    return {
        "metadata": {"name": "calico-node"},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": strategy},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def bare_pod(name: str, node: str | None = None, grace: int = 5) -> Object:
    spec: Object = {"containers": [{"name": "app", "image": "app:1"}]}
    spec["terminationGracePeriodSeconds"] = grace
    spec |= {"nodeName": node} if node else {}
    return {"metadata": {"name": name, "labels": {"app": "web"}}, "spec": spec}


def image(wanted: str) -> Object:
    containers = [{"name": "calico-node", "image": wanted}]
    return {"spec": {"template": {"spec": {"containers": containers}}}}


def pods_at(raw: Client, namespace: str) -> list[Object]:
    pods: list[Object] = raw.do("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
    return pods


def images(raw: Client, namespace: str) -> list[str]:
    """The images of the pods that are ready."""
    up = filter(ready, pods_at(raw, namespace))
    return sorted(pod["spec"]["containers"][0]["image"] for pod in up)


def roll_out(apps: Any, raw: Client, namespace: str, **how: Any) -> list[Object]:
    """A DaemonSet whose three pods are ready."""
    apps.create_namespaced_daemon_set(namespace, daemon_set(namespace, **how))
    eventually(lambda: images(raw, namespace) == [OLD] * 3)
    return pods_at(raw, namespace)


# --- objects --------------------------------------------------------------------------------------


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


def test_leases_go_by_their_version(leases: Any, namespace: str) -> None:
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


def test_a_namespace_takes_its_objects_along(core: Any, controllers: None) -> None:
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


# --- patches --------------------------------------------------------------------------------------


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


# --- watches --------------------------------------------------------------------------------------


def test_a_change_that_changes_nothing_is_no_event(raw: Client, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    made = raw.do("POST", path, {"metadata": {"name": "one"}, "data": {"a": "0"}})
    version = made["metadata"]["resourceVersion"]
    for value in ("1", "2", "3", "4", "4", "5"):
        raw.do("PATCH", f"{path}/one", {"data": {"a": value}})
    raw.do("POST", path, {"metadata": {"name": "two"}})
    seen = []
    for event in raw.watch(path, resourceVersion=version, timeoutSeconds=10):
        if event["object"]["metadata"]["name"] == "two":
            break
        seen.append((event["type"], event["object"]["data"]["a"]))
    assert seen == [("MODIFIED", value) for value in "12345"]


def test_a_watch_goes_on_where_it_was_cut(raw: Client, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    version = raw.do("GET", path)["metadata"]["resourceVersion"]
    for number in range(6):
        raw.do("POST", path, {"metadata": {"name": f"m{number}"}})
    seen: list[str] = []
    while len(seen) < 6:
        events = raw.watch(path, resourceVersion=version, timeoutSeconds=10)
        for event in (next(events), next(events)):
            seen.append(event["object"]["metadata"]["name"])
            version = event["object"]["metadata"]["resourceVersion"]
        events.close()  # type: ignore[attr-defined]
    assert seen == [f"m{number}" for number in range(6)]


def test_a_watch_ends_in_time_and_begins_with_what_is_there(raw: Client, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    raw.do("POST", path, {"metadata": {"name": "mine"}})
    events = [e for e in raw.watch(path, timeoutSeconds=1) if _is(e, "mine")]
    assert [event["type"] for event in events] == ["ADDED"]
    assert events[0]["object"]["kind"] == "ConfigMap"


def test_a_watch_with_a_selector_tells_of_leaving(raw: Client, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    version = raw.do("GET", path)["metadata"]["resourceVersion"]
    raw.do("POST", path, {"metadata": {"name": "one"}})
    for color in ("red", "blue", "red"):
        raw.do("PATCH", f"{path}/one", {"metadata": {"labels": {"color": color}}})
    raw.do("DELETE", f"{path}/one")
    events = raw.watch(path, resourceVersion=version, labelSelector="color=red", timeoutSeconds=10)
    seen = [next(events)["type"] for _event in range(4)]
    assert seen == ["ADDED", "DELETED", "ADDED", "DELETED"]


def _is(event: Object, name: str) -> bool:
    return bool(event["object"]["metadata"]["name"] == name)


# --- pods -----------------------------------------------------------------------------------------


def test_a_pod_terminates_until_its_kubelet_lets_go(
    core: Any, kubelet: Kubelet, namespace: str
) -> None:
    core.create_namespaced_pod(namespace, bare_pod("web", kubelet.nodes[0]))
    eventually(lambda: core.read_namespaced_pod("web", namespace).status.phase == "Running")
    kubelet.paused.set()
    held = core.delete_namespaced_pod("web", namespace)
    assert held.metadata.deletion_timestamp
    assert held.metadata.deletion_grace_period_seconds == 5
    shorter = core.delete_namespaced_pod("web", namespace, grace_period_seconds=2)
    assert shorter.metadata.deletion_grace_period_seconds == 2
    kubelet.paused.clear()
    eventually(lambda: not core.list_namespaced_pod(namespace).items)


def test_a_pod_goes_at_once_without_grace_or_node(
    core: Any, kubelet: Kubelet, namespace: str
) -> None:
    kubelet.paused.set()
    core.create_namespaced_pod(namespace, bare_pod("nowhere"))
    core.create_namespaced_pod(namespace, bare_pod("forced", kubelet.nodes[0]))
    core.create_namespaced_pod(namespace, bare_pod("hasty", kubelet.nodes[0], grace=0))
    core.delete_namespaced_pod("nowhere", namespace)
    core.delete_namespaced_pod("forced", namespace, grace_period_seconds=0)
    core.delete_namespaced_pod("hasty", namespace)
    assert not core.list_namespaced_pod(namespace).items


def test_deletion_of_the_wrong_pod_is_refused(core: Any, namespace: str) -> None:
    core.create_namespaced_pod(namespace, bare_pod("web"))
    other = {"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}}
    assert status_of(lambda: core.delete_namespaced_pod("web", namespace, body=other)) == 409


def test_a_pod_is_bound_once(raw: Client, kubelet: Kubelet, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods"
    raw.do("POST", path, bare_pod("web"))
    target = {"apiVersion": "v1", "kind": "Node", "name": kubelet.nodes[0]}
    body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "web"}, "target": target}
    assert raw.ask("POST", f"{path}/web/binding", body).code == 201
    assert raw.do("GET", f"{path}/web")["spec"]["nodeName"] == kubelet.nodes[0]
    assert raw.ask("POST", f"{path}/web/binding", body).code == 409


def test_a_pod_is_what_it_was_created_as(raw: Client, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods"
    made = raw.do("POST", path, bare_pod("web"))
    assert (made["status"]["phase"], made["spec"]["restartPolicy"]) == ("Pending", "Always")
    assert raw.ask("PATCH", f"{path}/web", {"spec": {"hostNetwork": True}}).code == 422
    bad = bare_pod("bad")
    bad["spec"]["containers"] = []
    assert raw.ask("POST", path, bad).code == 422


def test_logs_come_from_the_kubelet(
    core: Any, kubelet: Kubelet, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubelet, "pod_log", lambda *what: "one\ntwo\n" + "/".join(what) + "\n")
    core.create_namespaced_pod(namespace, bare_pod("web", kubelet.nodes[0]))
    eventually(lambda: core.read_namespaced_pod("web", namespace).status.phase == "Running")
    assert core.read_namespaced_pod_log("web", namespace) == f"one\ntwo\n{namespace}/web/app\n"
    tail = core.read_namespaced_pod_log("web", namespace, container="app", tail_lines=2)
    assert tail == f"two\n{namespace}/web/app\n"
    assert status_of(lambda: core.read_namespaced_pod_log("none", namespace)) == 404
    ask = partial(core.read_namespaced_pod_log, "web", namespace, container="x")
    assert status_of(ask) == 400


# --- eviction -------------------------------------------------------------------------------------


def policy_version(raw: Client) -> str:
    """The version of the policy group that the server prefers, as kubectl finds it."""
    return str(raw.do("GET", "/apis/policy")["preferredVersion"]["version"])


def evict(raw: Client, namespace: str, name: str, **body: Any) -> Any:
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
    return raw.ask("POST", path, {"metadata": {"name": name, "namespace": namespace}, **body})


def budget(raw: Client, namespace: str, minimum: int) -> str:
    """A PodDisruptionBudget for the pods labelled app=web; its path."""
    version = policy_version(raw)
    path = f"/apis/policy/{version}/namespaces/{namespace}/poddisruptionbudgets"
    spec = {"minAvailable": minimum, "selector": {"matchLabels": {"app": "web"}}}
    kind = {"apiVersion": f"policy/{version}", "kind": "PodDisruptionBudget"}
    raw.do("POST", path, {**kind, "metadata": {"name": "web"}, "spec": spec})
    return f"{path}/web"


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


# --- DaemonSets -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("controllers")
class TestDaemonSet:
    def test_one_pod_on_each_node(
        self, apps: Any, raw: Client, kubelet: Kubelet, namespace: str
    ) -> None:
        pods = roll_out(apps, raw, namespace)
        assert sorted(pod["spec"]["nodeName"] for pod in pods) == sorted(kubelet.nodes)
        for pod in pods:
            assert pod["metadata"]["name"].startswith("calico-node-")
            assert pod["metadata"]["labels"][HASH]
            (owner,) = pod["metadata"]["ownerReferences"]
            assert (owner["kind"], owner["name"]) == ("DaemonSet", "calico-node")
            assert conditions(pod)["Ready"] == "True"

        def counted() -> bool:
            status = apps.read_namespaced_daemon_set_status("calico-node", namespace).status
            counts = [status.desired_number_scheduled, status.current_number_scheduled]
            counts += [status.number_ready, status.updated_number_scheduled]
            return counts == [3] * 4 and status.observed_generation == 1

        eventually(counted)

    def test_on_delete_waits_for_each_pod_to_have_ended(
        self, apps: Any, raw: Client, kubelet: Kubelet, namespace: str
    ) -> None:
        old = roll_out(apps, raw, namespace)
        apps.patch_namespaced_daemon_set("calico-node", namespace, image(NEW))

        def updated(count: int | None) -> bool:
            status = apps.read_namespaced_daemon_set_status("calico-node", namespace).status
            seen = status.updated_number_scheduled
            return bool(status.observed_generation == 2 and seen == count)

        eventually(lambda: updated(None))
        assert [p["metadata"]["uid"] for p in pods_at(raw, namespace)] == [
            p["metadata"]["uid"] for p in old
        ]
        kubelet.paused.set()
        name, node = old[0]["metadata"]["name"], old[0]["spec"]["nodeName"]
        raw.do("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}")
        # The controller has seen the deletion once it no longer counts the pod as ready.
        path = f"/apis/apps/v1/namespaces/{namespace}/daemonsets/calico-node"
        version = raw.do("GET", f"/api/v1/namespaces/{namespace}/pods")["metadata"]
        raw.do("PATCH", path, {"spec": {"minReadySeconds": 0, "revisionHistoryLimit": 9}})
        eventually(lambda: raw.do("GET", path)["status"]["observedGeneration"] == 3)
        assert len(pods_at(raw, namespace)) == 3
        kubelet.paused.clear()
        eventually(lambda: images(raw, namespace) == [OLD, OLD, NEW])
        watch = raw.watch(
            f"/api/v1/namespaces/{namespace}/pods",
            resourceVersion=version["resourceVersion"],
            timeoutSeconds=10,
        )
        seen = []
        for event in watch:
            seen.append((event["type"], event["object"]["metadata"]["name"]))
            if seen[-1] == ("MODIFIED", name) and finished(event["object"]):
                seen.append(("TERMINAL", name))
            if event["type"] == "ADDED":
                break
        before = "TERMINAL" if reports_terminal_phase(kubelet.release) else "DELETED"
        assert (before, name) in seen
        successor = seen[-1][1]
        replacement = raw.do("GET", f"/api/v1/namespaces/{namespace}/pods/{successor}")
        assert replacement["spec"]["nodeName"] == node
        assert replacement["metadata"]["labels"][HASH] != old[0]["metadata"]["labels"][HASH]
        eventually(lambda: raw.do("GET", path)["status"].get("updatedNumberScheduled") == 1)

    def test_a_deleted_pod_that_a_finalizer_keeps(
        self, apps: Any, raw: Client, kubelet: Kubelet, namespace: str
    ) -> None:
        """Once it has ended it holds its node no longer; before 1.27 until it has left the API."""
        old = roll_out(apps, raw, namespace)[0]
        apps.patch_namespaced_daemon_set("calico-node", namespace, image(NEW))
        path = f"/api/v1/namespaces/{namespace}/pods/{old['metadata']['name']}"
        raw.do("PATCH", path, {"metadata": {"finalizers": ["lab.example/hold"]}})
        raw.do("DELETE", path)

        def ended() -> bool:
            statuses = raw.do("GET", path)["status"]["containerStatuses"]
            return all("terminated" in each["state"] for each in statuses)

        eventually(ended)
        if reports_terminal_phase(kubelet.release):
            eventually(lambda: images(raw, namespace) == [OLD, OLD, NEW])
            assert raw.do("GET", path)["status"]["phase"] in ("Succeeded", "Failed")
        else:
            time.sleep(1.5)
            assert len(pods_at(raw, namespace)) == 3
            assert raw.do("GET", path)["status"]["phase"] == "Running"
        raw.do("PATCH", path, {"metadata": {"finalizers": None}})
        eventually(lambda: images(raw, namespace) == [OLD, OLD, NEW])
        eventually(lambda: raw.ask("GET", path).code == 404)

    def test_each_template_is_a_revision_and_an_old_one_comes_back(
        self, apps: Any, raw: Client, kubelet: Kubelet, namespace: str
    ) -> None:
        roll_out(apps, raw, namespace)

        def revisions() -> dict[str, Any]:
            listed = apps.list_namespaced_controller_revision(namespace).items
            found = {}
            for each in listed:
                spec = each.data["spec"]["template"]["spec"]
                found[spec["containers"][0]["image"]] = each.revision
            return found

        assert revisions() == {OLD: 1}
        apps.patch_namespaced_daemon_set("calico-node", namespace, image(NEW))
        eventually(lambda: revisions() == {OLD: 1, NEW: 2})
        apps.patch_namespaced_daemon_set("calico-node", namespace, image(OLD))
        eventually(lambda: revisions() == {OLD: 3, NEW: 2})

    def test_rolling_update_takes_one_node_at_a_time(
        self, apps: Any, raw: Client, kubelet: Kubelet, namespace: str
    ) -> None:
        kubelet.ready_after = 0.3
        old = roll_out(apps, raw, namespace, strategy="RollingUpdate")
        path = f"/api/v1/namespaces/{namespace}/pods"
        version = raw.do("GET", path)["metadata"]["resourceVersion"]
        apps.patch_namespaced_daemon_set("calico-node", namespace, image(NEW))
        eventually(lambda: images(raw, namespace) == [NEW] * 3)
        up = {pod["metadata"]["uid"] for pod in old}
        counts = [len(up)]
        for event in raw.watch(path, resourceVersion=version, timeoutSeconds=1):
            uid = {event["object"]["metadata"]["uid"]}
            up = up | uid if ready(event["object"]) else up - uid
            counts.append(len(up))
        assert (counts[-1], min(counts)) == (3, 2)

    def test_a_bad_one_is_refused(self, apps: Any, namespace: str) -> None:
        create = apps.create_namespaced_daemon_set
        assert status_of(lambda: create(namespace, daemon_set(namespace, strategy="Later"))) == 422
        odd = daemon_set(namespace)
        odd["spec"]["selector"] = {"matchLabels": {"other": "one"}}
        assert status_of(lambda: create(namespace, odd)) == 422
        create(namespace, daemon_set(namespace))
        later = {"spec": {"updateStrategy": {"type": "Later"}}}
        change = partial(apps.patch_namespaced_daemon_set, "calico-node", namespace, later)
        assert status_of(change) == 422

    def test_the_strategy_is_switched_and_put_back(
        self, raw: Client, kubelet: Kubelet, namespace: str
    ) -> None:
        path = f"/apis/apps/v1/namespaces/{namespace}/daemonsets"
        made = raw.do("POST", path, daemon_set(namespace, strategy="RollingUpdate"))
        first = made["spec"]["updateStrategy"]
        assert first["rollingUpdate"]["maxUnavailable"] == 1
        on_delete = {"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": None}}}
        made = raw.do("PATCH", f"{path}/calico-node", on_delete)
        assert made["spec"]["updateStrategy"] == {"type": "OnDelete"}
        made = raw.do("PATCH", f"{path}/calico-node", {"spec": {"updateStrategy": first}})
        assert made["spec"]["updateStrategy"] == first

    def test_it_takes_its_pods_along_or_leaves_them(
        self, apps: Any, raw: Client, kubelet: Kubelet, namespace: str
    ) -> None:
        roll_out(apps, raw, namespace)
        orphan = {"propagationPolicy": "Orphan"}
        apps.delete_namespaced_daemon_set("calico-node", namespace, body=orphan)
        eventually(lambda: not apps.list_namespaced_daemon_set(namespace).items)
        assert len(images(raw, namespace)) == 3
        # A new one of the same selector takes the orphans on, and then along.
        apps.create_namespaced_daemon_set(namespace, daemon_set(namespace))

        def adopted() -> bool:
            pods = pods_at(raw, namespace)
            return len(pods) == 3 and all(p["metadata"].get("ownerReferences") for p in pods)

        eventually(adopted)
        apps.delete_namespaced_daemon_set("calico-node", namespace)
        eventually(lambda: not pods_at(raw, namespace))

    def test_pods_that_get_ready_later(
        self, apps: Any, raw: Client, kubelet: Kubelet, namespace: str
    ) -> None:
        kubelet.ready_after = 3600
        apps.create_namespaced_daemon_set(namespace, daemon_set(namespace))

        def running() -> bool:
            return [p["status"]["phase"] for p in pods_at(raw, namespace)] == ["Running"] * 3

        eventually(running)
        assert not images(raw, namespace)
        kubelet.ready_after = 0
        eventually(lambda: images(raw, namespace) == [OLD] * 3)


def replica_set(namespace: str, replicas: int) -> Object:
    labels = {"app": "web"}
    spec = {**bare_pod("web")["spec"], "nodeSelector": {"test": namespace}}
    return {
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def has_pods(raw: Client, namespace: str, count: int) -> bool:
    return len(pods_at(raw, namespace)) == count


@pytest.mark.usefixtures("controllers")
class TestReplicaSet:
    def test_so_many_pods_over_the_nodes(
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

    def test_one_that_terminates_is_replaced_at_once(
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

    def test_it_takes_its_pods_along(
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


# --- who may, and what there is -------------------------------------------------------------------


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
        # Whoever has no rights may still ask, unless the cluster's defaults are gone too.
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


# --- custom kinds ---------------------------------------------------------------------------------


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
