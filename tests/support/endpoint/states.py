# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every state that an endpoint is known to fall into, and the findings that each must give.

The states are built by ``tc`` and libbpf; tests/integration/test_states.py runs the module on them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import Behaviour
from ansible_collections.dataplane.calico_bpf.tests.support.felix import preamble
from ansible_collections.dataplane.calico_bpf.tests.support.felix.libbpf import HOOKS
from ansible_collections.dataplane.calico_bpf.tests.support.netns import lab as labs
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab
from ansible_collections.dataplane.calico_bpf.tests.support.tc import tcx


@dataclass(frozen=True)
class Attached:
    """One filter, as ``Lab.attach`` makes it; later ones are of a later generation."""

    hook: str
    handle: int = 1
    priority: int = 49152
    variant: str = "allow"
    name: str = "cali_tc_preambl"
    protocol: str = "all"
    chain: int = 0
    direct_action: bool = True
    #: Attach the program of this one of the state's filters again.
    program_of: int | None = None


@dataclass(frozen=True)
class Expected:
    """One finding. ``remedy``: words of its message that say what to do.

    A foreign filter at 49152 stays: if it blocks a move it is drift, else a notice.
    """

    code: str
    hook: str | None = None
    severity: str = "drift"
    repairable: bool = False
    remedy: str = ""


def fixed(code: str, hook: str | None = None) -> Expected:
    return Expected(code, hook, repairable=True)


def notice(code: str, hook: str) -> Expected:
    return Expected(code, hook, "notice")


def stays(code: str, hook: str | None, remedy: str) -> Expected:
    return Expected(code, hook, remedy=remedy)


#: How the releases that states name re-attach.
NAMED = {
    "v3.29.1": Behaviour.ADD_THEN_DELETE,
    "v3.29.5": Behaviour.REPLACE_AND_COMPARE,
}


@dataclass(frozen=True)
class State:
    filters: tuple[Attached, ...] = ()
    findings: tuple[Expected, ...] = ()
    #: After the repair.
    verdict: str = "consistent"
    #: Which of the hook's filters of ours, in tc's order, is the program that stays.
    keeps: Mapping[str, int] = field(default_factory=dict)
    qdisc: str = "clsact"
    #: Whether the repair writes.
    changes: bool = False
    #: Builds what ``filters`` cannot.
    extra: Callable[[Lab, str], None] | None = None
    calico_version: str = "auto"

    @property
    def behaviour(self) -> Behaviour | None:
        """That of the release, where one is named."""
        return NAMED.get(self.calico_version)


def ingress(handle: int = 1, **more: Any) -> Attached:
    return Attached("ingress", handle, **more)


def egress(handle: int = 1, **more: Any) -> Attached:
    return Attached("egress", handle, **more)


def repaired(*filters: Attached, findings: tuple[Expected, ...], **more: Any) -> State:
    return State(filters, findings, "repaired", changes=True, **more)


FOREIGN: dict[str, Any] = {"variant": "foreign", "name": "cil_from_container"}
LEGACY: dict[str, Any] = {"variant": "legacy", "name": "calico_from_wor"}
REATTACH = "restart this node's calico-node pod"
ENFORCES_NOTHING = "NO POLICY IS ENFORCED"


def tcx_at(*hooks: str) -> Callable[[Lab, str], None]:
    def build(lab: Lab, interface: str) -> None:
        for hook in hooks:
            tcx.attach(lab, interface, hook, lab.pin("newer"))

    return build


def dead_pin(lab: Lab, interface: str) -> None:
    """The pin of a link whose interface went, and came back under the same name."""
    lab.endpoint(interface)
    tcx.attach(lab, interface, "ingress", lab.pin())
    lab.ip("link", "del", interface)
    lab.endpoint(interface)
    for hook in HOOKS:
        lab.attach(interface, hook, 1)


def jumping(
    lab: Lab, interface: str, ingress: Mapping[int, int], egress: Mapping[int, int]
) -> Path:
    """Preambles that jump; the program array, which holds a program at index 7, as its pin."""
    pins = Path(f"/sys/fs/bpf/{lab.netns}-{interface}")
    pins.mkdir()
    compiled = preamble.compile_preamble("", lab.objects)
    for hook, jumps in (("ingress", ingress), ("egress", egress)):
        values = preamble.constants(preamble.V3_28, interface, jumps)
        lab.attach(interface, hook, 1, pin=str(preamble.load(compiled, values, pins)))
    preamble.fill(pins / "cali_progs3", 7, lab.pin())
    preamble.fill(pins / "cali_jump3", 12, lab.pin())
    return pins / "cali_progs3"


def full_array(lab: Lab, interface: str) -> None:
    jumping(lab, interface, {0: 7, 1: 12}, {0: 7, 1: 12})


def main_missing(lab: Lab, interface: str) -> None:
    jumping(lab, interface, {0: 7, 1: 12}, {0: 8, 1: 12})


def empty_array(lab: Lab, interface: str) -> None:
    """The kernel empties an array in the background when its last pin goes (calico #6739)."""
    array = jumping(lab, interface, {0: 7, 1: 12}, {0: 7, 1: 12})
    number = str(json.loads(labs.run("bpftool", "-j", "map", "show", "pinned", str(array)))["id"])
    array.unlink()
    deadline = time.monotonic() + 20
    while '"value"' in labs.run("bpftool", "-j", "map", "dump", "id", number):
        assert time.monotonic() < deadline, f"program array {number} was not emptied"
        time.sleep(0.01)


def ingress_qdisc(lab: Lab, interface: str) -> None:
    lab.tc("qdisc", "add", "dev", interface, "ingress")
    lab.attach(interface, "ingress", 1, priority=7, **FOREIGN)


STATES: dict[str, State] = {
    # --- as it should be --------------------------------------------------------------------------
    "clean at 1": State((ingress(1), egress(1))),
    "clean at 2": State((ingress(2), egress(2))),
    "named by tc": State((ingress(name="to_pod"), egress(name="to_pod"))),
    "full program array": State(extra=full_array),
    "foreign at 100": State(
        (ingress(3, priority=100, **FOREIGN), ingress(), egress()),
        (notice("foreign_filter_first", "ingress"),),
    ),
    "foreign behind": State((ingress(3, priority=50000, **FOREIGN), ingress(), egress())),
    "TCX both hooks": State(extra=tcx_at(*HOOKS), qdisc="none"),
    # --- out of step ------------------------------------------------------------------------------
    "handles 1 and 2": repaired(ingress(1), egress(2), findings=(fixed("handle_mismatch"),)),
    "handles 2 and 1": repaired(ingress(2), egress(1), findings=(fixed("handle_mismatch"),)),
    "handles 2 and 1, named by tc": repaired(
        ingress(2, name="to_pod"), egress(1, name="to_pod"),
        findings=(fixed("handle_mismatch"),),
    ),
    "priorities 10 and 49152": repaired(
        ingress(priority=10), egress(), findings=(fixed("priority_mismatch"),)
    ),
    "foreign at 100 and handles 1 and 2": repaired(
        ingress(1, priority=100, **FOREIGN), ingress(1), egress(2),
        findings=(notice("foreign_filter_first", "ingress"), fixed("handle_mismatch")),
    ),
    "foreign took 49152": repaired(
        ingress(**FOREIGN), ingress(priority=49151), egress(),
        findings=(fixed("priority_mismatch"), Expected("priority_taken", "ingress")),
    ),
    "foreign shares our priority": repaired(
        ingress(1, **FOREIGN), ingress(2), egress(1),
        findings=(fixed("handle_mismatch"), Expected("priority_taken", "ingress")),
    ),
    # --- too many ---------------------------------------------------------------------------------
    "duplicate one side": repaired(
        ingress(1), ingress(2), egress(1),
        findings=(fixed("duplicate_program", "ingress"), fixed("handle_mismatch")),
    ),
    "duplicate both sides": repaired(
        ingress(1), ingress(2), egress(1), egress(2),
        findings=(fixed("duplicate_program", "ingress"), fixed("duplicate_program", "egress")),
    ),
    "duplicate uneven": repaired(
        ingress(1), ingress(2), ingress(3), egress(1), egress(2),
        findings=(
            fixed("duplicate_program", "ingress"),
            fixed("duplicate_program", "ingress"),
            fixed("duplicate_program", "egress"),
            fixed("handle_mismatch"),
        ),
    ),
    "same program twice": repaired(
        ingress(1), ingress(2, program_of=0), egress(2),
        findings=(fixed("duplicate_program", "ingress"),),
    ),
    "stale program first": repaired(
        ingress(priority=49151), ingress(variant="newer"), egress(variant="newer"),
        findings=(fixed("stale_program", "ingress"),), keeps={"ingress": 1},
    ),
    "legacy beside current": repaired(
        ingress(1, **LEGACY), ingress(2), egress(1, **LEGACY), egress(2),
        findings=(fixed("legacy_program", "ingress"), fixed("legacy_program", "egress")),
    ),
    "legacy only": State(
        (ingress(**LEGACY), egress(**LEGACY)),
        (
            stays("legacy_program", "ingress", "Felix's next pass replaces it"),
            stays("legacy_program", "egress", "Felix's next pass replaces it"),
        ),
        "drifted",
    ),
    # --- attached as Felix never does -------------------------------------------------------------
    "protocol ip": repaired(
        ingress(protocol="ip"), egress(), findings=(fixed("wrong_protocol", "ingress"),)
    ),
    "chain 5": repaired(ingress(), egress(chain=5), findings=(fixed("wrong_chain", "egress"),)),
    "not direct-action": repaired(
        ingress(direct_action=False), egress(),
        findings=(fixed("not_direct_action", "ingress"),),
    ),
    # --- missing ----------------------------------------------------------------------------------
    "one side missing, other at 1": State(
        (ingress(1),), (stays("missing_program", "egress", REATTACH),), "drifted"
    ),
    "one side missing, other at 2": State(
        (egress(2),), (stays("missing_program", "ingress", REATTACH),), "drifted"
    ),
    "one side missing, other at 1, add_then_delete": State(
        (ingress(1),), (stays("missing_program", "egress", REATTACH),), "drifted",
        calico_version="v3.29.1", changes=True,
    ),
    "one side missing, other at 2, add_then_delete": State(
        (egress(2),), (stays("missing_program", "ingress", REATTACH),), "drifted",
        calico_version="v3.29.1",
    ),
    "one side missing, other at 1, replace_and_compare": State(
        (ingress(1),), (stays("missing_program", "egress", REATTACH),), "drifted",
        calico_version="v3.29.5",
    ),
    "one side missing, other at 2, replace_and_compare": State(
        (egress(2),), (stays("missing_program", "ingress", REATTACH),), "drifted",
        calico_version="v3.29.5", changes=True,
    ),
    "both sides missing": State(
        (),
        (
            stays("missing_program", "ingress", REATTACH),
            stays("missing_program", "egress", REATTACH),
        ),
        "drifted",
    ),
    "no clsact": State((), (stays("missing_clsact", None, REATTACH),), "drifted", qdisc="none"),
    "ingress qdisc": State(
        (),
        (
            stays("ingress_qdisc", None, "tc qdisc del dev IFACE ingress"),
            stays("missing_program", "ingress", REATTACH),
            stays("missing_program", "egress", REATTACH),
        ),
        "drifted", qdisc="none", extra=ingress_qdisc,
    ),
    "empty program array": State(
        (),
        (
            stays("empty_prog_array", "ingress", REATTACH),
            stays("empty_prog_array", "egress", REATTACH),
        ),
        "drifted", extra=empty_array,
    ),
    "main program missing": State(
        (),
        (stays("missing_jump_target", "egress", REATTACH),),
        "drifted", extra=main_missing,
    ),
    # --- TCX --------------------------------------------------------------------------------------
    "TCX one hook missing": State(
        (), (stays("missing_program", "egress", REATTACH),), "drifted",
        extra=tcx_at("ingress"), qdisc="none",
    ),
    "TC and TCX": State(
        (ingress(), egress()),
        (
            stays("mixed_attach_types", "ingress", "state=absent, attach_type=tcx"),
            stays("mixed_attach_types", "egress", "state=absent, attach_type=tcx"),
        ),
        "drifted", extra=tcx_at(*HOOKS),
    ),
    "dead TCX pin": repaired(
        findings=(fixed("dead_pin", "ingress"),), extra=dead_pin, qdisc="none"
    ),
    # --- and all at once --------------------------------------------------------------------------
    "many at once": repaired(
        ingress(4, priority=100, **FOREIGN),
        ingress(1, priority=49150, variant="allow"),
        ingress(1, chain=5),
        ingress(3, variant="newer"),
        ingress(5, program_of=3),
        egress(1, **LEGACY),
        egress(2, direct_action=False),
        egress(7, priority=50000, **FOREIGN),
        findings=(
            notice("foreign_filter_first", "ingress"),
            fixed("stale_program", "ingress"),
            fixed("wrong_chain", "ingress"),
            fixed("duplicate_program", "ingress"),
            fixed("duplicate_program", "ingress"),
            fixed("legacy_program", "egress"),
            fixed("not_direct_action", "egress"),
            fixed("handle_mismatch"),
        ),
        keeps={"ingress": 1},
    ),
}  # fmt: skip
