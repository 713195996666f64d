# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the tests with real kubelets. They need root, and Kubernetes from build.sh."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.kubelet import programs
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.daemonset import CalicoNode
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.real_cluster import (
    RealCluster,
    real_cluster,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.waiting import wait_until
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client


@pytest.fixture(scope="session")
def kubernetes() -> Path:
    """The folder with the programs, which CI must have."""
    found = programs.find_programs()
    if found is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing(programs.NOT_FOUND)
    return found


@pytest.fixture(scope="module")
def cluster(kubernetes: Path) -> Iterator[RealCluster]:
    """A cluster with one node."""
    with real_cluster() as started:
        yield started


@pytest.fixture
def calico_node(cluster: RealCluster) -> Iterator[CalicoNode]:
    """The DaemonSet, which the test creates; it is removed with its pods and processes."""
    daemonset = CalicoNode(Client(cluster.api))
    yield daemonset
    daemonset.delete()
    nodes = cluster.nodes.values()  # a pod without grace leaves the API before its processes end
    wait_until(lambda: not any(node.pod_processes() for node in nodes), "no pod has a process")
