# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout in a test: runs the real playbooks on a lab, and reads the state that they leave."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.releases import (
    reports_terminal_phase,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.serving import serving
from ansible_collections.dataplane.calico_bpf.tests.support.lab.lab_cluster import (
    LabCluster,
    Playbook,
    lab_cluster,
)

#: The target: the first release that replaces and compares, and that loads on every kernel.
FIXED = "v3.29.7"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/calico-bpf-rollout"
DAEMON_SET = "/apis/apps/v1/namespaces/kube-system/daemonsets/calico-node"
#: The finalizer of a pod that is being replaced.
FINALIZER = "dataplane.calico-bpf/felix-must-be-gone"
#: Seconds between Felix's retries in the lab; everything that waits for them is shortened, too.
RETRY = 1.0
QUICK: dict[str, Any] = {
    "calico_bpf_soak": 0,
    "calico_bpf_lease_duration": 8,
    "qdisc_parity_settle": 0.3,
    "verify_window": 2.5 * RETRY,
    "reattach_patience": 30,
    "reattach_timeout": 30,
    "drain_timeout": 120,
    "node_upgrade_felix_timeout": 20,
}


@contextmanager
def new_rollout(api: str, **lab: Any) -> Iterator[Rollout]:
    """A new lab with its own API; ``api`` is the name of the API in ``APIS``."""
    with serving(api) as served, lab_cluster(served, **{"retry": RETRY, **lab}) as cluster:
        yield Rollout(cluster)


@dataclass(frozen=True)
class Rollout:
    """The operations of a test on a lab, and the state of the lab."""

    cluster: LabCluster

    def upgrade(self, *args: str, version: str = FIXED, **extra: Any) -> tuple[int, str]:
        return self.start(*args, version=version, **extra).wait()

    def start(self, *args: str, version: str = FIXED, **extra: Any) -> Playbook:
        reports = {"calico_bpf_report_dir": str(self.reports)}
        wanted = {**QUICK, **reports, "calico_bpf_version": version, **extra}
        return self.cluster.start_playbook("upgrade.yml", wanted, *args)

    def rollback(self, *args: str, **extra: Any) -> tuple[int, str]:
        return self.start_rollback(*args, **extra).wait()

    def start_rollback(self, *args: str, **extra: Any) -> Playbook:
        reports = {"calico_bpf_report_dir": str(self.reports)}
        return self.cluster.start_playbook("rollback.yml", {**QUICK, **reports, **extra}, *args)

    # --- the state of the lab -----------------------------------------------------------------

    @property
    def reports(self) -> Path:
        return self.cluster.folder / "reports"

    def report(self) -> dict[str, Any]:
        """The report of the latest run."""
        latest = max(self.reports.iterdir(), key=lambda folder: folder.stat().st_mtime_ns)
        assert (latest / "report.html").read_text().startswith("<!DOCTYPE html>")
        report: dict[str, Any] = json.loads((latest / "report.json").read_text())
        return report

    def states(self) -> dict[str, str]:
        """The state of each node in that report."""
        return {node["name"]: node["state"] for node in self.report()["nodes"]}

    def versions(self) -> dict[str, str]:
        """The version of each node's calico-node; "none" for a node without one."""
        return {name: self._version(name) for name in self.cluster.nodes}

    def _version(self, node: str) -> str:
        pod = self.cluster.calico_node(node)
        return pod["spec"]["containers"][0]["image"].rpartition(":")[2] if pod else "none"

    def finalizers(self, node: str) -> list[str]:
        """The finalizers of a node's calico-node pods."""
        pods = self.cluster.pods("kube-system")
        here = (pod["metadata"] for pod in pods if pod["spec"].get("nodeName") == node)
        return [each for metadata in here for each in metadata.get("finalizers", ())]

    @property
    def replaces_terminal(self) -> bool:
        """Whether a pod that has ended is replaced although a finalizer keeps it."""
        return reports_terminal_phase(self.cluster.kubelet.release)

    def cordoned(self) -> set[str]:
        nodes = self.cluster.client.do("GET", "/api/v1/nodes")["items"]
        return {n["metadata"]["name"] for n in nodes if n.get("spec", {}).get("unschedulable")}

    def strategy(self) -> str:
        daemonset = self.cluster.client.do("GET", DAEMON_SET)
        return str(daemonset["spec"]["updateStrategy"]["type"])

    def broken(self) -> dict[str, set[str]]:
        """By node, the endpoints whose hooks do not have one filter each in the same slot."""
        found = {name: self._broken(name) for name, n in self.cluster.nodes.items() if n.alive}
        return {name: broken for name, broken in found.items() if broken}

    def _broken(self, node: str) -> set[str]:
        lab_node = self.cluster.node(node)
        return {name for name in lab_node.agents() if not in_step(lab_node.filters(name))}

    def programs(self) -> dict[tuple[str, str], list[int]]:
        """By node and interface, the programs at both hooks of each endpoint that a drain keeps."""
        return {
            (name, interface): [f.program_id for hook in hooks.values() for f in hook]
            for name, node in self.cluster.nodes.items()
            for interface in node.agents()
            for hooks in (node.filters(interface),)
        }

    def holder(self) -> str:
        """The holder of the Lease if it is not expired, else ""."""
        answer = self.cluster.client.ask("GET", LEASE)
        if answer.code == 404:
            return ""
        spec = answer.body["spec"]
        if not spec.get("holderIdentity"):
            return ""
        renewed = datetime.fromisoformat(spec["renewTime"].replace("Z", "+00:00"))
        age = (datetime.now(timezone.utc) - renewed).total_seconds()
        return str(spec["holderIdentity"]) if age < spec["leaseDurationSeconds"] else ""

    def await_free_lease(self) -> None:
        self.cluster.wait(lambda: not self.holder(), "the Lease is free", 30)

    def seen(self, playbook: Playbook, text: str, seconds: float = 120) -> None:
        """Wait until the output of a running playbook contains ``text``."""
        deadline = time.monotonic() + seconds
        while text not in playbook.log.read_text():
            ended = playbook.process.poll() is not None
            assert not ended, f"it ended without {text!r}:\n{playbook.log.read_text()}"
            assert time.monotonic() < deadline, f"{text!r} not in:\n{playbook.log.read_text()}"
            time.sleep(0.05)

    # --- what must hold -----------------------------------------------------------------------

    def must_be_complete(self, version: str = FIXED) -> None:
        """Assert that all nodes are upgraded and uncordoned, and the Lease is released."""
        assert set(self.versions().values()) == {version}
        assert self.cluster.rolled_out()
        assert not self.broken()
        assert not self.cluster.dirty()
        assert not self.cordoned()
        assert self.strategy() == "RollingUpdate"
        assert not self.holder()


def in_step(hooks: Mapping[str, Any]) -> bool:
    slots = [[f.slot for f in hook] for hook in hooks.values()]
    return slots[0] == slots[1] and len(slots[0]) == 1
