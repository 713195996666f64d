# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's own Kubernetes API: stateful, in this process, on loopback, there at once.

What it answers is what the real one answers, as far as the lab and the collection ask: the contract
suite runs against both. Controllers for DaemonSets and PodDisruptionBudgets work behind it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.access import Access
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.api import (
    Api,
    write_kubeconfig,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.cluster import Cluster
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.controllers import (
    Controllers,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.faults import Faults
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.releases import (
    CURRENT,
    reports_terminal_phase,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.server import Asked, Server
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.store import Store

#: One folder for each process that has an API, named by its pid.
_RUNS = Path(__file__).resolve().parents[3] / ".build" / "embedded-api"


@dataclass(frozen=True)
class EmbeddedApi(Api):
    """An Api that also does as a test orders, and shows what it was asked last."""

    store: Store
    access: Access
    faults: Faults
    asked: deque[Asked]


@contextmanager
def embedded_api(release: str = CURRENT) -> Iterator[EmbeddedApi]:
    """An API of a Kubernetes release, from nothing to nothing: no process, no file left behind.

    What a killed process could not remove, the next call does.
    """
    _remove_leftovers()
    cluster, access, faults = Cluster(), Access(), Faults()
    token = secrets.token_hex(16)
    server = Server(cluster, access, faults, token, release)
    controllers = Controllers(cluster, replace_terminal=reports_terminal_phase(release))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    folder = _RUNS / str(os.getpid()) / secrets.token_hex(4)
    try:
        folder.mkdir(parents=True)
        kubeconfig = write_kubeconfig(folder / "kubeconfig", server.url, token)
        address = (server.url, token, None, kubeconfig, True)
        yield EmbeddedApi(*address, cluster.store, access, faults, server.asked)
    finally:
        server.stop()
        controllers.join()
        shutil.rmtree(folder, ignore_errors=True)
        _remove_leftovers()


def _remove_leftovers() -> None:
    """Remove the leftovers of dead processes, and unused folders."""
    for each in _RUNS.glob("[0-9]*"):
        if not Path(f"/proc/{each.name}").exists():
            shutil.rmtree(each, ignore_errors=True)
        elif not any(each.iterdir()):
            each.rmdir()
