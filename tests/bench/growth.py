# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What qdisc_consistency costs on nodes of two sizes: time, and memory of the module's process.

    python tests/bench/growth.py [ROUNDS]

Needs root. Half of the endpoints are drifted. The module runs as a process of its own, as Ansible
starts it on a node, with the node's Python, and looks into program arrays. What it waits for
(settle) is cut to nothing, the second looks are not. The CPU time from the module's first line to
its last is compared: it waits for nothing but the kernel, which works on its account, and the time
of day would count what else the machine does. Beside it stands by how much the audit's floor grows,
which makes the same system calls and does nothing else: the kernel itself is not linear, as it
finds an interface in a table of 256 chains.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.bench import measures
from ansible_collections.dataplane.calico_bpf.tests.bench.node import Node, new_node
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import (
    CHECKOUT,
    NODE_PYTHON,
    compile_programs,
    end_on_signals,
    private_mounts,
)

FEW, MANY = 1_000, 10_000
ROUNDS = 5
#: By how much ten times the endpoints may cost more.
MOST_TIMES = 11
MOST_MB = 100
FLOOR = "audit floor with arrays"
STATES = {"audit": "audited", "repair": "consistent"}
#: Starts the module as Ansible's wrapper does, with its options as stdin. (The memory that wait4
#: reports of a child includes its parent's until exec.)
_START = """
import sys, time
sys.path.extend(sys.argv[2:])
from ansible.module_utils import basic
basic._ANSIBLE_ARGS, basic._ANSIBLE_PROFILE = sys.argv[1].encode(), "legacy"
from ansible_collections.dataplane.calico_bpf.plugins.modules import qdisc_consistency
start = time.process_time()
try:
    qdisc_consistency.main()
finally:
    peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")][0].split()[1]
    print(time.process_time() - start, peak, file=sys.stderr)
"""


@dataclass(frozen=True)
class Cost:
    #: CPU seconds without the process's start, and milliseconds that the module reports.
    cpu: float
    elapsed_ms: float
    megabytes: float
    output_megabytes: float


def run_module(node: Node, drifted: int, state: str) -> Cost:
    """:raises RuntimeError: it did not do its work, so its time is meaningless."""
    options = {"netns": node.lab.netns, "settle": 0.001, "state": state}
    given = json.dumps({"ANSIBLE_MODULE_ARGS": options})
    paths = [str(CHECKOUT / ".build/collections"), *(p for p in sys.path if "site-packages" in p)]
    words = [NODE_PYTHON, "-c", _START, given, *paths]
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    result: dict[str, Any] = json.loads(done.stdout)
    verdict = "repaired" if state == "consistent" else "drifted"
    if done.returncode or result["summary"]["verdicts"][verdict] != drifted:
        raise RuntimeError(f"{words}: {json.dumps(result.get('summary', result))}")
    cpu, peak_kib = done.stderr.split()[-2:]
    return Cost(float(cpu), result["elapsed_ms"], int(peak_kib) / 1024, len(done.stdout) / 1e6)


def measure(rounds: int, folder: Path) -> tuple[dict[tuple[str, int], list[Cost]], float]:
    """The costs by what is done and to how many; and by how much the floor grows."""
    costs: dict[tuple[str, int], list[Cost]] = {(n, s): [] for n in STATES for s in (FEW, MANY)}
    floors = measures.compile_floors(folder)
    clocks = {size: measures.Clock() for size in (FEW, MANY)}
    with ExitStack() as stack:
        nodes = {size: stack.enter_context(new_node(folder, size)) for size in (FEW, MANY)}
        for count in range(rounds):
            for size, node in nodes.items():
                clocks[size].round = count
                measures.floor_with_arrays(clocks[size], node, floors)
                node.mismatch(size // 2)
                for name, state in STATES.items():
                    costs[name, size].append(run_module(node, size // 2, state))
    few, many = (min(clocks[size].seconds[FLOOR].values()) for size in (FEW, MANY))
    return costs, many / few


def _least_cpu(costs: list[Cost]) -> float:
    """The least of several rounds: other load of the machine only adds to it."""
    return min(cost.cpu for cost in costs)


def main() -> int:
    rounds = int(sys.argv[1]) if sys.argv[1:] else ROUNDS
    end_on_signals()
    private_mounts()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        compile_programs(folder)
        costs, floor = measure(rounds, folder)
    print(f"{'':30}{'CPU s':>10}{'elapsed ms':>12}{'max RSS MB':>12}{'output MB':>12}")
    for (name, size), of in costs.items():
        shown = f"{name}, {size:,} endpoints"
        least = (_least_cpu(of), min(c.elapsed_ms for c in of))
        most = (max(c.megabytes for c in of), of[0].output_megabytes)
        print(f"{shown:30}{least[0]:10.2f}{least[1]:12,.0f}{most[0]:12.1f}{most[1]:12.1f}")
    good = True
    for name in STATES:
        times = _least_cpu(costs[name, MANY]) / _least_cpu(costs[name, FEW])
        megabytes = max(c.megabytes for c in costs[name, MANY])
        good &= times <= MOST_TIMES and megabytes <= MOST_MB
        print(f"{name}: {times:.2f} times (<= {MOST_TIMES}), {megabytes:.0f} MB (<= {MOST_MB})")
    print(f"audit floor: {floor:.2f} times")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
