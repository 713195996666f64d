# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is killed is dead: its processes end with it, and it asks the API nothing more."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.embedded import EmbeddedApi
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import terminates
from ansible_collections.dataplane.calico_bpf.tests.support.lab.lab_cluster import Playbook
from ansible_collections.dataplane.calico_bpf.tests.support.lab.rollout import (
    FIXED,
    LEASE,
    Rollout,
    new_rollout,
)

pytestmark = pytest.mark.timeout(900)

OLD = "v3.28.1"
#: Seconds within which a worker ends, and those for a busy machine.
ENDS, BUSY = 2.0, 1.0
#: Seconds after that in which a worker that lived on would ask the API again: it polls each second,
#: and renews the Lease after a third of its 8 s; the Lease is taken over after 8 s.
WATCHED = 9.0
#: How the client of kubernetes.core names itself.
CLIENT = "OpenAPI-Generator"


def test_nothing_of_a_killed_run_lives_on() -> None:
    """Killed where it waits for the Lease, for evicted pods, for the old calico-node, and soaks."""
    with new_rollout("embedded", nodes=2, endpoints=1, version=OLD) as lab:
        with a_dead_holder(lab):
            killed(lab, lambda run: lab.seen(run, "waiting to see whether it is renewed"))
            assert lab.cluster.client.do("GET", LEASE)["spec"]["holderIdentity"] == "dead"

        lab.cluster.kubelet.paused.set()
        killed(lab, lambda run: lab.seen(run, "worker-1: waiting for 1 pod to go: demo/web-"))
        lab.cluster.kubelet.paused.clear()

        node = lab.cluster.node("worker-1")
        node.faults.linger = 3600
        killed(lab, lambda run: lab.seen(run, "worker-1: waiting until the containers of"))
        assert [p for p in lab.cluster.pods("kube-system") if terminates(p)]
        node.faults.linger = 0

        soak = "Lease kube-system/calico-bpf-rollout is kept for 300 s"
        killed(lab, lambda run: lab.seen(run, soak), calico_bpf_soak=300)
        assert lab.versions() == {"worker-1": FIXED, "worker-2": OLD}

        code, output = lab.upgrade()
        assert code == 0, output
        lab.must_be_complete()


@contextmanager
def a_dead_holder(lab: Rollout) -> Iterator[None]:
    """The Lease is another run's, which no longer renews it."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": "dead", "leaseDurationSeconds": 8, "leaseTransitions": 1}
    body = {"metadata": {"name": LEASE.rpartition("/")[2]}, "spec": {**spec, "renewTime": now}}
    lab.cluster.client.do("POST", LEASE.rpartition("/")[0], body)
    yield
    lab.cluster.client.do("DELETE", LEASE)


def killed(lab: Rollout, wait: Callable[[Playbook], None], **extra: Any) -> None:
    """Start a run, wait for a moment in it, and kill it: nothing of it is left after that."""
    run = lab.start(**extra)
    wait(run)
    assert len(processes(lab)) > 1, "a worker waits"
    run.process.send_signal(signal.SIGKILL)  # the run alone
    run.process.wait()
    ended = time.monotonic()
    while (left := processes(lab)) and time.monotonic() < ended + ENDS + BUSY:
        time.sleep(0.02)
    gone = time.monotonic()
    assert not left
    time.sleep(WATCHED)
    api = lab.cluster.api
    assert isinstance(api, EmbeddedApi)
    by_runs = [each for each in api.asked if each.agent.startswith(CLIENT)]
    assert by_runs, "the client is known"
    assert [each for each in by_runs if each.at > gone] == []


def processes(lab: Rollout) -> list[str]:
    """The command lines of what runs for a playbook of this lab: each inherits the environment."""
    mark = f"ANSIBLE_INVENTORY={lab.cluster.inventory}".encode()
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (each / "environ").read_bytes().split(b"\0"):
                found.append((each / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except (OSError, ProcessLookupError):
            continue
    return found
