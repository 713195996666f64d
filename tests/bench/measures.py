# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The measurements: each function does one thing to a node once, and records its times.

Everything of one round runs within seconds of its rivals, so that what disturbs the machine
disturbs all of them alike.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint import argspec
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.audit import (
    AuditMode,
    AuditOptions,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.audit import (
    audit as run_audit,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.judge import judge
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.repair import Repairer
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.netlink import TcSocket
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.snapshot import Reader
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    Attachment,
    Endpoint,
    Hook,
    Judgement,
    Verdict,
)
from ansible_collections.dataplane.calico_bpf.tests.bench.node import GLOBS, Node
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import CHECKOUT, run

HOOKS = (Hook.INGRESS, Hook.EGRESS)
POLICY = argspec.policy({"calico_version": "auto", "attach_type": "auto"})
Judged = list[tuple[Endpoint, Judgement]]


class Clock:
    """The seconds that each thing took, by name and round; ``writes`` likewise, its messages."""

    def __init__(self) -> None:
        self.round = 0
        self.seconds: defaultdict[str, dict[int, float]] = defaultdict(dict)
        self.writes: defaultdict[str, dict[int, int]] = defaultdict(dict)

    def keep(self, name: str, seconds: float) -> None:
        self.seconds[name][self.round] = seconds

    @contextmanager
    def time(self, name: str, share: float = 1) -> Iterator[None]:
        """:param share: the part of the work that is done; the rest is assumed to take as long."""
        gc.collect()  # so that no measurement pays for garbage of another
        start = time.perf_counter()
        yield
        self.keep(name, (time.perf_counter() - start) / share)


class Wrong(Exception):
    """The measured code did not do its work, so its time is meaningless."""


def _require(good: bool, what: str) -> None:
    if not good:
        raise Wrong(what)


# --- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Floors:
    """Compiled C programs: ``filters`` dumps filters only, ``audit`` makes all its calls."""

    filters: Path
    audit: Path


def compile_floors(into: Path) -> Floors:
    floors = Floors(into / "floor", into / "audit_floor")
    for program in (floors.filters, floors.audit):
        source = CHECKOUT / f"tests/bench/{program.name}.c"
        run("gcc", "-O2", "-o", str(program), str(source))
    return floors


def floor(clock: Clock, node: Node, floors: Floors, suffix: str = "") -> None:
    """The floor under readers of filters, and the one under the audit."""
    ifindexes = "\n".join(map(str, node.ifindexes))
    _floor(clock, node, f"floor{suffix}", ifindexes, str(floors.filters))
    _floor(clock, node, f"audit floor{suffix}", "", str(floors.audit), "cali")


def floor_with_arrays(clock: Clock, node: Node, floors: Floors) -> None:
    _floor(clock, node, "audit floor with arrays", "", str(floors.audit), "cali", "arrays")


def _floor(clock: Clock, node: Node, name: str, given: str, *command: str) -> None:
    words = ["nsenter", f"--net=/run/netns/{node.lab.netns}", *command]
    output = subprocess.run(words, input=given, capture_output=True, text=True, check=True).stdout
    nanoseconds, filters = map(int, output.split())
    _require(filters == 2 * len(node), f"the {name} met {filters} filters")
    clock.keep(name, nanoseconds / 1e9)


def filters(clock: Clock, node: Node) -> None:
    found: list[Attachment] = []
    with entered(node.lab.netns), TcSocket() as tc:
        reader = Reader(tc, look_into_programs=False)
        with clock.time("filters"):
            for ifindex in node.ifindexes:
                for hook in HOOKS:
                    found += map(reader.attachment, tc.filters(ifindex, hook))
    _require(len(found) == 2 * len(node), f"our reader met {len(found)} filters")


def audit(clock: Clock, node: Node, name: str, *, into_programs: bool = False) -> Judged:
    """A snapshot of links, qdiscs, filters and TCX, and the verdict on each endpoint."""
    with entered(node.lab.netns), clock.time(name), TcSocket() as tc:
        reader = Reader(tc, look_into_programs=into_programs)
        judged = [(e, judge(e, POLICY)) for e in reader.read(GLOBS).endpoints]
    _require(len(judged) == len(node), f"{name} met {len(judged)} endpoints")
    return judged


def forked_tc(clock: Clock, node: Node, names: tuple[str, ...]) -> None:
    """A sample of the node's interfaces; all of them would take almost a minute."""
    with entered(node.lab.netns), clock.time("forked tc", share=len(names) / len(node)):
        for name in names:
            for hook in HOOKS:
                run("tc", "filter", "show", "dev", name, hook.value)


def bpftool(clock: Clock, node: Node) -> None:
    with entered(node.lab.netns), clock.time("bpftool"):
        output = run("bpftool", "-j", "net", "show")
    _require(output.count('"devname":"cali') == 2 * len(node), "bpftool did not list all filters")


def pyroute2(clock: Clock, node: Node) -> None:
    found = 0
    # IPRoute(netns=...) forks a child that inherits our signal handlers, and ends it by SIGTERM:
    # the child then removes the namespaces on its way out.
    with entered(node.lab.netns), IPRoute() as netlink, clock.time("pyroute2"):
        for ifindex in node.ifindexes:
            for parent in (0xFFFFFFF2, 0xFFFFFFF3):
                output = netlink.get_filters(index=ifindex, parent=parent)
                found += sum(1 for message in output if message["handle"])
    _require(found == 2 * len(node), f"pyroute2 met {found} filters")


# --- repairing ------------------------------------------------------------------------------------


def mismatched(clock: Clock, node: Node, suffix: str = "") -> None:
    """The audit of nothing but mismatched endpoints, and the repair that follows it."""
    node.mismatch()
    judged = audit(clock, node, f"audit of mismatched{suffix}")
    _require(all(len(j.plan) == 2 for _e, j in judged), "not every endpoint was mismatched")
    name = f"repair{suffix}"
    with entered(node.lab.netns), TcSocket() as tc:
        repairer = Repairer(tc, Reader(tc, look_into_programs=False), POLICY)
        with clock.time(name):
            outcomes = [repairer.repair(e, j) for e, j in judged]
    _require(all(o.verdict is Verdict.REPAIRED for o in outcomes), "not all were repaired")
    clock.writes[name][clock.round] = tc.writes


def whole_repair(clock: Clock, node: Node) -> None:
    """From no knowledge to all repaired, like one run of the module without settling."""
    node.mismatch()
    order = AuditOptions(GLOBS, policy=POLICY, mode=AuditMode.REPAIR, settle=0)
    with entered(node.lab.netns), clock.time("audit and repair"), TcSocket() as tc:
        outcomes = run_audit(order, tc, Reader(tc)).outcomes
    _require(all(o.verdict is Verdict.REPAIRED for o in outcomes), "not all were repaired")
    clock.writes["audit and repair"][clock.round] = tc.writes


# --- the module -----------------------------------------------------------------------------------


def module(clock: Clock, node: Node) -> None:
    """The whole module, with the ansible command on a local connection."""
    with clock.time("ansible"):
        output = node.lab.module("qdisc_consistency")
    consistent = output["summary"]["verdicts"]["consistent"]
    _require(consistent == len(node), f"the module called {consistent} endpoints consistent")
    clock.keep("elapsed_ms", output["elapsed_ms"] / 1e3)


_OURS = "ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.commands"
IMPORTS = {
    "nothing": "sys",
    "our module_utils": _OURS,
    "our module_utils, zipped as Ansible ships them": _OURS,
    "ansible.module_utils.basic": "ansible.module_utils.basic",
    "pyroute2": "pyroute2",
}


def payload(into: Path) -> Path:
    """Our module_utils as Ansible ships them: in a zip file of sources, compiled at each run."""
    path = into / "payload.zip"
    root = Path("ansible_collections/dataplane/calico_bpf")
    packages: set[Path] = set()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in CHECKOUT.glob("plugins/module_utils/**/*.py"):
            inside = root / file.relative_to(CHECKOUT)
            archive.write(file, inside)
            packages.update(inside.parents[:-1])
        for package in packages:
            archive.writestr(str(package / "__init__.py"), "")
    return path


def imports(clock: Clock, zipped: Path) -> None:
    """A Python that imports one thing and ends."""
    paths = {"our module_utils, zipped as Ansible ships them": zipped}
    for name, what in IMPORTS.items():
        path = str(paths.get(name, CHECKOUT / ".build/collections"))
        with clock.time(f"import: {name}"):
            subprocess.run(
                [sys.executable, "-c", f"import {what}"],
                check=True,
                env={**os.environ, "PYTHONPATH": path},
            )
