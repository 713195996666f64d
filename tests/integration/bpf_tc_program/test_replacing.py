# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replacing a program, by TC and by TCX: what is replaced, and what stays as it was."""

from __future__ import annotations

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
    filter_events,
)
from ansible_collections.dataplane.calico_bpf.tests.support.tc.held import held
from ansible_collections.dataplane.calico_bpf.tests.support.tc.tcx import (
    attach_without_link,
    programs,
)


def test_replacing_is_one_step_and_keeps_the_handle(module_lab: Lab, tmp_path: Path) -> None:
    """The kernel reports one filter replaced and none deleted, so the hook was never bare."""
    lab, interface = module_lab, endpoint(module_lab)
    lab.attach(interface, "ingress", 3)
    lab.attach(interface, "ingress", 1, priority=100, variant="foreign", name="cil_from_container")
    before = held(lab, interface)
    with filter_events(lab, tmp_path) as events:
        result = lab.module(
            MODULE, interface=interface, hook="ingress", object=str(lab.objects / "deny.o")
        )
    after = held(lab, interface)
    assert result["changed"], result
    assert result["attachment"]["before"]["program_id"] == before.ingress[1].program_id
    assert after.ingress[0] == before.ingress[0]
    assert after.ingress[1].slot == before.ingress[1].slot == (49152, 3)
    assert after.ingress[1].program_id != before.ingress[1].program_id
    assert len(after.ingress) == 2
    (event,) = events
    assert "deleted" not in event
    assert "handle 0x3" in event


def test_a_program_already_attached_is_found_by_tag_or_id(module_lab: Lab) -> None:
    """By tag if it is loaded, by id if it runs already; both need direct-action."""
    lab = module_lab
    by_tag, by_id, by_pin, inert = (endpoint(lab) for _unused in range(4))
    for interface in (by_tag, by_id, by_pin):
        lab.attach(interface, "egress", 2)
    lab.attach(inert, "egress", 2, direct_action=False)
    twin = lab.pin()  # the same instructions, another program
    allow: Options = {"object": str(lab.objects / "allow.o")}
    sources: dict[str, Options] = {
        by_tag: allow,
        by_id: {"program_id": program_id(twin)},
        by_pin: {"pinned": twin},
        inert: allow,
    }
    before = {i: held(lab, i) for i in sources}
    results = lab.modules(
        MODULE, {i: {"interface": i, "hook": "egress", **source} for i, source in sources.items()}
    )
    after = {i: held(lab, i) for i in sources}
    assert {i: r["changed"] for i, r in results.items()} == {
        by_tag: False, by_id: True, by_pin: True, inert: True
    }  # fmt: skip
    assert after[by_tag] == before[by_tag]
    for interface in (by_id, by_pin):
        assert [f.program_id for f in after[interface].egress] == [program_id(twin)]
    assert [(f.slot, f.direct_action) for f in after[inert].egress] == [((49152, 2), True)]


def test_a_name_finds_its_own_filter(module_lab: Lab) -> None:
    """Under a name of the caller's: attached at handle 1, then replaced wherever it is."""
    lab, fresh, moved = module_lab, endpoint(module_lab), endpoint(module_lab)
    lab.attach(moved, "ingress", 7, priority=10, variant="foreign", name="mine")
    lab.attach(moved, "ingress", 1, priority=10, variant="foreign", name="other")
    other = lab.filters(moved, "ingress")[0]
    place: Options = {"hook": "ingress", "name": "mine", "priority": 10}
    deny: Options = {**place, "object": str(lab.objects / "deny.o")}
    results = lab.modules(MODULE, {i: {"interface": i, **deny} for i in (fresh, moved)})
    assert [r["changed"] for r in results.values()] == [True, True]
    assert [(f.slot, f.name) for f in lab.filters(fresh, "ingress")] == [((10, 1), "mine")]
    (kept,) = [f for f in lab.filters(moved, "ingress") if f.name != "mine"]
    (mine,) = [f for f in lab.filters(moved, "ingress") if f.name == "mine"]
    assert kept == other
    assert mine.slot == (10, 7)


def test_a_handle_of_the_callers_is_taken_literally(module_lab: Lab) -> None:
    lab, interface = module_lab, endpoint(module_lab)
    lab.attach(interface, "ingress", 1)
    old = lab.filters(interface, "ingress")[0]
    options: Options = {"interface": interface, "hook": "ingress", "handle": 5}
    result = lab.module(MODULE, **options, object=str(lab.objects / "deny.o"))
    assert result["changed"], result
    assert result["attachment"]["before"] is None
    new, behind = lab.filters(interface, "ingress")
    assert (new.slot, behind) == ((49152, 5), old)


def test_a_missing_clsact_is_made(module_lab: Lab) -> None:
    """In check mode it is only foreseen."""
    lab, interface = module_lab, endpoint(module_lab, clsact=False)
    options: Options = {
        "interface": interface,
        "hook": "egress",
        "object": str(lab.objects / "deny.o"),
    }
    bare = held(lab, interface)
    assert "clsact" not in bare.qdiscs
    assert lab.module(MODULE, check=True, **options)["changed"]
    assert held(lab, interface) == bare
    assert lab.module(MODULE, **options)["changed"]
    done = held(lab, interface)
    assert "clsact" in done.qdiscs
    assert [f.slot for f in done.egress] == [(49152, 1)]
    assert not done.ingress


def test_tcx_is_replaced_in_place_among_foreign_programs(module_lab: Lab, compiled: Path) -> None:
    """Foreign programs before and behind Calico: same order, same ids, ours replaced."""
    lab, interface = module_lab, endpoint(module_lab)
    pins = [lab.pin(v) for v in ("foreign", "allow", "pass")]
    # The third is Calico's by its program's name, so it must be another name.
    pins[2] = f"{Path(pins[0]).parent}/behind"
    run("bpftool", "prog", "load", str(lab.objects / "foreign.o"), pins[2])
    for pin in pins:
        attach_without_link(lab, interface, "ingress", pin)
    before = programs(lab, interface, "ingress")
    assert [p for p, _unused in before] == [program_id(pin) for pin in pins]
    deny: Options = {"interface": interface, "hook": "ingress", "attach_type": "tcx"}
    deny["object"] = str(lab.objects / "deny.o")
    result = lab.module(MODULE, **deny)
    assert result["changed"], result
    after = programs(lab, interface, "ingress")
    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1] == (result["attachment"]["after"]["program_id"], 0)
    assert after[1] != before[1]
    assert not lab.module(MODULE, **deny)["changed"]
    gone = lab.module(MODULE, state="absent", **{k: v for k, v in deny.items() if k != "object"})
    assert gone["changed"], gone
    assert programs(lab, interface, "ingress") == [before[0], before[2]]
