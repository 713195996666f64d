# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""state=absent: what it removes, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import (
    Lab,
)
from ansible_collections.dataplane.calico_bpf.tests.support.tc.bpf_tc_program import (
    MODULE,
    Options,
    endpoint,
)
from ansible_collections.dataplane.calico_bpf.tests.support.tc.events import (
    filter_events,
)
from ansible_collections.dataplane.calico_bpf.tests.support.tc.held import Held, held
from ansible_collections.dataplane.calico_bpf.tests.support.tc.pins import (
    make_pins,
)


def test_absent(module_lab: Lab, tmp_path: Path) -> None:
    """By name, by handle, and Calico's by default; foreign filters and clsact stay."""
    lab = module_lab
    cases: dict[str, Options] = {}
    wanted: dict[str, Options] = {
        "calico": {},
        "handle": {"handle": 2},
        "name": {"name": "mine", "priority": 100},
        "nothing": {"priority": 7},
        "only-foreign": {"priority": 100},
    }
    for case, options in wanted.items():
        interface = endpoint(lab)
        lab.attach(interface, "ingress", 1, priority=100, variant="foreign", name="cilium")
        lab.attach(interface, "ingress", 2, priority=100, variant="foreign", name="mine")
        lab.attach(interface, "ingress", 2)
        if case == "handle":
            lab.attach(interface, "ingress", 3)
        cases[case] = {"interface": interface, "hook": "ingress", "state": "absent", **options}

    def all_held() -> dict[str, Held]:
        return {case: held(lab, options["interface"]) for case, options in cases.items()}

    before = all_held()
    predicted = lab.modules(MODULE, cases, check=True, diff=True)
    assert all_held() == before
    with filter_events(lab, tmp_path) as events:
        results = lab.modules(MODULE, cases, diff=True)
    after = all_held()
    again = lab.modules(MODULE, cases)
    assert predicted == results
    assert {case: r["changed"] for case, r in results.items()} == {
        "calico": True, "handle": True, "name": True, "nothing": False, "only-foreign": False
    }  # fmt: skip
    assert not any(r["changed"] for r in again.values())
    assert all_held() == after
    gone = {
        case: [f.slot for f in before[case].ingress if f not in after[case].ingress]
        for case in cases
    }
    assert gone == {
        "calico": [(49152, 2)], "handle": [(49152, 2)], "name": [(100, 2)], "nothing": [],
        "only-foreign": [],
    }  # fmt: skip
    for case, state in after.items():
        assert state.qdiscs == before[case].qdiscs
        assert [f for f in before[case].ingress if f in state.ingress] == list(state.ingress)
        result = results[case]["attachment"]
        assert result["after"] is None
        assert (result["before"] is not None) == bool(gone[case])
    assert len(events) == 3
    assert all(event.startswith("deleted") for event in events)


def test_absent_keeps_another_owners_pin(module_lab: Lab, compiled: Path, pins: Path) -> None:
    """Only the pin of what is detached goes; a map's or another program's is none of ours."""
    lab, interface = module_lab, endpoint(module_lab)
    lab.attach(interface, "ingress", 1)
    make_pins(compiled, pins)
    before = held(lab, interface)
    cases: dict[str, Options] = {
        name: {
            "interface": interface, "hook": "ingress", "state": "absent", "pin": str(pins / name),
        }
        for name in ("express", "map")
    }  # fmt: skip
    cases["map-tcx"] = {**cases["map"], "attach_type": "tcx"}
    results = lab.modules(MODULE, cases)
    assert sorted(p.name for p in pins.iterdir()) == ["express", "map"]
    assert {case: bool(r.get("failed")) for case, r in results.items()} == dict.fromkeys(
        cases, True
    ), results
    assert held(lab, interface) == before
