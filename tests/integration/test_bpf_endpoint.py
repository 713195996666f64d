# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""bpf_endpoint on the running kernel: its three states, in check mode, for real and once more.

What is attached is read with tc and with the kernel's own TCX query.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import (
    CHECKOUT,
    Lab,
    compile_program,
)
from ansible_collections.dataplane.calico_bpf.tests.support.tc.held import Held, held, without_ids
from ansible_collections.dataplane.calico_bpf.tests.support.tc.tcx import (
    attach_without_link,
    programs,
)

MODULE = "bpf_endpoint"
Options = dict[str, Any]
Result = dict[str, Any]
_serial = count(1)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, module_lab: Lab) -> Path:
    into = tmp_path_factory.mktemp("programs")
    compile_program(CHECKOUT / "tests/support/tc/programs/several.c", into / "several.o")
    compile_program(CHECKOUT / "bpf/drop_all.c", into / "drop_all.o")
    return into


def endpoint(lab: Lab, *, clsact: bool = True) -> str:
    return lab.endpoint(f"cali{next(_serial)}", clsact=clsact)


def mismatch(lab: Lab, interface: str = "") -> str:
    """Ingress at handle 1, egress at 2, and a foreign filter before both."""
    interface = lab.endpoint(interface) if interface else endpoint(lab)
    for handle, hook in enumerate(("ingress", "egress"), 1):
        lab.attach(interface, hook, handle)
        lab.attach(interface, hook, 1, priority=9, variant="foreign", name="cilium")
    return interface


def shown_filters(shown: Result) -> dict[str, list[tuple[int, int, str, int]]]:
    """The filters of a result's endpoint, as ``seen`` gives those of the kernel."""
    return {
        hook: [
            (a["priority"], a["handle"], a["name"], a["program_id"])
            for a in shown[hook]
            if a["attach_type"] == "tc"
        ]
        for hook in ("ingress", "egress")
    }


def seen(state: Held) -> dict[str, list[tuple[int, int, str, int]]]:
    return {
        hook: [(f.priority, f.handle, f.name, f.program_id) for f in state.filters(hook)]
        for hook in ("ingress", "egress")
    }


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


class Runs:
    """Options of many endpoints in check mode, for real and again, with the kernel's states."""

    def __init__(self, lab: Lab, cases: dict[str, tuple[str, Options]]) -> None:
        options = {case: o for case, (_unused, o) in cases.items()}
        interfaces = {case: interface for case, (interface, _unused) in cases.items()}

        def states() -> dict[str, Held]:
            return {case: held(lab, interface) for case, interface in interfaces.items()}

        self.bare = states()
        self.check = lab.modules(MODULE, options, check=True, diff=True)
        self.checked = states()
        self.real = lab.modules(MODULE, options, diff=True)
        self.done = states()
        self.again = lab.modules(MODULE, options, diff=True)
        self.settled = states()


@pytest.fixture(scope="module")
def runs(module_lab: Lab, compiled: Path) -> Runs:
    """One endpoint for everything that succeeds and is to be done."""
    lab = module_lab
    deny, newer = ({"object": str(lab.objects / f"{v}.o")} for v in ("deny", "newer"))
    cases: dict[str, tuple[str, Options]] = {}

    def case(name: str, interface: str, **options: Any) -> None:
        cases[name] = interface, {"interface": interface, **options}

    case("consistent", mismatch(lab), settle=0)
    case("both", mismatch(lab), state="attached", ingress=deny, egress=newer)
    case("one", mismatch(lab), state="attached", egress=deny)
    case("bare", endpoint(lab, clsact=False), state="attached", ingress=deny, egress=deny)
    by_tcx = {**deny, "attach_type": "tcx"}
    case("tcx", endpoint(lab), state="attached", ingress=by_tcx, egress=by_tcx)
    case("absent", mismatch(lab), state="absent")
    with_tcx = mismatch(lab)
    attach_without_link(lab, with_tcx, "ingress", lab.pin("foreign"))
    attach_without_link(lab, with_tcx, "ingress", lab.pin("allow"))
    case("absent-tcx", with_tcx, state="absent")
    # VethNameForWorkload("namespace", "podname") in Calico's own conversion_test.go
    pods = mismatch(lab, "eni82111e10a96")
    pod = {"namespace": "namespace", "pod": "podname", "interface_prefix": "eni", "settle": 0}
    cases["pod"] = pods, pod
    return Runs(lab, cases)


CHANGING = ("consistent", "both", "one", "bare", "tcx", "absent", "absent-tcx", "pod")


@pytest.mark.parametrize("case", CHANGING)
def test_check_mode_writes_nothing_and_predicts(case: str, runs: Runs) -> None:
    """All that it says comes true, but for ids that no one can know."""
    assert runs.checked[case] == runs.bare[case]
    predicted, real = dict(runs.check[case]), dict(runs.real[case])
    assert predicted["changed"], predicted
    # Attached by Felix or tc, a program's id is known and stays; the diff's lines have it too.
    predicted.pop("diff")
    real.pop("diff")
    assert without_ids(predicted) == without_ids(real)


@pytest.mark.parametrize("case", CHANGING)
def test_before_and_after_agree_with_tc(case: str, runs: Runs) -> None:
    result = runs.real[case]
    assert shown_filters(result["before"]) == seen(runs.bare[case])
    assert shown_filters(result["after"]) == seen(runs.done[case])
    for when, state in (("before", runs.bare[case]), ("after", runs.done[case])):
        qdisc = "clsact" if "clsact" in state.qdiscs else "none"
        assert result[when]["qdisc"] == qdisc
        for hook in ("ingress", "egress"):
            shown = [a for a in result[when][hook] if a["attach_type"] == "tcx"]
            assert [(a["program_id"], a["link_id"]) for a in shown] == state.tcx(hook)


@pytest.mark.parametrize("case", CHANGING)
def test_a_second_run_changes_nothing(case: str, runs: Runs) -> None:
    again = runs.again[case]
    assert not again["changed"], again
    assert again["diff"] == ""
    assert runs.settled[case] == runs.done[case]
    assert again["before"] == again["after"] == runs.real[case]["after"]


@pytest.mark.parametrize("case", CHANGING)
def test_the_diff_shows_the_changes(case: str, runs: Runs) -> None:
    """Its lines with - and + are the attachments that went and came."""
    before, after = runs.bare[case], runs.done[case]
    lines = re.findall(r"^([-+])\S+ (ingress|egress): .*?\bid (\d+)", runs.real[case]["diff"], re.M)
    counted = {(sign, hook, int(number)) for sign, hook, number in lines}

    def ids(state: Held, hook: str) -> set[tuple[int, object]]:
        filters = {(f.program_id, f.slot) for f in state.filters(hook)}
        return filters | {(program, "tcx") for program, _unused in state.tcx(hook)}

    expected = set()
    for hook in ("ingress", "egress"):
        expected |= {("-", hook, i) for i, _unused in ids(before, hook) - ids(after, hook)}
        expected |= {("+", hook, i) for i, _unused in ids(after, hook) - ids(before, hook)}
    assert counted == expected != set()


@pytest.mark.parametrize("case", CHANGING)
def test_foreign_filters_and_clsact_stay(case: str, runs: Runs) -> None:
    before, after = runs.bare[case], runs.done[case]
    for hook in ("ingress", "egress"):
        assert _foreign(before, hook) == _foreign(after, hook)
    if case != "bare":
        assert after.qdiscs == before.qdiscs
    assert "clsact" in after.qdiscs


def _foreign(state: Held, hook: str) -> list[tuple[int, int, str, int]]:
    return [f for f in seen(state)[hook] if "cali_tc_preambl" not in f[2]]


@pytest.mark.parametrize("case", ["consistent", "pod"])
def test_consistent_moves_the_running_program(case: str, runs: Runs) -> None:
    """Both hooks at one slot, each with the program it had, under the name it had."""
    before, after = runs.bare[case], runs.done[case]
    slots = [[f.slot for f in after.filters(h) if f.priority != 9] for h in ("ingress", "egress")]
    assert slots[0] == slots[1]
    assert len(slots[0]) == 1
    for hook in ("ingress", "egress"):
        was, now = (
            [(f.program_id, f.name, f.direct_action) for f in state.filters(hook)]
            for state in (before, after)
        )
        assert now == was
    result = runs.real[case]
    assert (result["verdict"], result["outlook"]) == ("repaired", "ok")
    assert [f["code"] for f in result["findings"] if f["severity"] == "drift"] == [
        "handle_mismatch"
    ]
    assert result["done"] == result["plan"] == runs.check[case]["plan"]
    assert runs.again[case]["verdict"] == "consistent"


def test_the_interface_of_a_pod_is_named_by_calicos_rule(runs: Runs) -> None:
    assert runs.real["pod"]["interface"] == "eni82111e10a96"


def test_attached_replaces_in_place(runs: Runs) -> None:
    """Each hook keeps its slot; a hook that is not given keeps its program."""
    for case in ("both", "one"):
        before, after = runs.bare[case], runs.done[case]
        assert [f.slot for f in after.egress] == [f.slot for f in before.egress]
        assert after.egress[1].program_id != before.egress[1].program_id
    both, one = runs.done["both"], runs.done["one"]
    assert [f.slot for f in both.ingress] == [f.slot for f in runs.bare["both"].ingress]
    assert both.ingress[1].program_id != runs.bare["both"].ingress[1].program_id
    assert one.ingress == runs.bare["one"].ingress


def test_attached_fills_bare_hooks(runs: Runs) -> None:
    bare = runs.done["bare"]
    assert [f.slot for f in bare.ingress] == [f.slot for f in bare.egress] == [(49152, 1)]
    assert runs.bare["bare"].ingress == ()
    by_tcx = runs.done["tcx"]
    assert [len(by_tcx.tcx(h)) for h in ("ingress", "egress")] == [1, 1]


def test_absent_takes_all_of_calicos(runs: Runs) -> None:
    for case in ("absent", "absent-tcx"):
        after = runs.done[case]
        assert [[f.name for f in after.filters(h)] for h in ("ingress", "egress")] == [
            ["cilium:[*fsobj]"], ["cilium:[*fsobj]"]
        ]  # fmt: skip
    assert runs.done["absent-tcx"].tcx_ingress == runs.bare["absent-tcx"].tcx_ingress[:1]


# --- refusals -------------------------------------------------------------------------------------


REFUSALS = {
    "foreign-egress": r"egress: cilium.* is already attached under another name",
    "verifier-egress": r"refused program unchecked.*nothing was attached",
    "no-such-egress": r"there is no file /no/such\.o",
    "priority-egress": r"priority is 70000; it must be from 1 to 65535; nothing was changed",
    "tcx-handle-egress": r"handle is given, but TCX has no handles",
    "two-sources-egress": r"mutually exclusive: object\|pinned\|program_id\|source found in egress",
    "no-source-egress": r"one of the following is required: object, pinned, program_id, source",
    "nothing": r"state is attached but any of the following are missing: ingress, egress",
    "both": r"mutually exclusive: interface\|namespace",
    "interface-and-pod": r"mutually exclusive: interface\|pod",
    "namespace-alone": r"required together: namespace, pod",
    "neither": r"one of the following is required: interface, pod",
    "unknown": r"there is no interface nix0 in this network namespace",
    "unknown-pod": r"there is no interface cali82111e10a96 in this network namespace",
    "settle": r"settle is -1.*it must be from 0",
}


@pytest.fixture(scope="module")
def refused(module_lab: Lab, compiled: Path) -> tuple[dict[str, Result], dict[str, Result], bool]:
    """Each refusal in check mode and for real, and whether the endpoint is as it was.

    Every one that names hooks has a good program for ingress: it must not get there either.
    """
    lab, interface = module_lab, mismatch(module_lab)
    deny = {"object": str(lab.objects / "deny.o")}
    unchecked = {"object": str(compiled / "several.o"), "program": "unchecked"}
    egress: dict[str, Options] = {
        "foreign": {**deny, "priority": 9},
        "verifier": unchecked,
        "no-such": {"object": "/no/such.o"},
        "priority": {**deny, "priority": 70000},
        "tcx-handle": {**deny, "attach_type": "tcx", "handle": 1},
        "two-sources": {**deny, "program_id": 1},
        "no-source": {"priority": 1},
    }
    here = {"interface": interface}
    pod = {"namespace": "namespace", "pod": "podname"}
    cases: dict[str, Options] = {
        **{
            f"{case}-egress": {**here, "state": "attached", "ingress": deny, "egress": o}
            for case, o in egress.items()
        },
        "nothing": {**here, "state": "attached"},
        "both": {**here, **pod},
        "interface-and-pod": {**here, "pod": "podname"},
        "namespace-alone": {"namespace": "namespace", **here},
        "neither": {},
        "unknown": {"interface": "nix0"},
        "unknown-pod": pod,
        "settle": {**here, "settle": -1},
    }
    cases["namespace-alone"].pop("interface")
    before = held(lab, interface)
    check = lab.modules(MODULE, cases, check=True)
    real = lab.modules(MODULE, cases)
    return check, real, held(lab, interface) == before


@pytest.mark.parametrize("case", REFUSALS)
def test_refusal(case: str, refused: tuple[dict[str, Result], dict[str, Result], bool]) -> None:
    """It says what is wrong, and check mode says the same but for ids."""
    check, real, _unused = refused
    assert real[case].get("failed"), real[case]
    assert re.search(REFUSALS[case], real[case]["msg"], re.DOTALL), real[case]["msg"]
    assert "Traceback" not in json.dumps(real[case])
    ids = re.compile(r"0x[0-9a-f]+|\d+")
    assert ids.sub("#", check[case]["msg"]) == ids.sub("#", real[case]["msg"])


def test_a_refused_second_hook_leaves_the_first_alone(
    refused: tuple[dict[str, Result], dict[str, Result], bool],
) -> None:
    """Of all the refusals none changed anything, neither at the hook refused nor at the other."""
    assert refused[2]


def test_a_pin_that_cannot_be_made_leaves_both_hooks_alone(module_lab: Lab) -> None:
    """It is known before the first hook is written to, and in check mode."""
    lab, interface = module_lab, mismatch(module_lab)
    deny: Options = {"object": str(lab.objects / "deny.o")}
    pinned: Options = {**deny, "pin": "/sys/fs/bpf/no/such/folder"}
    options: Options = {
        "interface": interface, "state": "attached", "ingress": deny, "egress": pinned
    }  # fmt: skip
    before = held(lab, interface)
    real = lab.module(MODULE, **options)
    assert real.get("failed"), real
    assert held(lab, interface) == before
    assert lab.module(MODULE, check=True, **options).get("failed")


def test_the_verifiers_log_comes_along(
    refused: tuple[dict[str, Result], dict[str, Result], bool],
) -> None:
    assert "map_value_or_null" in refused[1]["verifier-egress"]["verifier_log"]


# --- the collection's own program -----------------------------------------------------------------


def felix_lists(lab: Lab, interface: str, hook: str) -> list[tuple[str, str]]:
    """(pref, handle) of Felix's own filters, by its own rule.

    felix/bpf/tc/attach.go at v3.29.1: listAttachedPrograms, prefHandleRe.
    """
    lines = lab.tc("filter", "show", "dev", interface, hook).split("\n")
    matching = [x for x in lines if "cali_tc_preambl" in x or "calico" in x]
    found = [re.search(r"pref ([^ ]+) .* handle ([^ ]+)", line) for line in matching]
    return [(m[1], m[2]) for m in found if m]


def test_drop_all_closes_a_bare_hook_until_felix_is_back(module_lab: Lab, compiled: Path) -> None:
    """Packets pass the bare hook and not the closed one; and Felix takes the filter for its own."""
    lab, interface = module_lab, endpoint(module_lab)
    peer = f"p{interface}"
    lab.ip("addr", "add", "192.0.2.1/24", "dev", interface)
    mac = json.loads(lab.ip("-json", "link", "show", "dev", peer))[0]["address"]
    lab.ip("neigh", "add", "192.0.2.2", "lladdr", mac, "dev", interface)

    def arrived() -> int:
        shown = json.loads(lab.ip("-json", "-statistics", "link", "show", "dev", peer))[0]
        return int(shown["stats64"]["rx"]["packets"])

    def dropped() -> int:
        shown = json.loads(lab.tc("-json", "-statistics", "qdisc", "show", "dev", interface))
        return int(next(q["drops"] for q in shown if q["kind"] == "clsact"))

    def send(packets: int) -> None:
        word = f"for i in $(seq {packets}); do echo x >/dev/udp/192.0.2.2/9; done"
        lab.exec("bash", "-c", word)

    send(5)
    wait_until(lambda: arrived() == 5)
    drop_all = {"object": str(compiled / "drop_all.o"), "program": "cali_tc_preamble"}
    result = lab.module(MODULE, interface=interface, state="attached", egress=drop_all)
    assert result["changed"], result
    assert felix_lists(lab, interface, "egress") == [("49152", "0x1")]
    assert felix_lists(lab, interface, "ingress") == []
    send(7)
    wait_until(lambda: dropped() == 7)
    assert arrived() == 5


# --- TCX ------------------------------------------------------------------------------------------


def test_a_tcx_endpoint_is_left_as_it_is(module_lab: Lab) -> None:
    """It has no filters and may have no clsact: that is not drift."""
    lab, interface = module_lab, endpoint(module_lab, clsact=False)
    for hook in ("ingress", "egress"):
        attach_without_link(lab, interface, hook, lab.pin())
    before = [programs(lab, interface, hook) for hook in ("ingress", "egress")]
    result = lab.module(MODULE, interface=interface, settle=0)
    assert (result["changed"], result["verdict"]) == (False, "consistent")
    assert [programs(lab, interface, hook) for hook in ("ingress", "egress")] == before
