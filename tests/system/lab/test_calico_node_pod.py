# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The replacement of calico-node's pod, with the embedded API and the real one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import (
    DataplaneError,
    Refusal,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.annotations import FINALIZER
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.api import Kube
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.lease import (
    Lease,
    LeaseLost,
    LeaseOptions,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.session import Session
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.calico_node_pod import (
    CalicoNodePod,
    PodOptions,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.embedded import EmbeddedApi
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.kubelet import Kubelet
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import ready
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.releases import (
    reports_terminal_phase,
)

Object = dict[str, Any]
OLD, NEW = "calico/node:v3.28.1", "calico/node:v3.29.5"


@dataclass
class Rollout:
    kube: Kube
    raw: Client
    kubelet: Kubelet
    space: str
    logged: list[str]

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

    def replace(self, check: bool = False, **how: Any) -> Object:
        return self.pod(**how).replace(check)

    def wait_ready(self, check: bool = False, **how: Any) -> Object:
        return self.pod(**how).wait_ready(check)

    @contextmanager
    def replacing(self) -> Iterator[Future[Object]]:
        """A replacement in a thread."""
        with ThreadPoolExecutor(1) as pool:
            yield pool.submit(self.replace)

    def pod(self, timeout: float = 30, **how: Any) -> CalicoNodePod:
        keep = how.pop("keep", lambda: None)
        options = PodOptions(self.node, self.space, timeout=timeout, poll=0.1, **how)
        return CalicoNodePod(Session(self.kube, self.logged.append, keep), options)

    def hold(self) -> threading.Event:
        """Let the kubelet end no container until the event is set."""
        released = threading.Event()
        self.kubelet.stop_pod = lambda pod: released.is_set()  # type: ignore[method-assign]
        return released

    def interrupt(self, deleted: bool) -> Object:
        """Leave the pod like a run that was killed after the finalizer, or after the deletion."""
        (pod,) = self.pods()
        path = f"/api/v1/namespaces/{self.space}/pods/{pod['metadata']['name']}"
        self.raw.do("PATCH", path, {"metadata": {"finalizers": [FINALIZER]}})
        if deleted:
            self.raw.do("DELETE", path)
        return pod

    def eventually(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < until, "not in time"
            time.sleep(0.05)


@pytest.fixture
def rollout(kube: Kube, raw: Client, one_node: Kubelet, space: str, logged: list[str]) -> Rollout:
    made = Rollout(kube, raw, one_node, space, logged)
    made.begin()
    return made


def test_a_pod_of_the_newest_revision_is_left_alone(rollout: Rollout) -> None:
    (pod,) = rollout.pods()
    for check in (True, False):
        result = rollout.replace(check)
        assert (result["changed"], result["replaced"], result["former"]) == (False, False, None)
        assert result["pod"]["uid"] == pod["metadata"]["uid"]
    (after,) = rollout.pods()
    assert after["metadata"].get("finalizers") is None
    ready_one = rollout.wait_ready()
    assert not ready_one["changed"]
    assert ready_one["pod"]["images"] == {"calico-node": OLD}
    assert ready_one["pod"]["ready_at"]


def test_the_successor_waits_until_the_old_containers_have_ended(rollout: Rollout) -> None:
    """Without the finalizer the pod would leave the API at once: its grace period is 0."""
    (old,) = rollout.pods()
    rollout.set_image()
    ended = rollout.hold()
    with rollout.replacing() as replacement:
        rollout.eventually(lambda: bool(rollout.pods()[0]["metadata"].get("deletionTimestamp")))
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            (kept,) = rollout.pods()
            assert kept["metadata"]["uid"] == old["metadata"]["uid"]
            assert kept["metadata"]["finalizers"] == [FINALIZER]
            time.sleep(0.05)
        assert not replacement.done()
        ended.set()
    result = replacement.result()
    assert (result["changed"], result["replaced"]) == (True, True)
    assert result["former"]["uid"] == old["metadata"]["uid"]
    assert result["former"]["images"] == {"calico-node": OLD}
    assert result["pod"]["images"] == {"calico-node": NEW}
    name = old["metadata"]["name"]
    waits = f"waiting until the containers of {name} have ended"
    assert any(waits in line for line in rollout.logged)
    (new,) = rollout.pods()
    assert new["metadata"]["uid"] == result["pod"]["uid"] != old["metadata"]["uid"]
    assert new["metadata"].get("finalizers") is None
    again = rollout.replace()
    assert (again["changed"], again["replaced"]) == (False, False)
    assert rollout.wait_ready()["pod"]["uid"] == new["metadata"]["uid"]


def test_a_run_killed_after_the_deletion_is_completed(rollout: Rollout) -> None:
    """The successor may be there already, from Kubernetes 1.27 on."""
    rollout.set_image()
    old = rollout.interrupt(deleted=True)
    if reports_terminal_phase(rollout.kubelet.release):
        rollout.eventually(lambda: len(rollout.pods()) == 2)
    predicted = rollout.replace(check=True)
    assert (predicted["changed"], predicted["replaced"]) == (True, True)
    result = rollout.replace()
    assert (result["changed"], result["replaced"]) == (True, True)
    assert predicted["former"]["uid"] == result["former"]["uid"] == old["metadata"]["uid"]
    assert result["pod"]["images"] == {"calico-node": NEW}
    (new,) = rollout.pods()
    assert new["metadata"]["uid"] == result["pod"]["uid"]
    assert not rollout.replace()["changed"]


def test_a_run_killed_before_the_deletion_is_completed(rollout: Rollout) -> None:
    rollout.set_image()
    old = rollout.interrupt(deleted=False)
    result = rollout.replace()
    assert (result["changed"], result["replaced"]) == (True, True)
    assert result["former"]["uid"] == old["metadata"]["uid"]
    (new,) = rollout.pods()
    assert new["metadata"].get("finalizers") is None


def test_a_leftover_finalizer_is_removed_from_a_pod_that_stays(rollout: Rollout) -> None:
    """The run was killed before the deletion; then the DaemonSet got the revision of the pod."""
    old = rollout.interrupt(deleted=False)
    predicted, result = rollout.replace(check=True), rollout.replace()
    for each in (predicted, result):
        assert (each["changed"], each["replaced"], each["former"]) == (True, False, None)
        assert each["pod"]["uid"] == old["metadata"]["uid"]
    (after,) = rollout.pods()
    assert after["metadata"].get("finalizers") is None
    assert after["metadata"].get("deletionTimestamp") is None


def test_other_finalizers_stay(rollout: Rollout) -> None:
    """Before 1.27 they prevent the successor, which is reported; later they do not."""
    (pod,) = rollout.pods()
    path = f"/api/v1/namespaces/{rollout.space}/pods/{pod['metadata']['name']}"
    rollout.raw.do("PATCH", path, {"metadata": {"finalizers": ["lab.example/hold"]}})
    rollout.set_image()
    if reports_terminal_phase(rollout.kubelet.release):
        assert rollout.replace()["pod"]["images"] == {"calico-node": NEW}
    else:
        name = pod["metadata"]["name"]
        says = rf"{name} is still Terminating \(finalizers: lab.example/hold\)"
        with pytest.raises(DataplaneError, match=says) as raised:
            rollout.replace(timeout=5)
        assert raised.value.facts["former"]["uid"] == pod["metadata"]["uid"]
    assert rollout.raw.do("GET", path)["metadata"]["finalizers"] == ["lab.example/hold"]
    rollout.raw.do("PATCH", path, {"metadata": {"finalizers": None}})
    assert rollout.replace()["pod"]["images"] == {"calico-node": NEW}


def test_the_same_revision_is_replaced_on_request(rollout: Rollout) -> None:
    (old,) = rollout.pods()
    predicted, result = rollout.replace(check=True, replace=True), rollout.replace(replace=True)
    for each in (predicted, result):
        assert (each["changed"], each["replaced"]) == (True, True)
        assert each["former"]["uid"] == old["metadata"]["uid"]
    assert predicted["pod"] is None
    assert result["pod"]["uid"] != old["metadata"]["uid"]
    assert result["pod"]["images"] == {"calico-node": OLD}


def test_containers_that_do_not_end_keep_their_pod(rollout: Rollout) -> None:
    """The pod is left unchanged, so that no second Felix starts while the first runs."""
    rollout.set_image()
    ended = rollout.hold()
    says = (
        r"was deleted, but the kubelet has not reported within 2 s that its containers have ended"
        r" \(calico-node: ready\); the node is Ready"
    )
    with pytest.raises(DataplaneError, match=says) as raised:
        rollout.replace(timeout=2)
    (kept,) = rollout.pods()
    assert kept["metadata"]["finalizers"] == [FINALIZER]
    assert raised.value.facts["former_ended"] is False
    assert raised.value.facts["former"]["uid"] == kept["metadata"]["uid"]
    assert raised.value.facts["containers"] == {"calico-node": "ready"}
    ended.set()
    assert rollout.replace()["pod"]["images"] == {"calico-node": NEW}


def test_a_status_from_before_the_deletion_is_ignored(rollout: Rollout) -> None:
    """A container that crashed may be running again; only a terminal phase is final."""
    (pod,) = rollout.pods()
    path = f"/api/v1/namespaces/{rollout.space}/pods/{pod['metadata']['name']}"
    statuses = pod["status"]["containerStatuses"]
    crashed = [{**each, "state": {"terminated": {"exitCode": 1}}} for each in statuses]
    rollout.set_image()
    ended = rollout.hold()
    with rollout.replacing() as replacement:
        rollout.eventually(lambda: bool(rollout.pods()[0]["metadata"].get("deletionTimestamp")))
        rollout.raw.do("PATCH", f"{path}/status", {"status": {"containerStatuses": crashed}})
        time.sleep(1.5)
        rollout.raw.do("PATCH", f"{path}/status", {"status": {"containerStatuses": statuses}})
        time.sleep(2.5)
        (kept,) = rollout.pods()
        assert kept["metadata"]["finalizers"] == [FINALIZER]
        ended.set()
    assert replacement.result()["pod"]["images"] == {"calico-node": NEW}


def test_no_successor_is_created(rollout: Rollout) -> None:
    """The DaemonSet no longer selects the node."""
    change = {"spec": {"template": {"spec": {"nodeSelector": {"test": "elsewhere"}}}}}
    path = f"/apis/apps/v1/namespaces/{rollout.space}/daemonsets/calico-node"
    rollout.raw.do("PATCH", path, change)
    rollout.eventually(lambda: not rollout.pods())
    says = f"no new pod of {rollout.space}/calico-node was created within 2 s"
    for operation in (rollout.replace, rollout.wait_ready):
        with pytest.raises(DataplaneError, match=says) as raised:
            operation(timeout=2)
        assert f"kubectl -n {rollout.space} describe daemonset calico-node" in str(raised.value)
        assert raised.value.facts == {"former": None, "pod": None}


def test_a_successor_that_does_not_become_ready_is_reported(rollout: Rollout) -> None:
    rollout.set_image()
    rollout.kubelet.ready_after = 60
    rollout.replace()
    with pytest.raises(DataplaneError, match="is Running and not Ready within 5 s") as raised:
        rollout.wait_ready(timeout=5)
    facts = raised.value.facts
    assert facts["phase"] == "Running"
    assert facts["containers"] == {"calico-node": "running, not ready"}
    assert facts["log"][-1].endswith("calico-node started")
    assert facts["log"][-1] in str(raised.value)
    assert {each["type"] for each in facts["conditions"]} >= {"Ready", "PodScheduled"}
    assert any("running, not ready" in line for line in rollout.logged)
    rollout.kubelet.ready_after = 0
    assert rollout.wait_ready()["pod"]["images"] == {"calico-node": NEW}


def test_an_old_pod_is_refused_instead_of_waited_for(rollout: Rollout) -> None:
    rollout.set_image()
    with pytest.raises(Refusal, match=r"Replace it first \(state=replaced\)\. Nothing was changed"):
        rollout.wait_ready()


def test_check_mode_predicts(rollout: Rollout) -> None:
    rollout.set_image()
    (before,) = rollout.pods()
    predicted = rollout.replace(check=True)
    assert (predicted["changed"], predicted["replaced"], predicted["pod"]) == (True, True, None)
    assert predicted["former"]["uid"] == before["metadata"]["uid"]
    assert rollout.wait_ready(check=True) == {"changed": False, "pod": None, "networked_pods": None}
    assert rollout.pods() == [before]
    assert rollout.replace()["former"] == predicted["former"]


def test_a_missing_node_or_daemonset_is_refused(rollout: Rollout) -> None:
    missing = PodOptions(rollout.node, rollout.space, "none")
    with pytest.raises(Refusal, match="there is no DaemonSet"):
        CalicoNodePod(Session(rollout.kube), missing).replace(check=False)
    with pytest.raises(Refusal, match="there is no node none"):
        CalicoNodePod(Session(rollout.kube), PodOptions("none", rollout.space)).wait_ready(
            check=False
        )


def test_a_lost_lease_changes_nothing(rollout: Rollout) -> None:
    rollout.set_image()
    Lease(Session(rollout.kube), LeaseOptions(rollout.space, "run", "ben", 60)).take()
    lease = Lease(Session(rollout.kube), LeaseOptions(rollout.space, "run", "anna", 60))
    with pytest.raises(LeaseLost, match="ben"):
        rollout.replace(keep=lease.keep)
    (pod,) = rollout.pods()
    assert pod["metadata"].get("finalizers") is None
    assert pod["metadata"].get("deletionTimestamp") is None


def test_a_refused_deletion_is_reported_with_the_finalizer_that_is_left(
    rollout: Rollout, faulty: EmbeddedApi
) -> None:
    rollout.set_image()
    faulty.access.denied.add(("delete", "pods"))
    pod = rollout.pod()
    try:
        with pytest.raises(DataplaneError, match=r"403 .*still runs and has the finalizer"):
            pod.replace(check=False)
    finally:
        faulty.access.denied.clear()
    assert pod.changed
    assert rollout.replace()["pod"]["images"] == {"calico-node": NEW}


@pytest.mark.parametrize("status", [429, 500])
def test_temporary_failures_of_the_api_are_retried(
    rollout: Rollout, faulty: EmbeddedApi, status: int
) -> None:
    rollout.set_image()
    for method in ("GET", "PATCH", "DELETE"):
        faulty.faults.refuse(method, f"{rollout.space}/pods", status, 2)
    assert rollout.replace()["pod"]["images"] == {"calico-node": NEW}
