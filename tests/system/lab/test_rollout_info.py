# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""rollout_info against a Kubernetes API, the embedded one and the real one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.annotations import (
    CORDONED_BY,
    FINALIZER,
    FORMER_REVISION,
    UPGRADED_AT,
    VERIFIED,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.connection import connect
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout import (
    preflight,
    serialize,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.cluster import (
    RolloutMode,
    RolloutSpec,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.read_cluster import (
    missing_permissions,
    read_cluster,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes import control_plane
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.api import Api
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.embedded import (
    EmbeddedApi,
    embedded_api,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.kubelet import Kubelet

Object = dict[str, Any]
OLD, NEW = "v3.28.1", "v3.29.5"
NAMESPACES = "/api/v1/namespaces"
BUDGET = "PodDisruptionBudget"


@pytest.fixture(scope="module", params=["embedded", "real"])
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    if request.param == "embedded":
        with embedded_api() as embedded:
            yield embedded
        return
    if control_plane.find() is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing(control_plane.NOT_FOUND)
    with control_plane.control_plane() as real:
        if not real.has_controllers:
            pytest.skip("no kube-controller-manager beside the kube-apiserver")
        yield real


@pytest.fixture(scope="module")
def raw(api: Api) -> Client:
    return Client(api)


class Site:
    """calico-node in its own namespace, on three nodes."""

    def __init__(self, api: Api, raw: Client, namespace: str) -> None:
        self.api, self.raw, self.namespace = api, raw, namespace
        self.nodes = tuple(f"{namespace}-{number}" for number in range(3))
        self.sets = f"/apis/apps/v1/namespaces/{namespace}/daemonsets"
        self.path = f"{self.sets}/calico-node"
        self.pods = f"{NAMESPACES}/{namespace}/pods"

    def info(self, **wish: Any) -> Object:
        """What the action returns."""
        wished = RolloutSpec(namespace=self.namespace, **wish)
        kube = connect({"kubeconfig": str(self.api.kubeconfig)})
        assert missing_permissions(kube, wished) == []
        cluster = read_cluster(kube, wished)
        return serialize.preflight(preflight.judge(wished, cluster), cluster, wished, 60)

    def pod_on(self, node: str) -> Object:
        field = f"spec.nodeName={node}"
        listed: list[Object] = self.raw.do("GET", self.pods, fieldSelector=field)["items"]
        return next(each for each in listed if "k8s-app" in each["metadata"]["labels"])

    def replace_pod(self, node: str) -> Object:
        """Delete it, and wait until another one is Ready."""
        old = self.pod_on(node)["metadata"]
        self.raw.do("DELETE", f"{self.pods}/{old['name']}")

        def another() -> Object | None:
            (shown,) = self.info(version=NEW, nodes=(node,))["nodes"]
            return shown if shown["pod_ready"] and shown["pod"] != old["name"] else None

        found: Object = eventually(another)
        return found

    def annotate(self, path: str, **annotations: str | None) -> None:
        self.raw.do("PATCH", path, {"metadata": {"annotations": annotations}})


@pytest.fixture
def site(api: Api, raw: Client) -> Iterator[Site]:
    made = raw.do("POST", NAMESPACES, {"metadata": {"generateName": "rollout-"}})
    site = Site(api, raw, made["metadata"]["name"])
    with Kubelet(api, site.nodes, labels={"test": site.namespace}):
        raw.do("POST", site.sets, daemon_set(site.namespace))
        eventually(lambda: site.info(version=NEW)["versions"] == {OLD: 3})
        eventually(lambda: all(node["pod_ready"] for node in site.info(version=NEW)["nodes"]))
        yield site
        raw.do("DELETE", site.path)
        raw.do("DELETE", f"{NAMESPACES}/{site.namespace}")


def daemon_set(namespace: str, version: str = OLD, **env: str) -> Object:
    labels = {"k8s-app": "calico-node"}
    listed = {"FELIX_BPFENABLED": "true", "CALICO_IPV4POOL_VXLAN": "Never", **env}
    variables = [{"name": name, "value": value} for name, value in listed.items()]
    node = {"name": "calico-node", "image": f"calico/node:{version}", "env": variables}
    pod = {
        "nodeSelector": {"test": namespace},
        "terminationGracePeriodSeconds": 0,
        "initContainers": [{"name": "install-cni", "image": f"calico/cni:{version}"}],
        "containers": [node],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "calico-node", "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "OnDelete"},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def eventually(condition: Callable[[], Any], patience: float = 30) -> Any:
    until = time.monotonic() + patience
    while not (answer := condition()):
        assert time.monotonic() < until, "not in time"
        time.sleep(0.1)
    return answer


def column(shown: Object, name: str) -> list[Any]:
    return [node[name] for node in shown["nodes"]]


def test_an_upgrade_and_its_rollback(site: Site) -> None:
    first, second, third = site.nodes
    before = site.info(version=NEW, nodes=site.nodes)
    assert before["problems"]["blockers"] == []
    assert before["install"] == "manifest"
    assert column(before, "state") == ["todo"] * 3
    assert before["estimated_seconds"] == 180
    assert before["target"]["revision"] is None
    former = before["daemonset"]["revision"]
    assert before["former_revision"] == former

    # One node is done; on another, the run ended while its old Felix was ending.
    site.annotate(site.path, **{FORMER_REVISION: former})
    site.raw.do("PATCH", site.path, before["target"]["patch"], patch="strategic-merge")
    eventually(lambda: site.info(version=NEW)["target"]["revision"])
    shown = site.replace_pod(first)
    assert (shown["version"], shown["calico_version"]) == (NEW, NEW)
    done = {VERIFIED: shown["revision"], UPGRADED_AT: "2026-11-23T22:00:00Z"}
    site.annotate(f"/api/v1/nodes/{first}", **done)
    path = f"{site.pods}/{site.pod_on(second)['metadata']['name']}"
    site.raw.do("PATCH", path, {"metadata": {"finalizers": [FINALIZER]}})
    site.raw.do("DELETE", path)
    site.annotate(f"/api/v1/nodes/{third}", **{CORDONED_BY: "run 1"})
    half = site.info(version=NEW, nodes=site.nodes)
    assert column(half, "state") == ["done", "interrupted", "interrupted"]
    assert half["versions"] == {OLD: 2, NEW: 1}
    assert half["problems"]["blockers"] == []
    assert half["former_revision"] == former
    assert half["target"]["revision_hash"] == shown["revision"]

    # Rollback: the node that was being changed comes first, and the template is the former one.
    site.annotate(f"/api/v1/nodes/{third}", **{CORDONED_BY: None})
    back = site.info(mode=RolloutMode.ROLLBACK)
    assert column(back, "name") == [second, first]
    assert back["target"]["version"] == OLD
    site.raw.do("PATCH", site.path, back["target"]["patch"], patch="strategic-merge")
    eventually(lambda: site.info(mode=RolloutMode.ROLLBACK)["target"]["revision"] == former)
    site.raw.do("PATCH", path, {"metadata": {"finalizers": None}})
    shown = site.replace_pod(first)
    assert shown["version"] == OLD
    assert shown["revision"] == before["daemonset"]["revision_hash"]


def test_a_manifest_replaces_the_whole_template(site: Site) -> None:
    wanted = daemon_set(site.namespace, NEW, FELIX_LOGSEVERITYSCREEN="Warning")
    shown = site.info(manifest=[wanted])
    assert shown["problems"]["blockers"] == []
    assert shown["target"]["revision"] is None
    site.raw.do("PATCH", site.path, shown["target"]["patch"], patch="strategic-merge")
    eventually(lambda: site.info(manifest=[wanted])["target"]["revision"])
    env = site.raw.do("GET", site.path)["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {each["name"]: each["value"] for each in env}["FELIX_LOGSEVERITYSCREEN"] == "Warning"
    assert shown["target"]["images"] == {
        "install-cni": f"calico/cni:{NEW}",
        "calico-node": f"calico/node:{NEW}",
    }


def test_a_budget_that_can_never_be_met_is_named_with_its_node(site: Site) -> None:
    labels, node = {"app": "db"}, site.nodes[1]
    spec = {"nodeName": node, "containers": [{"name": "db", "image": "db:1"}]}
    pod = {"metadata": {"name": "db", "labels": labels}, "spec": spec}
    site.raw.do("POST", site.pods, pod)
    versions = [v["version"] for v in site.raw.do("GET", "/apis/policy")["versions"]]
    policy = f"policy/{'v1' if 'v1' in versions else 'v1beta1'}"
    budget: Object = {"apiVersion": policy, "kind": BUDGET, "metadata": {"name": "db"}}
    budget["spec"] = {"maxUnavailable": 0, "selector": {"matchLabels": labels}}
    path = f"/apis/{policy}/namespaces/{site.namespace}/poddisruptionbudgets"
    site.raw.do("POST", path, budget)

    def refused() -> Any:
        return site.info(version=NEW, nodes=site.nodes)["problems"]["blockers"]

    (only,) = eventually(refused)
    assert (only["code"], only["node"]) == ("budget_never_met", node)
    assert f"{site.namespace}/db" in only["message"]


def test_a_cordoned_node_and_an_unknown_node(site: Site) -> None:
    node = f"/api/v1/nodes/{site.nodes[0]}"
    site.raw.do("PATCH", node, {"spec": {"unschedulable": True}})
    shown = site.info(version=NEW, nodes=(*site.nodes, "elsewhere"))
    assert [(each["code"], each["node"]) for each in shown["problems"]["blockers"]] == [
        ("node_unknown", "elsewhere")
    ]
    assert [(each["code"], each["node"]) for each in shown["problems"]["warnings"]] == [
        ("node_cordoned_by_another", site.nodes[0])
    ]
    assert shown["nodes"][0]["problems"] == {
        "blockers": [],
        "warnings": shown["problems"]["warnings"][:1],
    }


def test_no_daemon_set(site: Site) -> None:
    shown = site.info(version=NEW, daemonset="canal")
    assert [each["code"] for each in shown["problems"]["blockers"]] == ["no_daemonset"]
    assert (shown["install"], shown["daemonset"], shown["target"]) == ("none", None, None)


def crd(group: str, kind: str, plural: str) -> Object:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Cluster",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [{**version, "schema": {"openAPIV3Schema": schema}}],
        },
    }


DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture
def defined(raw: Client) -> Iterator[None]:
    """An IPPool with VXLAN, a FelixConfiguration with eBPF mode, and an operator's Installation."""
    calico, operator = "crd.projectcalico.org", "operator.tigera.io"
    made: list[tuple[str, str, str, Object]] = [
        (calico, "IPPool", "ippools", {"vxlanMode": "CrossSubnet", "ipipMode": "Never"}),
        (calico, "FelixConfiguration", "felixconfigurations", {"bpfEnabled": True}),
        (operator, "Installation", "installations", {}),
    ]
    for group, kind, plural, spec in made:
        raw.do("POST", DEFINITIONS, crd(group, kind, plural))
        body = {"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"name": "default"}}
        path = f"/apis/{group}/v1/{plural}"
        eventually(partial(answers, raw, 201, "POST", path, {**body, "spec": spec}))
    yield
    for group, _kind, plural, _spec in made:
        raw.do("DELETE", f"{DEFINITIONS}/{plural}.{group}")
        eventually(partial(answers, raw, 404, "GET", f"/apis/{group}/v1/{plural}"))


def answers(raw: Client, code: int, method: str, path: str, body: Any = None) -> bool:
    return raw.ask(method, path, body).code == code


def test_calicos_resources_are_read(site: Site, defined: None) -> None:
    shown = site.info(version="v3.31.7", overrides=frozenset({"operator_install"}))
    assert (shown["encapsulation"], shown["install"]) == ("vxlan", "operator")
    refused = [(each["code"], each["advisory"]) for each in shown["problems"]["blockers"]]
    assert refused == [("known_bad_path", "vxlan_mixed_releases")]
    assert [each["code"] for each in shown["problems"]["warnings"]] == ["operator_install"]


# --- through Ansible itself -----------------------------------------------------------------------


def ansible(api: Api, module: str, check: bool = False, **options: Any) -> Object:
    """The task's result."""
    words = ["ansible", "localhost", "-i", "localhost,", "-c", "local", "-o"]
    words += ["-e", f"ansible_python_interpreter={sys.executable}"]
    words += ["-m", f"dataplane.calico_bpf.{module}", *(["--check"] if check else [])]
    words += ["-a", json.dumps(options)] if options else []
    variables = {"K8S_AUTH_KUBECONFIG": str(api.kubeconfig), "ANSIBLE_NOCOLOR": "1"}
    env = {**os.environ, **variables, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    line = next(each for each in done.stdout.splitlines() if each.startswith("localhost |"))
    result: Object = json.loads(line[line.index("=> ") + 3 :])
    return result


@pytest.fixture
def embedded() -> Iterator[EmbeddedApi]:
    with embedded_api() as made:
        yield made


def test_all_missing_permissions_are_reported_at_once(embedded: EmbeddedApi) -> None:
    embedded.access.denied |= {("patch", "nodes"), ("create", "pods/eviction"), ("list", "pods")}
    shown = ansible(embedded, "rollout_info", version=NEW)
    assert [each["code"] for each in shown["problems"]["blockers"]] == ["api_permission"]
    assert shown["permissions"] == [
        "patch nodes in the whole cluster",
        "list pods in the whole cluster",
        "create pods/eviction in the whole cluster",
    ]


def test_the_action_reads_the_environment_and_refuses_bad_input(embedded: EmbeddedApi) -> None:
    shown = ansible(embedded, "rollout_info", version=NEW)
    assert (shown["changed"], shown["install"]) == (False, "none")
    assert [each["code"] for each in shown["problems"]["blockers"]] == ["no_daemonset"]
    wrong = ansible(embedded, "rollout_info", version=NEW, overrides=["everything"])
    assert "'everything' is not the code of a blocker" in wrong["msg"]
    assert "missing: version, manifest" in ansible(embedded, "rollout_info")["msg"]


def rolled_out(raw: Client) -> None:
    """A node, and a DaemonSet whose pod is ready there."""
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    node = {"metadata": {"name": "worker-1", "labels": {"test": "kube-system"}}, "status": ready}
    raw.do("POST", "/api/v1/nodes", node)
    raw.do("POST", "/apis/apps/v1/namespaces/kube-system/daemonsets", daemon_set("kube-system"))
    (pod,) = eventually(lambda: raw.do("GET", "/api/v1/pods")["items"])
    path = f"/api/v1/namespaces/kube-system/pods/{pod['metadata']['name']}"
    target = {"apiVersion": "v1", "kind": "Node", "name": "worker-1"}
    raw.do("POST", f"{path}/binding", {"metadata": pod["metadata"], "target": target})
    raw.do("PUT", f"{path}/status", {**raw.do("GET", path), "status": ready})


def test_a_forbidden_resource_is_only_a_warning(embedded: EmbeddedApi) -> None:
    raw = Client(embedded)
    raw.do("POST", DEFINITIONS, crd("crd.projectcalico.org", "IPPool", "ippools"))
    embedded.access.denied.add(("list", "ippools"))
    rolled_out(raw)
    shown = ansible(embedded, "rollout_info", version=NEW)
    assert re.fullmatch(r"https?://[\w.]+:\d+", shown["api"]["server"])
    assert shown["api"]["cluster"]
    assert shown["problems"]["blockers"] == []
    assert [
        "ippools may not be listed" in each["message"] for each in shown["problems"]["warnings"]
    ] == [True]


def test_outside_the_window_a_run_fails_and_check_mode_warns(embedded: EmbeddedApi) -> None:
    closed: Object = {"start": "2020-01-01 22:00", "end": "2020-01-02 04:00"}
    failed = ansible(embedded, "maintenance_window", **closed)
    assert "window closed at 2020-01-02 04:00 UTC" in failed["msg"]
    assert failed["seconds_left"] == 0
    trial = ansible(embedded, "maintenance_window", check=True, **closed)
    assert (trial["inside"], trial["changed"]) == (False, False)
    assert ansible(embedded, "maintenance_window")["inside"] is True
    wrong = ansible(embedded, "maintenance_window", check=True, start="22:00", end="soon")
    assert "'soon' is neither" in wrong["msg"]


def test_advisories_need_no_cluster(embedded: EmbeddedApi) -> None:
    shown = ansible(
        embedded,
        "calico_advisory_info",
        from_version="v3.31.7",
        to_version="v3.30.7",
        kernel="6.8.0-31-generic",
        encapsulation="none",
    )
    assert (shown["severity"], shown["attach_type"]) == ("refuse", "tcx")
    assert (shown["from_behaviour"], shown["to_behaviour"]) == ("replace", "replace_and_compare")
    assert shown["advisories"][0]["code"] == "tcx_downgrade"
    assert ansible(embedded, "calico_advisory_info", to_version="latest")["severity"] == "refuse"
