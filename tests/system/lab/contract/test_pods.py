# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods: how they end, where they are bound, and their logs."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.kubelet import Kubelet
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.outcomes import (
    eventually,
    status_of,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.workloads import (
    bare_pod,
)


def test_a_pod_terminates_until_its_kubelet_removes_it(
    core: Any, kubelet: Kubelet, namespace: str
) -> None:
    core.create_namespaced_pod(namespace, bare_pod("web", kubelet.nodes[0]))
    eventually(lambda: core.read_namespaced_pod("web", namespace).status.phase == "Running")
    kubelet.paused.set()
    deleted = core.delete_namespaced_pod("web", namespace)
    assert deleted.metadata.deletion_timestamp
    assert deleted.metadata.deletion_grace_period_seconds == 5
    shorter = core.delete_namespaced_pod("web", namespace, grace_period_seconds=2)
    assert shorter.metadata.deletion_grace_period_seconds == 2
    kubelet.paused.clear()
    eventually(lambda: not core.list_namespaced_pod(namespace).items)


def test_a_pod_without_grace_or_node_is_removed_at_once(
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
