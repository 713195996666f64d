# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a preflight of a large cluster costs: time, and memory of the process that reads it.

    python tests/bench/preflight.py [NODES:PODS...]

Needs etcd and kube-apiserver (make control-plane), no root. The cluster exists in the API alone;
see large_cluster.py. The process that reads is a fresh Python with what the action imports, and its
peak is the kernel's VmHWM.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.connection import connect
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout import (
    preflight,
    serialize,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.cluster import (
    RolloutSpec,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.read_cluster import (
    missing_permissions,
    read_cluster,
)

SIZES = ("500:15000", "1000:30000", "2000:60000")
#: Megabytes that reading a cluster of so many pods may take.
TARGETS = {30_000: 120}
SPEC = RolloutSpec(version="v3.29.5")


@dataclass(frozen=True)
class Cost:
    seconds: float
    cpu_seconds: float
    peak_mb: float
    #: Before the first call: Python with what the action imports.
    imports_mb: float
    daemonset_pods: int


def read(kubeconfig: str) -> Cost:
    """Do what the action does, and measure it in this process."""
    imports = _peak_mb()
    start, cpu = time.perf_counter(), time.process_time()
    kube = connect({"kubeconfig": kubeconfig})
    if missing_permissions(kube, SPEC):
        raise RuntimeError("the administrator may not do all")
    cluster = read_cluster(kube, SPEC)
    judged = preflight.judge(SPEC, cluster)
    json.dumps(serialize.preflight(judged, cluster, SPEC, 60))
    took, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Cost(took, cpu, _peak_mb(), imports, len(cluster.pods))


def _peak_mb() -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024


def read_apart(kubeconfig: Path) -> Cost:
    """``read`` in its own process, which ends with its client's cache of the API."""
    words = [sys.executable, __file__, "read", str(kubeconfig)]
    environment = {**os.environ, "TMPDIR": str(kubeconfig.parent)}
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=environment)
    return Cost(**json.loads(done.stdout))


def main() -> int:
    if sys.argv[1:2] == ["read"]:
        print(json.dumps(vars(read(sys.argv[2]))))
        return 0
    # Not in the process that is measured.
    from ansible_collections.dataplane.calico_bpf.tests.bench.large_cluster import large_cluster
    from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import end_on_signals

    end_on_signals()
    sizes = [tuple(map(int, size.split(":"))) for size in sys.argv[1:] or SIZES]
    reached = True
    titles = ("nodes", "pods", "s", "CPU s", "max RSS MB", "imports MB")
    print("".join(f"{title:>12}" for title in titles), flush=True)
    with large_cluster() as cluster:
        for nodes, pods in sizes:
            cluster.fill(nodes, pods)
            cost = read_apart(cluster.kubeconfig)
            if cost.daemonset_pods != nodes:
                raise RuntimeError(f"{cost.daemonset_pods} pods of the DaemonSet were read")
            numbers = (cost.seconds, cost.cpu_seconds, cost.peak_mb, cost.imports_mb)
            shown = "".join(f"{number:12.1f}" for number in numbers)
            print(f"{nodes:12,}{pods:12,}{shown}", flush=True)
            reached &= cost.peak_mb <= TARGETS.get(pods, cost.peak_mb)
    print(f"targets {TARGETS}: {'reached' if reached else 'NOT REACHED'}")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
