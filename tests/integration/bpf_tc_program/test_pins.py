# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pins of programs and links: how they are made, kept, swapped and removed."""

from __future__ import annotations

import json
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import (
    Lab,
    run,
)
from ansible_collections.dataplane.calico_bpf.tests.support.tc.bpf_tc_program import (
    MODULE,
    Options,
    endpoint,
)
from ansible_collections.dataplane.calico_bpf.tests.support.tc.bpftool import program_id
from ansible_collections.dataplane.calico_bpf.tests.support.tc.events import (
    renames_and_deletes,
    wait_until,
)
from ansible_collections.dataplane.calico_bpf.tests.support.tc.held import held
from ansible_collections.dataplane.calico_bpf.tests.support.tc.pins import (
    make_pins,
)
from ansible_collections.dataplane.calico_bpf.tests.support.tc.tcx import (
    programs,
)


def test_a_tc_pin_holds_the_program_and_is_swapped_at_once(module_lab: Lab, pins: Path) -> None:
    """First pinned, then kept by a second run, then replaced without a moment without one."""
    lab, interface, pin = module_lab, endpoint(module_lab), pins / "mine"
    place: Options = {"interface": interface, "hook": "ingress", "pin": str(pin)}
    allow: Options = {**place, "object": str(lab.objects / "allow.o")}

    def attached() -> int:
        return lab.filters(interface, "ingress")[0].program_id

    predicted = lab.module(MODULE, check=True, **allow)
    assert predicted["changed"]
    assert not pin.exists()
    assert lab.module(MODULE, **allow)["changed"]
    assert program_id(str(pin)) == attached()
    with renames_and_deletes(pins) as seen:
        first = program_id(str(pin))
        assert not lab.module(MODULE, **allow)["changed"]
        assert program_id(str(pin)) == attached() == first
        assert lab.module(MODULE, **{**place, "object": str(lab.objects / "deny.o")})["changed"]
        # Read before the watch ends: an event for the test's own eyes.
        assert program_id(str(pin)) == attached() != first
    assert ("moved to", "mine") in seen
    assert ("deleted", "mine") not in seen
    assert [p.name for p in pins.iterdir()] == ["mine"]


def test_a_tc_pin_that_is_gone_is_made_again(module_lab: Lab, pins: Path) -> None:
    """Nothing is attached again; the pin holds the attached program."""
    lab, interface, pin = module_lab, endpoint(module_lab), pins / "mine"
    options: Options = {
        "interface": interface,
        "hook": "ingress",
        "object": str(lab.objects / "allow.o"),
    }
    assert lab.module(MODULE, **options)["changed"]
    before = held(lab, interface)
    result = lab.module(MODULE, **options, pin=str(pin))
    assert result["changed"], result
    assert held(lab, interface) == before
    assert program_id(str(pin)) == before.ingress[0].program_id


def test_pins_beside_the_one_named_stay(module_lab: Lab, compiled: Path, pins: Path) -> None:
    """With any name, and for any way in which the new pin replaces it."""
    lab, interface = module_lab, endpoint(module_lab)
    make_pins(compiled, pins)
    (pins / "map").rename(pins / "mine_new")
    (pins / "express").rename(pins / "mine_old")
    options: Options = {"interface": interface, "hook": "ingress", "pin": str(pins / "mine")}
    before = run("bpftool", "map", "show", "pinned", str(pins / "mine_new"))
    lab.module(MODULE, **options, object=str(lab.objects / "allow.o"))
    assert sorted(p.name for p in pins.iterdir()) == ["mine", "mine_new", "mine_old"]
    assert run("bpftool", "map", "show", "pinned", str(pins / "mine_new")) == before


def test_a_pin_that_cannot_be_made_leaves_the_hook_alone(module_lab: Lab, pins: Path) -> None:
    """No such folder, or no bpffs there: nothing may be attached then, and check mode says so."""
    lab = module_lab
    cases = {}
    for attach_type in ("tc", "tcx"):
        for name, pin in {"nowhere": pins / "no/such", "tmpfs": Path("/dev/shm/pin")}.items():
            interface = endpoint(lab)
            lab.attach(interface, "ingress", 1)
            cases[f"{attach_type}-{name}"] = {
                "interface": interface, "hook": "ingress", "attach_type": attach_type,
                "pin": str(pin), "object": str(lab.objects / "deny.o"),
            }  # fmt: skip
    before = {case: held(lab, options["interface"]) for case, options in cases.items()}
    results = lab.modules(MODULE, cases)
    after = {case: held(lab, options["interface"]) for case, options in cases.items()}
    assert {case: bool(r.get("failed")) for case, r in results.items()} == dict.fromkeys(
        cases, True
    )
    assert after == before
    predicted = lab.modules(MODULE, cases, check=True)
    assert [case for case, r in predicted.items() if not r.get("failed")] == []


def test_a_tcx_pin_holds_the_link(module_lab: Lab, pins: Path) -> None:
    """The program goes with the link's pin; a swap keeps link and pin."""
    lab, interface, pin = module_lab, endpoint(module_lab), pins / "link"
    place: Options = {
        "interface": interface,
        "hook": "egress",
        "attach_type": "tcx",
        "pin": str(pin),
    }
    allow: Options = {**place, "object": str(lab.objects / "allow.o")}

    def pinned_link() -> int:
        return int(json.loads(run("bpftool", "-j", "link", "show", "pinned", str(pin)))["id"])

    result = lab.module(MODULE, **allow)
    assert result["changed"], result
    ((first, link),) = programs(lab, interface, "egress")
    assert link == pinned_link()
    assert result["attachment"]["after"]["link_id"] == link
    assert not lab.module(MODULE, **allow)["changed"]
    assert lab.module(MODULE, **{**place, "object": str(lab.objects / "deny.o")})["changed"]
    ((second, same_link),) = programs(lab, interface, "egress")
    assert (second != first, same_link) == (True, link)
    pin.unlink()
    wait_until(lambda: not programs(lab, interface, "egress"))


def test_a_tcx_link_is_removed_with_its_pin(module_lab: Lab, pins: Path) -> None:
    """A pin that stayed behind would be dead, and in the way of the next link."""
    lab, interface, pin = module_lab, endpoint(module_lab), pins / "link"
    place: Options = {
        "interface": interface,
        "hook": "egress",
        "attach_type": "tcx",
        "pin": str(pin),
    }
    allow: Options = {**place, "object": str(lab.objects / "allow.o")}
    assert lab.module(MODULE, **allow)["changed"]
    gone = lab.module(MODULE, state="absent", **place)
    assert gone["changed"], gone
    assert programs(lab, interface, "egress") == []
    assert not pin.exists()
    assert lab.module(MODULE, **allow)["changed"]
    assert len(programs(lab, interface, "egress")) == 1


def test_a_tcx_program_without_a_link_cannot_be_pinned_in_silence(
    module_lab: Lab, pins: Path
) -> None:
    """Each task has its pin in the end, or fails with the reason."""
    lab, interface, pin = module_lab, endpoint(module_lab), pins / "link"
    place: Options = {"interface": interface, "hook": "egress", "attach_type": "tcx"}
    allow: Options = {**place, "object": str(lab.objects / "allow.o")}
    assert lab.module(MODULE, **allow)["changed"]
    before = programs(lab, interface, "egress")
    result = lab.module(MODULE, **allow, pin=str(pin))
    assert result.get("failed") or pin.exists(), result
    if result.get("failed"):
        assert programs(lab, interface, "egress") == before
