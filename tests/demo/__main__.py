# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""See Calico upgraded node by node on the running kernel, with traffic that nothing may disturb.

    python tests/demo

Needs root. Builds labs of nodes in namespaces, with a Kubernetes API of their own, which go at the
end, as they do when it is interrupted; the rollout's report stays under .build/demo. Exit code 1:
something was not as promised.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.demo.stage import Promises, heading, show
from ansible_collections.dataplane.calico_bpf.tests.demo.traffic import Count, Traffic, traffic
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.embedded import embedded_api
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import ready
from ansible_collections.dataplane.calico_bpf.tests.support.lab.lab_cluster import (
    LabCluster,
    Playbook,
    lab_cluster,
)
from ansible_collections.dataplane.calico_bpf.tests.support.lab.rollout import (
    FIXED,
    Rollout,
    in_step,
)
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import (
    CHECKOUT,
    end_on_signals,
)

FROM = "v3.28.1"
NODES = 3
REPORTS = CHECKOUT / ".build/demo"
#: Everything else is as in production: Felix's retry of 10 s and the 12 s that a node is watched.
VARIABLES = {"calico_bpf_soak": 10, "calico_bpf_report_dir": str(REPORTS)}
#: How many failures of Felix count as permanent.
FAILURES = 3
#: What Ansible itself says of a task that went well.
_ROUTINE = re.compile(r"(TASK|PLAY)\b|(ok|changed|skipping|included): |[ }\]]|\S+ +: ok=|$")


def plain_restart(promises: Promises) -> None:
    """What the rollout is there to avoid, on a node of its own."""
    with embedded_api() as api, lab_cluster(api, 1, FROM, 2) as cluster:
        (node,) = cluster.nodes
        (broken,) = cluster.seed_mismatch(node)
        start = time.time()
        cluster.set_version(FIXED)
        for count in range(1, FAILURES + 1):
            failed = partial(_failure, cluster, node, broken, count)
            at, line = cluster.wait(failed, f"Felix fails at {broken}", 60)
            print(f"  {at - start:4.0f} s  {line}", flush=True)
        pod = cluster.calico_node(node)
        promises.require(pod is not None and not ready(pod), "its calico-node is not Ready")
        promises.require(broken in Rollout(cluster).broken().get(node, ()), f"{broken} stays so")


def _failure(
    cluster: LabCluster, node: str, interface: str, count: int
) -> tuple[float, str] | None:
    """The time and text of the new Felix's line about its so manieth failure at an endpoint."""
    pod = cluster.calico_node(node)
    if pod is None or not pod["spec"]["containers"][0]["image"].endswith(FIXED):
        return None
    log = cluster.kubelet.timed_log("kube-system", pod["metadata"]["name"])
    lines = [line for line in log if "leaving it dirty" in line[1] and interface in line[1]]
    if len(lines) < count:
        return None
    at, line = lines[count - 1]
    return at, line[line.index("Failed") : line.index(" wepID=")]


# --- the rollout ----------------------------------------------------------------------------------


def break_one_of_each(cluster: LabCluster, promises: Promises) -> None:
    hooks = ("egress", "ingress", "egress")
    for node, hook in zip(cluster.nodes, hooks, strict=True):
        cluster.seed_mismatch(node, hook=hook)
    show_endpoints(cluster)
    broken = Rollout(cluster).broken()
    promises.require([len(b) for b in broken.values()] == [1] * NODES, "one is broken on each node")


def show_endpoints(cluster: LabCluster) -> None:
    lines: list[tuple[str, ...]] = [("node", "interface", "ingress", "egress", "")]
    for name, node in cluster.nodes.items():
        for interface in node.agents():
            hooks = node.filters(interface)
            slots = [" ".join(f"{p}:{h}" for p, h in (f.slot for f in at)) for at in hooks.values()]
            lines.append((name, interface, *slots, "" if in_step(hooks) else "out of step"))
    show(lines)


def upgrade(cluster: LabCluster, promises: Promises) -> dict[str, Any]:
    """The real playbook; its report."""
    before = set(REPORTS.glob("*"))
    playbook = cluster.start_playbook("upgrade.yml", {"calico_bpf_version": FIXED, **VARIABLES})
    for seconds, line in _progress(playbook):
        print(f"  {seconds:4.0f} s  {line}", flush=True)
    code, _said = playbook.wait()
    promises.require(code == 0, f"the playbook succeeds (it ended with {code})")
    made = set(REPORTS.glob("*")) - before
    promises.require(len(made) == 1, f"one report is written (there are {len(made)})")
    if not made:
        return {}
    (folder,) = made
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    totals = report["totals"]
    print(f"  report     {folder.relative_to(CHECKOUT)}/report.html")
    print(f"  verdict    {report['verdict']}: {report['message']}")
    print(f"  endpoints  {totals['found']} out of step, {totals['repaired']} repaired in place")
    promises.require(report["verdict"] == "completed", "the report calls it completed")
    found = (totals["found"], totals["repaired"], totals["left"])
    promises.require(found == (NODES, NODES, 0), "the report tells what was repaired, and no more")
    return report


def _progress(playbook: Playbook) -> Iterator[tuple[float, str]]:
    """What is worth a line, as it is said; the seconds since it began."""
    start = time.monotonic()
    with playbook.log.open() as log:
        while True:
            running = playbook.process.poll() is None
            while line := log.readline():
                if not _ROUTINE.match(line):
                    yield time.monotonic() - start, line.rstrip()
            if not running:
                return
            time.sleep(0.1)


def see_what_is_left(cluster: LabCluster, promises: Promises) -> None:
    rollout = Rollout(cluster)
    show_endpoints(cluster)
    require = promises.require
    require(set(rollout.versions().values()) == {FIXED}, f"every node runs {FIXED}")
    require(cluster.rolled_out(), "every calico-node is Ready")
    require(not rollout.broken(), "no endpoint is out of step")
    require(not cluster.dirty(), "no Felix leaves an endpoint dirty")
    require(not rollout.cordoned(), "no node is left cordoned")
    require(rollout.strategy() == "RollingUpdate", "the DaemonSet has its strategy back")
    require(not rollout.holder(), "the Lease is free")


def count_packets(flowing: list[Traffic], promises: Promises) -> None:
    counts = [count for each in flowing for count in each.end()]
    titles = ("node", "from", "to", "sent", "received", "lost", "doubled", "bypassed")
    show([titles, *map(_cells, counts)])
    for each in flowing:
        promises.require(each.programs.complete, "every program was seen while it was attached")
    for count in counts:
        promises.require(count.sent > 0, f"packets flow from {count.sender}")
    for what in ("lost", "doubled", "bypassed"):
        total = sum(abs(getattr(count, what)) for count in counts)
        promises.require(total == 0, f"no packet is {what}")


def _cells(c: Count) -> tuple[str, ...]:
    numbers = (c.sent, c.received, c.lost, c.doubled, c.bypassed)
    return c.node, c.sender, c.receiver, *(f"{number:,}" for number in numbers)


def play(promises: Promises) -> None:
    heading(1, f"A plain rolling restart, on a node of its own: {FROM} to {FIXED}, one endpoint")
    print("   with one hook re-attached once more than the other. Felix never finds that again:")
    plain_restart(promises)
    heading(2, f"{NODES} nodes with {FROM}, each with such an endpoint. Between the pods, numbered")
    print("   UDP packets flow both ways. 49152:1 is a filter at priority 49152, handle 1:")
    with ExitStack() as stack:
        api = stack.enter_context(embedded_api())
        cluster = stack.enter_context(lab_cluster(api, NODES, FROM, 2))
        break_one_of_each(cluster, promises)
        nodes = cluster.nodes.values()
        flowing = [stack.enter_context(traffic(node, cluster.folder)) for node in nodes]
        heading(3, f"ansible-playbook playbooks/upgrade.yml -e calico_bpf_version={FIXED}")
        upgrade(cluster, promises)
        heading(4, "What is left:")
        see_what_is_left(cluster, promises)
        heading(
            5, "The packets during this (bypassed: not met by Calico's programs at both hooks):"
        )
        count_packets(flowing, promises)


def main() -> int:
    if os.geteuid():
        print("the demo needs root: its nodes are namespaces", file=sys.stderr)
        return 1
    start = time.monotonic()
    end_on_signals()
    promises = Promises()
    play(promises)
    verdict = "NOT AS PROMISED" if promises.broken else "All as promised"
    left = f"but {REPORTS.relative_to(CHECKOUT)}"
    print(f"\n{verdict}, in {time.monotonic() - start:.0f} s; all that was built is gone, {left}.")
    return 1 if promises.broken else 0


if __name__ == "__main__":
    sys.exit(main())
