# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollout costs per node, apart from what it waits for, as the cluster grows.

    python tests/bench/rollout.py [NODES...]

Needs root. A whole upgrade.yml for each size, one node after the other, each with a broken
endpoint; the labs go at the end, as they do when it is interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.lab.lab_cluster import Playbook
from ansible_collections.dataplane.calico_bpf.tests.support.lab.rollout import new_rollout
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import (
    CHECKOUT,
    end_on_signals,
)

SIZES = (3, 10, 30)
#: By how much a node may cost more in the largest cluster than in the smallest.
FLAT = 1.5
#: One after the other, and no watching: that is waiting too, of a known length.
VARIABLES: dict[str, Any] = {
    "calico_bpf_batches": [1],
    "verify_window": 0.1,
    "qdisc_parity_settle": 0,
}
OURS = "dataplane.calico_bpf."
#: These wait for pods.
WAITS = {f"{OURS}node_drain", f"{OURS}calico_node_pod"}
ON_NODE = {f"{OURS}felix_info", f"{OURS}qdisc_consistency"}
ON_CONTROLLER = {
    *WAITS,
    f"{OURS}calico_daemonset",
    f"{OURS}maintenance_window",
    f"{OURS}node_cordon",
    f"{OURS}rollout_info",
    f"{OURS}rollout_lease",
    f"{OURS}rollout_phase",
    f"{OURS}rollout_record",
    "kubernetes.core.k8s",
    "kubernetes.core.k8s_info",
}


@dataclass(frozen=True)
class Cost:
    """The costs of an upgrade; per node only in the play that upgrades the nodes."""

    nodes: int
    #: Of the whole playbook, and of that play's nodes on average, in seconds.
    whole: float
    waited: float
    worked: float
    #: CPU seconds of ansible-playbook and its children; other load of the machine does not count.
    cpu: float
    #: How often a module ran, on average for a node.
    on_node: float
    on_controller: float

    @property
    def cells(self) -> tuple[str, ...]:
        seconds = (self.whole, self.waited, self.worked, self.cpu)
        counts = (self.on_node, self.on_controller)
        return (str(self.nodes), *(f"{s:.1f}" for s in seconds), *(f"{c:.1f}" for c in counts))


def cost(nodes: int, cpu: float, lines: Iterable[Mapping[str, Any]]) -> Cost:
    """Read from the records of the callback plugin."""
    lines = list(lines)
    plays = [line for line in lines if "play" in line]
    # The play starts again with each batch.
    start = next(line["at"] for line in plays if line["play"] == "Upgrade")
    end = next(line["at"] for line in plays if line["play"] == "Finish")
    ran = [line for line in lines if "action" in line and start <= line["at"] < end]
    waited = sum(line["end"] - line["at"] for line in ran if line["action"] in WAITS)
    return Cost(
        nodes,
        plays[-1]["at"] - plays[0]["at"],
        waited / nodes,
        (end - start - waited) / nodes,
        cpu / nodes,
        sum(line["action"] in ON_NODE for line in ran) / nodes,
        sum(line["action"] in ON_CONTROLLER for line in ran) / nodes,
    )


def measure(nodes: int) -> Cost:
    """:raises RuntimeError: the upgrade failed, so its time is meaningless."""
    with new_rollout("embedded", nodes=nodes, endpoints=2) as rollout:
        for node in rollout.cluster.nodes:
            rollout.cluster.seed_mismatch(node)
        file = rollout.cluster.folder / "executions"
        os.environ.update(
            ANSIBLE_CALLBACK_PLUGINS=str(CHECKOUT / "tests/bench/callback"),
            ANSIBLE_CALLBACKS_ENABLED="executions",
            EXECUTIONS=str(file),
        )
        cpu = upgrade(rollout.start(**VARIABLES))
        rollout.must_be_complete()
        return cost(nodes, cpu, _lines(file))


def upgrade(running: Playbook) -> float:
    """The CPU time of a run and all that it started, in seconds.

    :raises RuntimeError: it did not end well.
    """
    _pid, status, used = os.wait4(running.process.pid, 0)
    running.process.returncode = os.waitstatus_to_exitcode(status)
    if running.process.returncode:
        raise RuntimeError(f"the upgrade failed:\n{running.log.read_text()[-5000:]}")
    return used.ru_utime + used.ru_stime


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def main() -> None:
    sizes = [int(size) for size in sys.argv[1:]] or SIZES
    end_on_signals()
    print("upgrade.yml, one node after the other; of each node (waited: for its pods):")
    titles = ("nodes", "in all s", "waited s", "worked s", "CPU s", "modules there", "here")
    print("".join(f"{title:>15}" for title in titles), flush=True)
    costs = []
    for size in sizes:
        costs.append(measure(size))
        print("".join(f"{cell:>15}" for cell in costs[-1].cells), flush=True)
    for what, ratio in _growth(costs[0], costs[-1]).items():
        verdict = "flat" if ratio <= FLAT else "NOT FLAT"
        print(f"{what}, {sizes[-1]} nodes / {sizes[0]} nodes: {ratio:.2f} <= {FLAT}: {verdict}")


def _growth(first: Cost, last: Cost) -> dict[str, float]:
    return {
        "worked": last.worked / first.worked,
        "CPU": last.cpu / first.cpu,
        "modules": last.on_node / first.on_node,
    }


if __name__ == "__main__":
    main()
