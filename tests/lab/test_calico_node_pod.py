# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replacing calico-node's pod, asked of the embedded API and the real one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import (
    DataplaneError,
    Refusal,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.api import Kube
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.calico_node_pod import (
    FINALIZER,
    CalicoNodePod,
    Order,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.lease import (
    Lease,
    LeaseLost,
)
from ansible_collections.dataplane.calico_bpf.tests.lab.client import Client
from ansible_collections.dataplane.calico_bpf.tests.lab.embedded import EmbeddedApi
from ansible_collections.dataplane.calico_bpf.tests.lab.kubelet import Kubelet
from ansible_collections.dataplane.calico_bpf.tests.lab.objects import ready

Object = dict[str, Any]
OLD, NEW = "calico/node:v3.28.1", "calico/node:v3.29.5"


@dataclass
class Rollout:
    kube: Kube
    raw: Client
    kubelet: Kubelet
    space: str
    told: list[str]

    @property
    def node(self) -> str:
        return self.kubelet.nodes[0]

    def begin(self, grace: int = 0) -> None:
        """The old pod is Ready; grace as in Calico's manifest."""
        labels = {"k8s-app": "calico-node"}
        spec = {
            "nodeSelector": {"test": self.space},
            "terminationGracePeriodSeconds": grace,
            "containers": [{"name": "calico-node", "image": OLD}],
        }
        template = {"metadata": {"labels": labels}, "spec": spec}
        body = {
            "metadata": {"name": "calico-node"},
            "spec": {
                "selector": {"matchLabels": labels},
                "updateStrategy": {"type": "OnDelete"},
                "template": template,
            },
        }
        self.raw.do("POST", f"/apis/apps/v1/namespaces/{self.space}/daemonsets", body)
        self.eventually(lambda: any(map(ready, self.pods())))

    def set_image(self, image: str = NEW) -> None:
        containers = [{"name": "calico-node", "image": image}]
        change = {"spec": {"template": {"spec": {"containers": containers}}}}
        path = f"/apis/apps/v1/namespaces/{self.space}/daemonsets/calico-node"
        self.raw.do("PATCH", path, change, patch="strategic-merge")

    def pods(self) -> list[Object]:
        path = f"/api/v1/namespaces/{self.space}/pods"
        pods: list[Object] = self.raw.do("GET", path)["items"]
        return pods

    def stop(self, check: bool = False, **how: Any) -> Object:
        return self.pod(**how).stop(check)

    def start(self, check: bool = False, **how: Any) -> Object:
        return self.pod(**how).start(check)

    def pod(self, timeout: float = 30, **how: Any) -> CalicoNodePod:
        keep = how.pop("keep", lambda: None)
        order = Order(self.node, self.space, timeout=timeout, poll=0.1, **how)
        return CalicoNodePod(self.kube, order, self.told.append, keep)

    def eventually(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < until, "not in time"
            time.sleep(0.05)


@pytest.fixture
def rollout(kube: Kube, raw: Client, one_node: Kubelet, space: str, told: list[str]) -> Rollout:
    made = Rollout(kube, raw, one_node, space, told)
    made.begin()
    return made


def test_a_pod_of_the_newest_revision_is_left_alone(rollout: Rollout) -> None:
    (pod,) = rollout.pods()
    for check in (True, False):
        result = rollout.stop(check)
        assert not result["changed"]
        assert not result["stopped"]
        assert result["pod"]["uid"] == pod["metadata"]["uid"]
    (after,) = rollout.pods()
    assert after["metadata"].get("finalizers") is None
    started = rollout.start()
    assert not started["changed"]
    assert started["pod"]["images"] == {"calico-node": OLD}
    assert started["pod"]["ready_at"]


def test_no_new_pod_is_made_until_the_stopped_one_is_let_go(rollout: Rollout) -> None:
    """The kubelet has nothing left of it at once, and the pod has no grace."""
    (old,) = rollout.pods()
    rollout.set_image()
    result = rollout.stop()
    assert result["changed"]
    assert result["stopped"]
    assert result["pod"]["images"] == {"calico-node": OLD}
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        (held,) = rollout.pods()
        assert held["metadata"]["uid"] == old["metadata"]["uid"]
        assert held["metadata"]["deletionTimestamp"]
        assert held["metadata"]["finalizers"] == [FINALIZER]
        time.sleep(0.05)
    again = rollout.stop()  # as a repeated run does
    assert not again["changed"]
    assert again["stopped"]
    assert again["pod"]["uid"] == old["metadata"]["uid"]
    started = rollout.start()
    assert started["changed"]
    assert started["pod"]["images"] == {"calico-node": NEW}
    (new,) = rollout.pods()
    assert new["metadata"]["uid"] == started["pod"]["uid"] != old["metadata"]["uid"]
    assert new["metadata"].get("finalizers") is None
    assert not rollout.start()["changed"]
    assert not rollout.stop()["stopped"]


def test_a_pod_that_ends_slowly_is_waited_for(rollout: Rollout) -> None:
    rollout.set_image()
    gone = threading.Event()

    def stop_pod(pod: Mapping[str, Any]) -> bool:
        return gone.is_set()

    rollout.kubelet.stop_pod = stop_pod  # type: ignore[method-assign]
    rollout.stop()
    threading.Timer(1.0, gone.set).start()
    started = rollout.start()
    assert started["pod"]["images"] == {"calico-node": NEW}


def test_other_finalizers_stay(rollout: Rollout) -> None:
    (pod,) = rollout.pods()
    path = f"/api/v1/namespaces/{rollout.space}/pods/{pod['metadata']['name']}"
    rollout.raw.do("PATCH", path, {"metadata": {"finalizers": ["lab.example/hold"]}})
    rollout.set_image()
    rollout.stop()
    assert sorted(rollout.raw.do("GET", path)["metadata"]["finalizers"]) == sorted(
        (FINALIZER, "lab.example/hold")
    )
    with pytest.raises(DataplaneError):
        rollout.start(timeout=1)
    assert rollout.raw.do("GET", path)["metadata"]["finalizers"] == ["lab.example/hold"]
    rollout.raw.do("PATCH", path, {"metadata": {"finalizers": None}})
    assert rollout.start()["pod"]["images"] == {"calico-node": NEW}


def test_a_run_that_ended_between_finalizer_and_deletion(rollout: Rollout) -> None:
    (pod,) = rollout.pods()
    path = f"/api/v1/namespaces/{rollout.space}/pods/{pod['metadata']['name']}"
    rollout.raw.do("PATCH", path, {"metadata": {"finalizers": [FINALIZER]}})
    rollout.set_image()
    result = rollout.stop()
    assert result["changed"]
    (held,) = rollout.pods()
    assert held["metadata"]["deletionTimestamp"]
    rollout.start()


def test_the_same_revision_is_replaced_when_asked(rollout: Rollout) -> None:
    (old,) = rollout.pods()
    assert rollout.stop(replace=True)["stopped"]
    started = rollout.start()
    assert started["pod"]["uid"] != old["metadata"]["uid"]
    assert started["pod"]["images"] == {"calico-node": OLD}


def test_one_that_does_not_get_ready(rollout: Rollout) -> None:
    rollout.set_image()
    rollout.kubelet.ready_after = 60
    rollout.stop()
    with pytest.raises(DataplaneError, match="is Running and not Ready within 5 s") as raised:
        rollout.start(timeout=5)
    facts = raised.value.facts
    assert facts["phase"] == "Running"
    assert facts["containers"] == {"calico-node": "running, not ready"}
    assert facts["log"][-1].endswith("calico-node started")
    assert facts["log"][-1] in str(raised.value)
    assert {each["type"] for each in facts["conditions"]} >= {"Ready", "PodScheduled"}
    assert any("running, not ready" in line for line in rollout.told)
    rollout.kubelet.ready_after = 0
    assert rollout.start()["pod"]["images"] == {"calico-node": NEW}


def test_an_old_pod_that_nobody_stopped(rollout: Rollout) -> None:
    rollout.set_image()
    with pytest.raises(Refusal, match="stop it first"):
        rollout.start()


def test_check_mode_predicts(rollout: Rollout) -> None:
    rollout.set_image()
    (before,) = rollout.pods()
    rollout.eventually(lambda: rollout.stop(check=True)["pod"] is not None)
    predicted = rollout.stop(check=True)
    assert predicted["changed"]
    assert predicted["stopped"]
    assert not rollout.start(check=True)["changed"]
    assert rollout.pods() == [before]
    rollout.stop()
    assert rollout.start(check=True)["changed"]
    (held,) = rollout.pods()
    assert held["metadata"]["finalizers"] == [FINALIZER]
    rollout.start()


def test_there_is_no_such_node_or_daemonset(rollout: Rollout) -> None:
    missing = Order(rollout.node, rollout.space, "none")
    with pytest.raises(Refusal, match="there is no DaemonSet"):
        CalicoNodePod(rollout.kube, missing).stop(check=False)
    with pytest.raises(Refusal, match="there is no node none"):
        CalicoNodePod(rollout.kube, Order("none", rollout.space)).start(check=False)


def test_a_lost_lease_changes_nothing(rollout: Rollout) -> None:
    rollout.set_image()
    Lease(rollout.kube, rollout.space, "run", "ben", 60).take()
    lease = Lease(rollout.kube, rollout.space, "run", "anna", 60)
    with pytest.raises(LeaseLost, match="ben"):
        rollout.stop(keep=lease.keep)
    (pod,) = rollout.pods()
    assert pod["metadata"].get("finalizers") is None
    assert pod["metadata"].get("deletionTimestamp") is None


def test_a_deletion_that_is_refused_is_said_with_what_is_left(
    rollout: Rollout, faulty: EmbeddedApi
) -> None:
    rollout.set_image()
    faulty.access.denied.add(("delete", "pods"))
    pod = rollout.pod()
    try:
        with pytest.raises(DataplaneError, match=r"403 .*still runs, and has our finalizer"):
            pod.stop(check=False)
    finally:
        faulty.access.denied.clear()
    assert pod.changed
    assert rollout.stop()["changed"]
    rollout.start()


@pytest.mark.parametrize("status", [429, 500])
def test_an_api_that_fails_for_a_while(rollout: Rollout, faulty: EmbeddedApi, status: int) -> None:
    rollout.set_image()
    for method in ("GET", "PATCH", "DELETE"):
        faulty.faults.refuse(method, f"{rollout.space}/pods", status, 2)
    assert rollout.stop()["stopped"]
    faulty.faults.refuse("PATCH", f"{rollout.space}/pods", status, 2)
    assert rollout.start()["pod"]["images"] == {"calico-node": NEW}
