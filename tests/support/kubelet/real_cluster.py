# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Kubernetes cluster of this machine's own: a real control plane, and nodes with real kubelets.

The nodes are namespaces of this machine, so all of it needs root. No network plugin is there: only
pods in their node's own network run, as calico-node does.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.tests.support.kubelet import leftovers
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.control_plane import (
    ControlPlane,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.image import write_archive
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.network import Network
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.node import Node
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.programs import (
    NOT_FOUND,
    find_programs,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.waiting import wait_until
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.api import Api
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import conditions

#: Stand-ins for these releases of calico/node are on each node.
VERSIONS = ("v3.28.1", "v3.29.7")
_PATIENCE = 90.0


@dataclass(frozen=True)
class RealCluster:
    """A cluster that runs: the API as its administrator, and the nodes n1, n2 and so on."""

    api: Api
    nodes: Mapping[str, Node]
    #: Its files, the logs of all servers among them.
    folder: Path


@contextmanager
def real_cluster(nodes: int = 1) -> Iterator[RealCluster]:
    """A cluster whose nodes are Ready.

    Nothing of it is left when it is left, or when this thread ends, however that happens.

    :raises FileNotFoundError: Kubernetes is not built.
    :raises RuntimeError: a server does not become ready; with the end of its log.
    :raises TimeoutError: a node does not become Ready.
    """
    programs = find_programs()
    if programs is None:
        raise FileNotFoundError(NOT_FOUND)
    prefix = f"calico-bpf-lab-{secrets.token_hex(4)}-"
    with _temporary_folder(prefix) as folder, ExitStack() as stack:
        yield _build(programs, folder, prefix, stack, nodes)


@contextmanager
def _temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder that another process removes, with the cgroups, even if this one is killed."""
    folder = tempfile.mkdtemp(prefix="calico-bpf-kubelet-")
    remover = subprocess.Popen(
        [sys.executable, "-m", leftovers.__name__, folder, prefix],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,  # a ctrl-C is for the tests
    )
    try:
        yield Path(folder)
    finally:
        remover.communicate()
        if remover.returncode:
            raise RuntimeError(f"{folder} and cgroups {prefix}* could not be removed")


def _build(programs: Path, folder: Path, prefix: str, stack: ExitStack, count: int) -> RealCluster:
    """Start everything, in an order in which what takes long overlaps."""
    nodes = []
    for number in range(count):
        nodes.append(Node(f"n{number + 1}", folder, prefix, programs))
        stack.callback(nodes[-1].kill)
    names = [node.name for node in nodes]
    network = Network([node.namespaces for node in nodes])
    stack.callback(network.remove)
    for node in nodes:
        node.containerd.begin()
    archive = folder / "images.tar"
    write_archive(archive, programs / "busybox", VERSIONS)
    plane = ControlPlane(programs, folder / "control-plane", network.host, names, stack)
    api = plane.start()
    for index, node in enumerate(nodes):
        node.join(network.address(index), plane.kubeconfig(node.name), archive)
    for node in nodes:
        node.kubelet.wait()
    _wait_for_nodes(Client(api), names)
    return RealCluster(api, {node.name: node for node in nodes}, folder)


def _wait_for_nodes(client: Client, names: Sequence[str]) -> None:
    """Wait until the nodes are Ready and pods of kube-system can be created and mounted.

    :raises TimeoutError: it takes too long.
    """
    wait_until(
        lambda: all(_is_ready(client, name) for name in names), "all nodes are Ready", _PATIENCE
    )
    # Every pod has the account's token and this ConfigMap mounted.
    for path in ("serviceaccounts/default", "configmaps/kube-root-ca.crt"):
        _wait_for(client, f"/api/v1/namespaces/kube-system/{path}")


def _wait_for(client: Client, path: str) -> None:
    wait_until(lambda: client.ask("GET", path).code == 200, f"{path} exists")


def _is_ready(client: Client, node: str) -> bool:
    answer = client.ask("GET", f"/api/v1/nodes/{node}")
    return answer.code == 200 and conditions(answer.body).get("Ready") == "True"
