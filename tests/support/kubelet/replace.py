# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's replacement of calico-node on a node, as a call and as a process to be killed.

As a process: ``replace KUBECONFIG NODE``. It prints ``begin`` and then each line of progress.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.api import Object
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.connection import connect
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.session import Session
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.calico_node_pod import (
    CalicoNodePod,
    PodOptions,
)

_say = partial(print, flush=True)


def calico_node_pod(kubeconfig: Path, node: str, timeout: float = 60.0) -> CalicoNodePod:
    kube = connect({"kubeconfig": str(kubeconfig)}, _say, patience=20)
    return CalicoNodePod(Session(kube, _say), PodOptions(node, timeout=timeout, poll=0.2))


def replace(kubeconfig: Path, node: str, timeout: float = 60.0) -> Object:
    """:raises DataplaneError: it does not succeed within ``timeout`` seconds for each step."""
    return calico_node_pod(kubeconfig, node, timeout).replace(check=False)


if __name__ == "__main__":
    pod = calico_node_pod(Path(sys.argv[1]), sys.argv[2])
    _say("begin")
    _say(pod.replace(check=False))
