# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Preambles whose targets are missing: attached as they should be, but packets are dropped.

That packets are dropped, or pass, is read from the kernel's own counters. With ``CALICO_SOURCES``,
a clone of github.com/projectcalico/calico, the same is asked of Calico's own preambles.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.felix import preamble
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab, run

HOOKS = ("ingress", "egress")
MAIN, POLICY, ICMP = 0, 1, 3
#: Indices that Felix gave the programs of this test.
PROGRAM, POLICY_PROGRAM = 7, 12
WHOLE = {MAIN: PROGRAM, POLICY: POLICY_PROGRAM, ICMP: PROGRAM}
RELEASES = ["", *(preamble.LAYOUTS if os.environ.get(preamble.SOURCES) else ())]
_FRAMES = 20
#: Sends frames of IPv4 from one end of a veth pair. A drop at egress is ENOBUFS for the sender.
_SEND = """
import errno, socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((sys.argv[1], 0))
for _ in range(int(sys.argv[2])):
    try:
        s.send(bytes(range(12)) + b"\\x08\\x00" + bytes(60))
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
"""


@dataclass
class Node:
    """A lab whose preambles share program arrays, as those of one node do."""

    lab: Lab
    release: str
    pins: Path
    main: str

    def array(self, prefix: str) -> Path:
        """The program array whose name begins so."""
        (found,) = (p for p in self.pins.iterdir() if p.name.startswith(prefix))
        return found

    def attach(
        self,
        interface: str,
        hook: str,
        *jumps: Mapping[int, int],
        name: str = "",
        priority: int = 49152,
    ) -> str:
        """Attach a preamble with ``jumps``; ``name`` is another interface's in its constants."""
        layout = preamble.LAYOUTS.get(self.release, preamble.V3_28)
        values = preamble.constants(layout, name or interface, *jumps)
        compiled = preamble.compile_preamble(self.release, self.lab.objects)
        pin = str(preamble.load(compiled, values, self.pins))
        return self.lab.attach(interface, hook, 1, priority=priority, pin=pin)

    def endpoint(
        self, interface: str, ingress: Mapping[int, int], egress: Mapping[int, int]
    ) -> str:
        self.lab.endpoint(interface)
        self.attach(interface, "ingress", ingress)
        self.attach(interface, "egress", egress)
        return interface

    def lost(self, interface: str, hook: str) -> int:
        """How many of the frames that are sent through a hook its programs drop."""
        sender = interface if hook == "egress" else f"p{interface[-14:]}"
        before = self._dropped(interface)
        self.lab.exec(sys.executable, "-c", _SEND, sender, str(_FRAMES))
        return self._dropped(interface) - before

    def _dropped(self, interface: str) -> int:
        shown = json.loads(self.lab.tc("-s", "-json", "qdisc", "show", "dev", interface))
        (clsact,) = (q for q in shown if q["kind"] == "clsact")
        return int(clsact["drops"])

    def audit(self, interface: str, **options: Any) -> dict[str, Any]:
        return self.lab.module(
            "qdisc_consistency", interfaces=[interface], state="audited",
            **{"settle": 0, "verbose_endpoints": True, **options},
        )  # fmt: skip


@pytest.fixture(params=RELEASES, ids=lambda release: release or "tests")
def node(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Node]:
    pins = Path(f"/sys/fs/bpf/{lab.netns}")
    pins.mkdir()
    try:
        made = Node(lab, request.param, pins, lab.pin())
        compiled = preamble.compile_preamble(made.release, lab.objects)
        layout = preamble.LAYOUTS.get(made.release, preamble.V3_28)
        preamble.load(compiled, preamble.constants(layout, "cali0"), pins)  # makes the arrays
        preamble.fill(made.array("cali_progs"), PROGRAM, made.main)
        preamble.fill(made.array("cali_jump"), POLICY_PROGRAM, made.main)
        yield made
    finally:
        shutil.rmtree(pins)


def findings(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(f["code"], f["hook"], f["severity"]) for f in result["endpoints"][0]["findings"]]


def message(result: dict[str, Any]) -> str:
    return str(result["endpoints"][0]["findings"][0]["message"])


def test_all_targets_are_loaded(node: Node) -> None:
    interface = node.endpoint("cali1", WHOLE, WHOLE)
    audited = node.audit(interface, fail_on_drift=True)
    assert findings(audited) == []
    assert (audited["not_judged"], audited.get("failed")) == ([], None)
    assert [node.lost(interface, hook) for hook in HOOKS] == [0, 0]


def test_the_main_program_of_one_direction_is_missing(node: Node) -> None:
    """3.31.7 and 3.32.1 with a program that fails to load: ready, no dirty endpoint."""
    interface = node.endpoint("cali1", WHOLE, {**WHOLE, MAIN: 8})
    audited = node.audit(interface)
    assert findings(audited) == [("missing_jump_target", "egress", "drift")]
    array = node.array("cali_progs").name
    assert f"is not loaded (index 8 of {array} (map " in message(audited)
    assert "EVERY PACKET IS DROPPED at this hook" in message(audited)
    assert [node.lost(interface, hook) for hook in HOOKS] == [0, _FRAMES]


def test_a_preamble_without_any_main_program(node: Node) -> None:
    interface = node.endpoint("cali1", {}, WHOLE)
    audited = node.audit(interface)
    assert findings(audited) == [("missing_jump_target", "ingress", "drift")]
    assert "neither for IPv4 nor for IPv6" in message(audited)
    assert [node.lost(interface, hook) for hook in HOOKS] == [_FRAMES, 0]


@pytest.mark.parametrize(("interface", "severity"), [("cali1", "drift"), ("eth1", "notice")])
def test_a_missing_policy_program(node: Node, interface: str, severity: str) -> None:
    """A host interface without policy has none; it then has only Calico's own rules."""
    node.endpoint(interface, WHOLE, {**WHOLE, POLICY: POLICY_PROGRAM + 1})
    assert findings(node.audit(interface)) == [("missing_jump_target", "egress", severity)]


def test_a_missing_sub_program(node: Node) -> None:
    node.endpoint("cali1", WHOLE, {**WHOLE, ICMP: 9})
    audited = node.audit("cali1")
    assert findings(audited) == [("missing_jump_target", "egress", "drift")]
    assert "the packets that need it ARE DROPPED" in message(audited)


def test_ipv6_is_judged_where_it_is_used(node: Node) -> None:
    if preamble.LAYOUTS.get(node.release) == preamble.V3_27:
        pytest.skip("3.27 has a preamble for each IP version")
    node.lab.endpoint("cali1")
    node.attach("cali1", "ingress", WHOLE, WHOLE)
    node.attach("cali1", "egress", WHOLE, {**WHOLE, MAIN: 8})
    assert findings(node.audit("cali1")) == [("missing_jump_target", "egress", "drift")]


def test_an_array_that_was_emptied(node: Node) -> None:
    """As calico #6739 describes it."""
    node.endpoint("cali1", WHOLE, WHOLE)
    key = [str(byte) for byte in struct.pack("=I", PROGRAM)]
    run("bpftool", "map", "delete", "pinned", str(node.array("cali_progs")), "key", *key)
    assert findings(node.audit("cali1")) == [
        ("empty_prog_array", "ingress", "drift"),
        ("empty_prog_array", "egress", "drift"),
    ]
    assert node.lost("cali1", "ingress") == _FRAMES


def test_constants_of_another_layout_are_not_judged(node: Node) -> None:
    """Here those of another interface. What is not known never counts as healthy."""
    node.lab.endpoint("cali1")
    for hook in HOOKS:
        node.attach("cali1", hook, WHOLE, name="cali2")
    audited = node.audit("cali1", fail_on_drift=True)
    assert findings(audited) == []
    assert audited["failed"]
    (reason,) = audited["not_judged"]
    assert reason.startswith("could not read jump targets (2 programs with Calico's name")
    assert reason in audited["msg"]
    accepted = node.audit("cali1", fail_on_drift=True, jump_targets=False)
    assert (accepted["not_judged"], accepted.get("failed")) == ([], None)


def test_a_newest_program_that_cannot_run_is_not_put_in_the_place_of_one_that_can(
    node: Node,
) -> None:
    """The older program runs first and lets packets pass; a repair would keep the newest."""
    node.endpoint("cali1", WHOLE, WHOLE)
    node.attach("cali1", "egress", {**WHOLE, MAIN: 8}, priority=49153)
    before = node.lab.filters("cali1", "egress")
    assert node.lost("cali1", "egress") == 0
    repaired = node.lab.module("qdisc_consistency", interfaces=["cali1"], settle=0)
    (endpoint,) = repaired["endpoints"]
    assert (endpoint["verdict"], endpoint["plan"], repaired["changed"]) == ("drifted", [], False)
    assert any("NOT REPAIRED" in f["message"] for f in endpoint["findings"])
    assert node.lab.filters("cali1", "egress") == before
    assert node.lost("cali1", "egress") == 0
