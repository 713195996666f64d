# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""DaemonSets: one pod on each node, revisions, and both update strategies."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.kubelet import Kubelet
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import (
    conditions,
    finished,
    ready,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.outcomes import (
    eventually,
    status_of,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.releases import (
    reports_terminal_phase,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.workloads import (
    NEW,
    OLD,
    daemon_set,
    image,
    images,
    pods_at,
    roll_out,
)

HASH = "controller-revision-hash"


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
        """Once ended it does not block its node; before 1.27 it does until it has left the API."""
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

    def test_its_pods_are_deleted_with_it_or_orphaned(
        self, apps: Any, raw: Client, kubelet: Kubelet, namespace: str
    ) -> None:
        roll_out(apps, raw, namespace)
        orphan = {"propagationPolicy": "Orphan"}
        apps.delete_namespaced_daemon_set("calico-node", namespace, body=orphan)
        eventually(lambda: not apps.list_namespaced_daemon_set(namespace).items)
        assert len(images(raw, namespace)) == 3
        # A new one with the same selector adopts the orphans, which are then deleted with it.
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
