# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a real kubelet and the DaemonSet controller do when a pod of calico-node is deleted.

These are the facts that the collection's replacement of the pod relies on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.annotations import FINALIZER
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.daemonset import (
    CalicoNode,
    Settings,
    uid_of,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.felix_watch import FelixWatch
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.real_cluster import RealCluster
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import (
    finished,
    terminates,
)

#: The first test of a module also waits for the cluster.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: As in Calico's manifest, without an init container that would hide the fault, and with a Felix
#: that takes as long to end as a busy one does.
STUCK = Settings(grace_seconds=0, init_seconds=0, ignore_term=True)
_TRIES = 5
_NODE = "n1"


def test_without_a_finalizer_two_felixes_run_at_once(
    cluster: RealCluster, calico_node: CalicoNode
) -> None:
    calico_node.create(STUCK)
    with FelixWatch(cluster.nodes.values()) as watch:
        for _try in range(_TRIES):
            old = calico_node.ready_pod(_NODE)
            calico_node.delete_pod(old)
            watch.wait_ended(uid_of(old))
            calico_node.wait_ready()
            if watch.most > 1:
                break
    assert watch.most == 2, str(watch)
    assert watch.seconds_of_overlap() > 0.1, str(watch)


def test_with_a_finalizer_the_successor_waits_for_the_containers(
    cluster: RealCluster, calico_node: CalicoNode
) -> None:
    calico_node.create(STUCK)
    old = calico_node.ready_pod(_NODE)
    with FelixWatch(cluster.nodes.values()) as watch:
        calico_node.set_finalizers(old, [FINALIZER])
        calico_node.delete_pod(old)
        new = calico_node.successor(old)
        assert not watch.alive(uid_of(old)), str(watch)
        deleted = calico_node.pod(uid_of(old))
        assert deleted is not None  # both exist
        assert deleted["metadata"]["finalizers"] == [FINALIZER]
        assert terminates(deleted)
        assert finished(deleted), deleted["status"]
        assert _containers_ended(deleted), deleted["status"]
        watch.wait_started(uid_of(new))
        time.sleep(1)  # nothing else is to come
    assert watch.most == 1, str(watch)
    assert [change.sign for change in watch.changes] == ["+", "-", "+"], str(watch)


def test_the_deleted_pod_is_removed_with_its_finalizer(
    cluster: RealCluster, calico_node: CalicoNode
) -> None:
    calico_node.create(STUCK)
    old = calico_node.ready_pod(_NODE)
    calico_node.set_finalizers(old, [FINALIZER])
    calico_node.delete_pod(old)
    new = calico_node.successor(old)
    assert calico_node.pod(uid_of(old)) is not None
    calico_node.set_finalizers(old, [])
    calico_node.wait_gone(old, 10)
    calico_node.wait_ready()
    assert [uid_of(pod) for pod in calico_node.pods()] == [uid_of(new)]


def _containers_ended(pod: Mapping[str, Any]) -> bool:
    statuses = pod["status"]["containerStatuses"]
    return bool(statuses) and all("terminated" in each["state"] for each in statuses)
