# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long an audit and a repair take on the running kernel, compared with other readers.

    python tests/bench [ROUNDS]

Needs root; everything is built in namespaces of its own, which go at the end, as they do when it is
interrupted. What is printed is also written to .build/bench.json.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.bench import measures
from ansible_collections.dataplane.calico_bpf.tests.bench.measures import IMPORTS, Clock, Floors
from ansible_collections.dataplane.calico_bpf.tests.bench.node import Node, new_node
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import (
    CHECKOUT,
    compile_programs,
    end_on_signals,
    private_mounts,
)

ENDPOINTS = 1000
#: What the measures of a node of each size are called after.
SIZES = {100: " of 100", ENDPOINTS: "", 4000: " of 4000"}
ROUNDS = 15
#: What takes seconds is measured in every fifth round only.
SLOW = 5
#: Interfaces that ``tc`` is forked for in one such round.
SAMPLE = 20
WITH_ARRAYS = ("audit with arrays", "audit floor with arrays")


@dataclass(frozen=True)
class Row:
    name: str
    median_ms: float
    best_ms: float
    us_per_endpoint: float | None = None
    times_floor: float | None = None
    writes: int | None = None

    def __str__(self) -> str:
        cells = (
            (self.us_per_endpoint, "{:14,.1f}"),
            (self.times_floor, "{:10,.2f}"),
            (self.writes, "{:9,}"),
        )
        shown = "".join(f.format(v) if v is not None else " " * len(f.format(0)) for v, f in cells)
        return f"{self.name:51}{self.median_ms:10,.1f}{self.best_ms:10,.1f}{shown}".rstrip()


HEAD = f"{'':51}{'ms':>10}{'best':>10}{'us/endpoint':>14}{'x floor':>10}{'writes':>9}"


@dataclass(frozen=True)
class Target:
    name: str
    measured: float
    limit: float
    at_least: bool = False

    @property
    def reached(self) -> bool:
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        verdict = "reached" if self.reached else "NOT REACHED"
        return f"{self.name:51}{self.measured:10,.2f}   {sign} {self.limit:<7g} {verdict}"


@dataclass(frozen=True)
class Report:
    clock: Clock

    def ratio(self, name: str, to: str) -> float:
        """The median of the ratios within each round that has both."""
        these, those = self.clock.seconds[name], self.clock.seconds[to]
        return median(these[r] / those[r] for r in these.keys() & those.keys())

    def row(
        self, shown: str, name: str, count: int | None = ENDPOINTS, floor: str | None = "floor"
    ) -> Row:
        seconds = self.clock.seconds[name].values()
        ms = median(seconds) * 1e3
        return Row(
            shown,
            ms,
            min(seconds) * 1e3,
            ms * 1e3 / count if count else None,
            self.ratio(name, floor) if floor else None,
            next(iter(self.clock.writes[name].values()), None),
        )

    def reading(self) -> list[Row]:
        return [
            self.row("floor: C, the filter dumps and nothing else", "floor"),
            self.row("our filters, decoded into the model", "filters"),
            self.row("audit floor: C, all of the audit's calls", "audit floor"),
            self.row("our audit: links, qdiscs, filters, TCX, verdicts", "audit"),
            self.row("audit floor, looking into program arrays too", "audit floor with arrays"),
            self.row("our audit, looking into program arrays too", "audit with arrays"),
            self.row("pyroute2, get_filters for each hook", "pyroute2"),
            self.row("bpftool -j net show", "bpftool"),
            self.row(f"tc filter show, forked (from samples of {SAMPLE})", "forked tc"),
        ]

    def repairing(self) -> list[Row]:
        return [
            self.row("audit, with verdicts and plans", "audit of mismatched"),
            self.row("repair: plans carried out, all reads included", "repair"),
            self.row("both in one run, looking into arrays too", "audit and repair"),
        ]

    def growth(self) -> list[Row]:
        return [
            self.row(f"{count:,} endpoints: {shown}", name + suffix, count, f"floor{suffix}")
            for count, suffix in SIZES.items()
            for name, shown in (
                ("floor", "floor"),
                ("audit floor", "audit floor"),
                ("audit of mismatched", "audit, verdicts, plans"),
                ("repair", "repair"),
            )
        ]

    def module(self) -> list[Row]:
        command = "ansible -m dataplane.calico_bpf.qdisc_consistency"
        return [
            self.row(command, "ansible", floor=None),
            self.row("its own elapsed_ms, looking into arrays too", "elapsed_ms"),
            *(self.row(f"import {i}", f"import: {i}", None, None) for i in IMPORTS),
        ]

    def targets(self) -> list[Target]:
        repair, audit = "repair of mismatched / ", "audit of mismatched"
        per_endpoint = [
            writes / count
            for count, suffix in SIZES.items()
            for writes in self.clock.writes[f"repair{suffix}"].values()
        ]
        return [
            Target("our filters / floor", self.ratio("filters", "floor"), 2),
            Target("our audit / audit floor", self.ratio("audit", "audit floor"), 2),
            Target("our audit / the same, with arrays", self.ratio(*WITH_ARRAYS), 2),
            Target("forked tc / our audit", self.ratio("forked tc", "audit"), 400, at_least=True),
            Target(repair + "audit of the same", self.ratio("repair", audit), 3),
            Target("most writes for a mismatched endpoint", max(per_endpoint), 2),
            Target("fewest writes for a mismatched endpoint", min(per_endpoint), 2, at_least=True),
        ]


def measure(rounds: int, objects: Path) -> Clock:
    clock = Clock()
    floors = measures.compile_floors(objects)
    zipped = measures.payload(objects)
    with ExitStack() as stack:
        nodes = {n: stack.enter_context(new_node(objects, n)) for n in SIZES}
        node = nodes[ENDPOINTS]
        gc.freeze()  # what stands until here is the bench's own
        for count in range(rounds):
            clock.round = count
            if sys.stderr.isatty():
                print(f"round {count + 1} of {rounds}", end="\r", file=sys.stderr, flush=True)
            measures.floor(clock, node, floors)
            measures.filters(clock, node)
            measures.audit(clock, node, "audit")
            measures.floor_with_arrays(clock, node, floors)
            measures.audit(clock, node, "audit with arrays", into_programs=True)
            measures.mismatched(clock, node)
            measures.whole_repair(clock, node)
            if count % SLOW == 0:
                measures.imports(clock, zipped)
                _slow(clock, nodes, floors, count // SLOW)
    return clock


def _slow(clock: Clock, nodes: dict[int, Node], floors: Floors, turn: int) -> None:
    node = nodes[ENDPOINTS]
    measures.pyroute2(clock, node)
    measures.bpftool(clock, node)
    first = turn * SAMPLE % ENDPOINTS
    measures.forked_tc(clock, node, node.names[first : first + SAMPLE])
    measures.module(clock, node)
    for count, suffix in SIZES.items():
        if count != ENDPOINTS:
            measures.floor(clock, nodes[count], floors, suffix)
            measures.mismatched(clock, nodes[count], suffix)


def show(report: Report, rounds: int) -> None:
    few = len(report.clock.seconds["bpftool"])
    print(
        f"{ENDPOINTS:,} endpoints with {2 * ENDPOINTS:,} filters and as many programs; medians of "
        f"{rounds} interleaved rounds\n({few} for pyroute2, bpftool, tc, growth and the module), "
        f"kernel {os.uname().release}, {os.cpu_count()} CPUs, Python {platform.python_version()}\n"
    )
    tables = {
        "Reading": report.reading(),
        f"Repairing {ENDPOINTS:,} mismatched endpoints": report.repairing(),
        "Growth, all endpoints mismatched": report.growth(),
        "The module, and imports": report.module(),
    }
    for title, rows in tables.items():
        print(title, HEAD[len(title) :], sep="")
        print(*rows, "", sep="\n")
    print("Targets", *report.targets(), sep="\n")


def as_json(report: Report, rounds: int) -> dict[str, Any]:
    rows = report.reading() + report.repairing() + report.growth() + report.module()
    return {
        "kernel": os.uname().release,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "rounds": rounds,
        "rows": [asdict(row) for row in rows],
        "targets": [{**asdict(t), "reached": t.reached} for t in report.targets()],
        "seconds": report.clock.seconds,
    }


def main() -> None:
    rounds = int(sys.argv[1]) if sys.argv[1:] else ROUNDS
    end_on_signals()
    private_mounts()
    with tempfile.TemporaryDirectory() as directory:
        compile_programs(Path(directory))
        report = Report(measure(rounds, Path(directory)))
    show(report, rounds)
    target = CHECKOUT / ".build/bench.json"
    target.write_text(json.dumps(as_json(report, rounds), indent=2))


if __name__ == "__main__":
    main()
