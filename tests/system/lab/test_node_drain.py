# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The drain of a node, with the embedded API and the real one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import (
    ApiError,
    DataplaneError,
    Refusal,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.api import Kube
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.drain import (
    Drain,
    DrainSpec,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.drain_filters import (
    RemovalOptions,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.lease import (
    Lease,
    LeaseLost,
    LeaseOptions,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.read_pdb import read_budgets
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.session import Session
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.embedded import EmbeddedApi
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.kubelet import Kubelet
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import ready

Object = dict[str, Any]


@dataclass
class Node:
    """A node with its pods, and its drain."""

    kube: Kube
    raw: Client
    kubelet: Kubelet
    space: str
    logged: list[str]

    @property
    def name(self) -> str:
        return self.kubelet.nodes[0]

    def run(self, *names: str, **spec: Any) -> None:
        """Start pods that no DaemonSet owns, and wait until they are Ready."""
        maps = f"/api/v1/namespaces/{self.space}/configmaps"
        held = self.raw.ask("POST", maps, {"metadata": {"name": "owner"}}).body
        if held["kind"] == "Status":
            held = self.raw.do("GET", f"{maps}/owner")
        owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "controller": True}
        references = spec.pop("owners", [{**owner, "uid": held["metadata"]["uid"]}])
        for name in names:
            metadata = {"name": name, "labels": {"app": name[0]}, "ownerReferences": references}
            containers = [{"name": "app", "image": "app:1"}]
            body: Object = {"nodeName": self.name, "containers": containers}
            body |= {"terminationGracePeriodSeconds": 1, **spec}
            self.raw.do("POST", self._pods, {"metadata": metadata, "spec": body})
        self.eventually(lambda: all(map(ready, self.pods())))

    def budget(self, app: str, least: int) -> Callable[[int], Any]:
        """Create a budget for an app and wait for its status; the function changes it."""
        version = self.kube.get("/apis/policy")["preferredVersion"]["version"]
        path = f"/apis/policy/{version}/namespaces/{self.space}/poddisruptionbudgets"
        spec = {"minAvailable": least, "selector": {"matchLabels": {"app": app}}}
        self.raw.do("POST", path, {"metadata": {"name": app}, "spec": spec})

        def counted() -> bool:
            status = self.raw.do("GET", f"{path}/{app}").get("status") or {}
            return bool(status.get("currentHealthy"))

        self.eventually(counted)
        return lambda least: self.raw.do(
            "PATCH", f"{path}/{app}", {"spec": {"minAvailable": least}}
        )

    def pods(self) -> list[Object]:
        pods: list[Object] = self.raw.do("GET", self._pods)["items"]
        return pods

    def cordoned(self) -> bool:
        held = self.raw.do("GET", f"/api/v1/nodes/{self.name}")
        return bool((held.get("spec") or {}).get("unschedulable"))

    def names(self) -> list[str]:
        return sorted(pod["metadata"]["name"] for pod in self.pods())

    def drain(self, timeout: float = 30, **how: Any) -> Drain:
        keep = how.pop("keep", lambda: None)
        session = Session(self.kube, self.logged.append, keep)
        return Drain(session, DrainSpec(self.name, timeout, 0.1, **how))

    @property
    def _pods(self) -> str:
        return f"/api/v1/namespaces/{self.space}/pods"

    def eventually(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < until, "not in time"
            time.sleep(0.05)


@pytest.fixture
def node(kube: Kube, raw: Client, one_node: Kubelet, space: str, logged: list[str]) -> Node:
    return Node(kube, raw, one_node, space, logged)


def failure(drain: Drain) -> DataplaneError:
    with pytest.raises(DataplaneError) as raised:
        drain.run()
    return raised.value


def test_a_node_is_drained(node: Node) -> None:
    node.run("a1", "a2", "b1")
    result = node.drain().run()
    assert result["changed"]
    assert result["evicted"] == [f"{node.space}/{name}" for name in ("a1", "a2", "b1")]
    assert result["remaining"] == []
    assert not node.pods()
    again = node.drain().run()
    assert not again["changed"]


def test_other_pods_are_evicted_while_one_waits_for_its_budget(node: Node) -> None:
    node.run("a1", "b1")
    relax = node.budget("a", least=1)
    node.eventually(lambda: len(read_budgets(node.kube)) == 1)
    result: list[Object] = []
    draining = threading.Thread(target=lambda: result.append(node.drain().run()))
    draining.start()
    try:
        node.eventually(lambda: node.names() == ["a1"])
        node.eventually(
            lambda: any("refused by a budget" in line and "/a1" in line for line in node.logged)
        )
    finally:
        relax(0)
        draining.join()
    assert sorted(result[0]["evicted"]) == [f"{node.space}/a1", f"{node.space}/b1"]


def test_a_timeout_reports_the_remaining_pods_and_why(node: Node) -> None:
    node.run("a1", "b1", "c1")
    node.budget("a", least=1)
    node.raw.do(
        "PATCH",
        f"/api/v1/namespaces/{node.space}/pods/c1",
        {"metadata": {"finalizers": ["lab.example/hold"]}},
    )
    error = failure(node.drain(timeout=2))
    left = {each["pod"]: each["why"] for each in error.facts["remaining"]}
    assert sorted(left) == [f"{node.space}/a1", f"{node.space}/c1"]
    assert "needs 1 healthy pods and has 1 currently" in left[f"{node.space}/a1"]
    assert "still terminating" in left[f"{node.space}/c1"]
    assert "lab.example/hold" in left[f"{node.space}/c1"]
    assert all(why in str(error) for why in left.values())
    assert error.facts["changed"]
    node.raw.do(
        "PATCH", f"/api/v1/namespaces/{node.space}/pods/c1", {"metadata": {"finalizers": None}}
    )


def test_a_second_drain_evicts_the_remaining_pods(node: Node) -> None:
    node.run("a1", "b1")
    relax = node.budget("a", least=1)
    failure(node.drain(timeout=1))
    relax(0)
    result = node.drain().run()
    assert result["evicted"] == [f"{node.space}/a1"]
    assert not node.pods()


def test_pods_that_need_an_option_are_listed_and_nothing_is_evicted(node: Node) -> None:
    scratch = [{"name": "scratch", "emptyDir": {}}]
    node.run("a1")
    node.run("b1", volumes=scratch)
    node.run("c1", owners=[])
    node.run("d1", owners=[], volumes=scratch)
    with pytest.raises(Refusal) as raised:
        node.drain().run()
    why = {each["pod"].split("/")[1]: each["why"] for each in raised.value.facts["remaining"]}
    assert sorted(why) == ["b1", "c1", "d1"]
    assert node.names() == ["a1", "b1", "c1", "d1"]
    result = node.drain(removal=RemovalOptions(force=True, delete_emptydir_data=True)).run()
    assert len(result["evicted"]) == 4


def test_check_mode_predicts(node: Node) -> None:
    node.run("a1", "b1")
    node.budget("a", least=1)
    predicted = node.drain().predict()
    assert predicted["changed"]
    assert predicted["evicted"] == [f"{node.space}/a1", f"{node.space}/b1"]
    (budget,) = predicted["budgets"]
    assert budget["budget"] == f"{node.space}/a"
    assert budget["never"]
    assert node.names() == ["a1", "b1"]


def test_budgets_are_bypassed_only_with_disable_eviction(node: Node) -> None:
    node.run("a1")
    node.budget("a", least=1)
    assert node.drain(disable_eviction=True).run()["evicted"] == [f"{node.space}/a1"]
    assert not node.pods()


def test_a_node_whose_kubelet_is_down(node: Node) -> None:
    node.run("a1")
    node.kubelet.paused.set()
    ready = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
    status = {"status": {"conditions": [ready]}}
    path = f"/api/v1/nodes/{node.name}/status"
    node.raw.do("PATCH", path, status, patch="strategic-merge")
    error = failure(node.drain(timeout=1))
    assert "NotReady" in str(error)
    assert any("NotReady" in line for line in node.logged)
    node.kubelet.paused.clear()


def test_a_node_is_cordoned_when_an_eviction_is_possible(node: Node) -> None:
    node.run("a1")
    relax = node.budget("a", least=1)
    node.eventually(lambda: len(read_budgets(node.kube)) == 1)
    error = failure(node.drain(timeout=1, cordoned_by="anna"))
    assert (error.facts["cordoned"], error.facts["evicted"]) == (False, [])
    assert "Nothing was evicted, so this run does not keep the node cordoned." in str(error)
    assert not node.cordoned()
    relax(0)
    result = node.drain(cordoned_by="anna").run()
    assert (result["cordoned"], result["evicted"]) == (True, [f"{node.space}/a1"])
    assert node.cordoned()


def test_an_unknown_node_is_refused(node: Node) -> None:
    with pytest.raises(Refusal, match="there is no node none"):
        Drain(Session(node.kube), DrainSpec("none", 1)).run()


def test_a_lost_lease_stops_the_drain_before_the_first_eviction(node: Node) -> None:
    node.run("a1")
    lease = Lease(Session(node.kube), LeaseOptions(node.space, "run", "anna", 60))
    Lease(Session(node.kube), LeaseOptions(node.space, "run", "ben", 60)).take()
    with pytest.raises(LeaseLost, match="ben") as raised:
        node.drain(keep=lease.keep).run()
    assert raised.value.facts["changed"] is False
    assert node.names() == ["a1"]
    assert not any(pod["metadata"].get("deletionTimestamp") for pod in node.pods())


def test_the_lease_is_kept_while_waiting(node: Node) -> None:
    node.run("a1")
    node.budget("a", least=1)
    lease = Lease(Session(node.kube), LeaseOptions(node.space, "run", "anna", 3))
    first = lease.take().record.renewed
    failure(node.drain(timeout=2.5, keep=lease.keep))
    last = lease.renew(check=True).previous.renewed
    assert first is not None
    assert last is not None
    assert (last - first).total_seconds() > 1


@pytest.mark.parametrize("status", [429, 500])
def test_temporary_failures_of_the_api_are_retried(
    node: Node, faulty: EmbeddedApi, status: int
) -> None:
    node.run("a1", "b1")
    faulty.faults.refuse("POST", "a1/eviction", status)
    faulty.faults.refuse("GET", "/api/v1/pods", status, 3)
    result = node.drain().run()
    assert sorted(result["evicted"]) == [f"{node.space}/a1", f"{node.space}/b1"]


def test_a_forbidden_eviction_is_reported_at_once(node: Node, faulty: EmbeddedApi) -> None:
    node.run("a1")
    faulty.access.denied.add(("create", "pods/eviction"))
    try:
        error = failure(node.drain())
    finally:
        faulty.access.denied.clear()
    assert isinstance(error, ApiError)
    assert error.status == 403
    assert error.facts["changed"] is False
