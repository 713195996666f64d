# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's replacement of calico-node under a real kubelet and DaemonSet controller.

What must hold: two Felixes never run, a replacement that can succeed never fails, and a run that
was killed is completed by the next one.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import DataplaneError
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.annotations import FINALIZER
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet import replace as program
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.daemonset import (
    NEW,
    OLD,
    CalicoNode,
    Settings,
    uid_of,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.felix_watch import FelixWatch
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.real_cluster import RealCluster
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.replace import (
    calico_node_pod,
    replace,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.waiting import wait_until
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import terminates
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import run_module

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NODE = "n1"
STUCK = Settings(ignore_term=True)
#: Of each case in a row: 8 cases, 24 replacements.
ROUNDS = 3
CASES = [
    Settings(grace_seconds=grace, init_seconds=init, ignore_term=ignore)
    for grace, init, ignore in itertools.product((0, 5), (0, 2), (False, True))
]


def name_of_case(settings: Settings) -> str:
    term = "ignores-TERM" if settings.ignore_term else "ends-by-TERM"
    return f"grace-{settings.grace_seconds}-init-{settings.init_seconds}-{term}"


@pytest.fixture(autouse=True)
def _remembered(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """kubernetes.core's cache of an API is removed with the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def watch(cluster: RealCluster) -> Iterator[FelixWatch]:
    """Watches the whole test; fails if two Felix processes ran at once."""
    with FelixWatch(cluster.nodes.values()) as watching:
        yield watching
    assert watching.most == 1, str(watching)


def replaces(cluster: RealCluster, calico_node: CalicoNode, version: str) -> None:
    """One replacement, and a second run that changes nothing."""
    old = calico_node.ready_pod(NODE)
    calico_node.set_version(version)
    result = replace(cluster.api.kubeconfig, NODE)
    assert (result["changed"], result["replaced"]) == (True, True)
    assert result["former"]["uid"] == uid_of(old)
    assert result["pod"]["images"]["calico-node"].endswith(f":{version}")
    completes(cluster, calico_node, uid_of(old))


def completes(cluster: RealCluster, calico_node: CalicoNode, former: str) -> None:
    """The successor becomes Ready with the only Felix, and nothing is left over."""
    ready = calico_node_pod(cluster.api.kubeconfig, NODE).wait_ready(check=False)
    # With a grace period the kubelet removes the old pod from the API a moment later.
    wait_until(lambda: calico_node.pod(former) is None, "the old pod is gone")
    (pod,) = calico_node.pods(NODE)
    assert ready["pod"]["uid"] == uid_of(pod)
    assert not pod["metadata"].get("finalizers")
    assert replace(cluster.api.kubeconfig, NODE)["changed"] is False
    seen = felix_info(cluster, former)
    assert seen["exited_pod_processes"] == []
    assert [felix["pod_uid"] for felix in seen["felix"]] == [uid_of(pod)]


def felix_info(cluster: RealCluster, pod_uid: str) -> dict[str, Any]:
    """What the module reads on the node."""
    prefix = tuple(cluster.nodes[NODE].words())
    return run_module("felix_info", {"exited_pod_uid": pod_uid}, prefix=prefix)


@pytest.mark.parametrize("settings", CASES, ids=name_of_case)
def test_a_pod_is_replaced(
    settings: Settings, cluster: RealCluster, calico_node: CalicoNode, watch: FelixWatch
) -> None:
    calico_node.create(settings)
    for _round, version in zip(range(ROUNDS), itertools.cycle((NEW, OLD))):
        replaces(cluster, calico_node, version)


@pytest.mark.parametrize("init_seconds", [0, 2])
@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.3, 0.6, 1.0, 2.0, 2.5, 3.0])
def test_a_killed_run_is_completed(
    seconds: float,
    init_seconds: int,
    cluster: RealCluster,
    calico_node: CalicoNode,
    watch: FelixWatch,
) -> None:
    """Killed so many seconds after it began; a Felix that ignores TERM takes about two to end."""
    calico_node.create(Settings(ignore_term=True, init_seconds=init_seconds))
    old = calico_node.ready_pod(NODE)
    calico_node.set_version()
    words = [sys.executable, "-m", program.__name__, str(cluster.api.kubeconfig), NODE]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment["TMPDIR"] = tempfile.gettempdir()
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout
        assert run.stdout.readline() == "begin\n"
        time.sleep(seconds)
        run.kill()
    time.sleep(1)  # what it started still ends
    replace(cluster.api.kubeconfig, NODE)
    completes(cluster, calico_node, uid_of(old))


def test_a_dead_kubelet(cluster: RealCluster, calico_node: CalicoNode, watch: FelixWatch) -> None:
    """The pod is left unchanged, its Felix keeps running alone, and a later run resumes."""
    calico_node.create(STUCK)
    old, node = calico_node.ready_pod(NODE), cluster.nodes[NODE]
    calico_node.set_version()
    node.stop_kubelet()
    try:
        must_not_end(cluster, calico_node, uid_of(old))
    finally:
        node.start_kubelet()
    resumes(cluster, calico_node, uid_of(old))


def test_a_dead_container_runtime(
    cluster: RealCluster, calico_node: CalicoNode, watch: FelixWatch
) -> None:
    calico_node.create(STUCK)
    old, node = calico_node.ready_pod(NODE), cluster.nodes[NODE]
    calico_node.set_version()
    node.kill_containerd()
    try:
        must_not_end(cluster, calico_node, uid_of(old))
    finally:
        node.start_containerd()
    resumes(cluster, calico_node, uid_of(old))


def must_not_end(cluster: RealCluster, calico_node: CalicoNode, uid: str) -> None:
    with pytest.raises(DataplaneError, match="the kubelet has not reported within 5 s") as raised:
        replace(cluster.api.kubeconfig, NODE, timeout=5)
    assert raised.value.facts["former_ended"] is False
    assert raised.value.facts["former"]["uid"] == uid
    (pod,) = calico_node.pods(NODE)
    assert (uid_of(pod), pod["metadata"]["finalizers"]) == (uid, [FINALIZER])
    assert terminates(pod)
    seen = felix_info(cluster, uid)
    assert [felix["pod_uid"] for felix in seen["felix"]] == [uid]
    assert "calico-node" in [process["name"] for process in seen["exited_pod_processes"]]


def resumes(cluster: RealCluster, calico_node: CalicoNode, former: str) -> None:
    result = replace(cluster.api.kubeconfig, NODE)
    assert (result["replaced"], result["former"]["uid"]) == (True, former)
    completes(cluster, calico_node, former)


def test_a_missing_image(cluster: RealCluster, calico_node: CalicoNode, watch: FelixWatch) -> None:
    """The successor does not become Ready; then the former version is restored."""
    calico_node.create(STUCK)
    calico_node.set_version("v0.0.0")
    result = replace(cluster.api.kubeconfig, NODE)
    assert result["replaced"]
    with pytest.raises(DataplaneError, match="is Pending and not Ready within 3 s") as raised:
        calico_node_pod(cluster.api.kubeconfig, NODE, timeout=3).wait_ready(check=False)
    assert "ErrImageNeverPull" in raised.value.facts["containers"]["calico-node"]
    replaces_a_pod_that_never_ran(cluster, calico_node, result["pod"]["uid"])


def replaces_a_pod_that_never_ran(
    cluster: RealCluster, calico_node: CalicoNode, former: str
) -> None:
    calico_node.set_version(OLD)
    result = replace(cluster.api.kubeconfig, NODE)
    assert (result["replaced"], result["former"]["uid"]) == (True, former)
    completes(cluster, calico_node, former)
