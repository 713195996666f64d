# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""bpf_tc_program on the running kernel: every source, every refusal, and nothing left half done.

What is attached is read with tc, with bpftool and with the kernel's own TCX query.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import (
    CHECKOUT,
    Lab,
    compile_program,
    run,
    run_module,
)
from ansible_collections.dataplane.calico_bpf.tests.support.tc.held import Held, held, without_ids
from ansible_collections.dataplane.calico_bpf.tests.support.tc.tcx import (
    attach_without_link,
    programs,
)

MODULE = "bpf_tc_program"
SOURCES = CHECKOUT / "tests/support/tc/programs"
TEXT = "int from_text(struct __sk_buff *skb) { return skb->len > 9000 ? 2 : -1; }"
Result = dict[str, Any]
Options = dict[str, Any]
_serial = count(1)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, module_lab: Lab) -> Path:
    into = tmp_path_factory.mktemp("programs")
    for name in ("several", "express"):
        compile_program(SOURCES / f"{name}.c", into / f"{name}.o")
    return into


def folder_for_pins(lab: Lab) -> Path:
    """A folder on the bpffs; the lab removes it with the pins in it."""
    directory = Path(f"/sys/fs/bpf/{lab.netns}-pins-{next(_serial)}")
    directory.mkdir()
    return directory


def make_pins(compiled: Path, pins: Path) -> tuple[str, str]:
    """The pins of an XDP program and of a map: ``express`` and ``map``."""
    express, map_pin = str(pins / "express"), str(pins / "map")
    run("bpftool", "prog", "load", str(compiled / "express.o"), express)
    words = ["type", "array", "key", "4", "value", "4", "entries", "1", "name", "m"]
    run("bpftool", "map", "create", map_pin, *words)
    return express, map_pin


@pytest.fixture
def pins(module_lab: Lab) -> Path:
    return folder_for_pins(module_lab)


# --- looking from outside -------------------------------------------------------------------------


def endpoint(lab: Lab, *, clsact: bool = True) -> str:
    return lab.endpoint(f"cali{next(_serial)}", clsact=clsact)


def program(*words: str) -> dict[str, Any]:
    """What bpftool says of a program: ``pinned PATH`` or ``id N``."""
    shown: dict[str, Any] = json.loads(run("bpftool", "-j", "prog", "show", *words))
    return shown


def program_id(pin: str) -> int:
    return int(program("pinned", pin)["id"])


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@contextmanager
def filter_events(lab: Lab, tmp_path: Path) -> Iterator[list[str]]:
    """What ``tc monitor`` tells of filters during the body; complete once the body is left."""
    shown = tmp_path / f"monitor-{next(_serial)}"
    events: list[str] = []

    def marks() -> int:
        """Provoke an event that has nothing to do with the test; how many were seen so far."""
        lab.tc("qdisc", "add", "dev", "lo", "clsact")
        lab.tc("qdisc", "del", "dev", "lo", "clsact")
        return shown.read_text().count("deleted qdisc clsact")

    words = ["nsenter", f"--net=/run/netns/{lab.netns}", "tc", "monitor"]
    with shown.open("w") as file, subprocess.Popen(words, stdout=file) as monitor:
        try:
            wait_until(marks)
            yield events
            before = marks()
            wait_until(lambda: marks() > before)
        finally:
            monitor.terminate()
    events += re.findall(r"^.*\bfilter dev .* handle .*$", shown.read_text(), re.MULTILINE)


@contextmanager
def renames_and_deletes(directory: Path) -> Iterator[list[tuple[str, str]]]:
    """(event, file name) for what became of a folder's files during the body, by inotify."""
    kinds = {0x40: "moved from", 0x80: "moved to", 0x200: "deleted"}
    libc = ctypes.CDLL(None)
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    libc.inotify_add_watch(fd, os.fsencode(directory), sum(kinds))
    seen: list[tuple[str, str]] = []
    try:
        yield seen
        told = os.read(fd, 1 << 16)
    finally:
        os.close(fd)
    at = 0
    while at < len(told):
        _unused, mask, _unused, length = struct.unpack_from("=iIII", told, at)
        name = told[at + 16 : at + 16 + length].rstrip(b"\0").decode()
        seen.append((kinds[mask], name))
        at += 16 + length


# --- every source, by TC and by TCX ---------------------------------------------------------------


@dataclass(frozen=True)
class Story:
    """A case's first run in check mode, its real one and its second one, and the kernel's state."""

    options: Mapping[str, Any]
    #: What bpftool must call the attached program, and its id where that is known beforehand.
    program: str
    program_id: int | None
    states: tuple[Held, ...]
    runs: tuple[Result, ...]

    @property
    def hook(self) -> str:
        return str(self.options["hook"])


WAYS = ("object", "one-of-several", "pinned", "program_id", "text", "file")
#: Compiling takes a second; where the text comes from has nothing to do with the attach type.
CASES = [f"{t}-{way}" for t in ("tc", "tcx") for way in WAYS if (t, way) != ("tcx", "file")]


def _case(lab: Lab, compiled: Path, number: int, case: str) -> tuple[dict[str, Any], str]:
    """The options of a case, and what the attached program is called."""
    attach_type, _unused, way = case.partition("-")
    pin = lab.pin("newer", "mine")
    sources: dict[str, tuple[dict[str, Any], str]] = {
        "object": ({"object": str(lab.objects / "deny.o")}, "cali_tc_preamble"),
        "one-of-several": ({"object": str(compiled / "several.o"), "program": "second"}, "second"),
        "pinned": ({"pinned": pin}, "cali_tc_preamble"),
        "program_id": ({"program_id": program_id(pin)}, "cali_tc_preamble"),
        "text": ({"source": TEXT, "function": "from_text"}, "from_text"),
        "file": ({"source": str(SOURCES / "classify.c"), "function": "classify"}, "classify"),
    }
    source, name = sources[way]
    place: Options = {"interface": endpoint(lab), "hook": ("ingress", "egress")[number % 2]}
    return {**place, "attach_type": attach_type, **source}, name


@pytest.fixture(scope="module")
def stories(module_lab: Lab, compiled: Path) -> dict[str, Story]:
    lab = module_lab
    made = {case: _case(lab, compiled, n, case) for n, case in enumerate(CASES)}
    cases = {case: options for case, (options, _unused) in made.items()}

    def states() -> dict[str, Held]:
        return {case: held(lab, options["interface"]) for case, options in cases.items()}

    seen, runs = [states()], []
    for check in (True, False, False):
        runs.append(lab.modules(MODULE, cases, check=check, diff=True))
        seen.append(states())
    return {
        case: Story(
            options,
            name,
            program_id(options["pinned"]) if "pinned" in options else options.get("program_id"),
            tuple(state[case] for state in seen),
            tuple(result[case] for result in runs),
        )
        for case, (options, name) in made.items()
    }


@pytest.fixture(params=CASES)
def story(request: pytest.FixtureRequest, stories: dict[str, Story]) -> Story:
    return stories[request.param]


def test_check_mode_writes_nothing_and_predicts(story: Story) -> None:
    bare, checked = story.states[:2]
    predicted, done = story.runs[:2]
    assert checked == bare
    assert predicted["changed"], predicted
    assert without_ids(predicted["attachment"]) == without_ids(done["attachment"])


def test_the_program_is_attached(story: Story) -> None:
    """Exactly one attachment more, in direct action, of the very program asked for."""
    done = story.states[2]
    result = story.runs[1]
    assert result["changed"], result
    if story.options["attach_type"] == "tc":
        (there,) = done.filters(story.hook)
        assert (there.slot, there.direct_action) == ((49152, 1), True)
        assert (there.protocol, there.chain, there.kind) == ("all", 0, "bpf")
        assert not done.tcx(story.hook)
        attached = there.program_id
    else:
        ((attached, _link),) = done.tcx(story.hook)
        assert not done.filters(story.hook)
    assert story.program_id in (None, attached)
    assert program("id", str(attached))["name"] == story.program


def test_the_other_hook_stays_bare(story: Story) -> None:
    other = "egress" if story.hook == "ingress" else "ingress"
    assert (story.states[2].filters(other), story.states[2].tcx(other)) == ((), [])


def test_the_result_tells_what_the_kernel_holds(story: Story) -> None:
    after = story.runs[1]["attachment"]["after"]
    done = story.states[2]
    assert story.runs[1]["attachment"]["before"] is None
    assert after["tag"] == program("id", str(after["program_id"]))["tag"]
    if story.options["attach_type"] == "tc":
        (there,) = done.filters(story.hook)
        assert (after["priority"], after["handle"], after["name"]) == (*there.slot, there.name)
        assert after["program_id"] == there.program_id
    else:
        assert [(after["program_id"], after["link_id"])] == done.tcx(story.hook)


def test_a_second_run_changes_nothing(story: Story) -> None:
    """A program loaded anew is known by its tag, so the old one, with its id, stays."""
    again = story.runs[2]
    assert not again["changed"], again
    assert story.states[3] == story.states[2]
    assert again["attachment"]["before"] == again["attachment"]["after"]
    assert again["attachment"]["after"] == story.runs[1]["attachment"]["after"]


def test_the_diff_names_the_place(story: Story) -> None:
    added = f"+{story.options['interface']} {story.hook}: "
    for changing in story.runs[:2]:
        assert added in changing["diff"]
    assert story.runs[2]["diff"] == ""


# --- replacing ------------------------------------------------------------------------------------


def test_replacing_is_one_step_and_keeps_the_handle(module_lab: Lab, tmp_path: Path) -> None:
    """The kernel tells of one filter replaced and none deleted, so the hook was never bare."""
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


def test_what_decides_that_a_program_is_there_already(module_lab: Lab) -> None:
    """The tag for what is loaded, the id for what runs already, and direct action for both."""
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


def test_clsact_is_made_where_there_is_none(module_lab: Lab) -> None:
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


# --- TCX beside others ----------------------------------------------------------------------------


def test_tcx_is_swapped_in_place_and_strangers_keep_theirs(module_lab: Lab, compiled: Path) -> None:
    """A stranger before and one behind calico: same order, same ids, ours swapped between them."""
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


# --- pins -----------------------------------------------------------------------------------------


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
    """Nothing is attached anew for that; the pin holds what is attached."""
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
    """Whatever they are called, and however the new pin takes its place."""
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
    """Whoever asks for a pin has one in the end, or is told why not."""
    lab, interface, pin = module_lab, endpoint(module_lab), pins / "link"
    place: Options = {"interface": interface, "hook": "egress", "attach_type": "tcx"}
    allow: Options = {**place, "object": str(lab.objects / "allow.o")}
    assert lab.module(MODULE, **allow)["changed"]
    before = programs(lab, interface, "egress")
    result = lab.module(MODULE, **allow, pin=str(pin))
    assert result.get("failed") or pin.exists(), result
    if result.get("failed"):
        assert programs(lab, interface, "egress") == before


# --- absent ---------------------------------------------------------------------------------------


def test_absent(module_lab: Lab, tmp_path: Path) -> None:
    """By name, by handle, and by being Calico's; strangers and the clsact qdisc stay."""
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


def test_absent_leaves_a_strangers_pin_alone(module_lab: Lab, compiled: Path, pins: Path) -> None:
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


# --- refusals -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Refused:
    check: Result
    real: Result


def _dead_program(lab: Lab) -> int:
    pin = lab.pin()
    number = program_id(pin)
    os.unlink(pin)
    wait_until(lambda: not run("bpftool", "prog", "show", "id", str(number), check=False))
    return number


def _broken(compiled: Path) -> dict[str, str]:
    """Object files that are none: cut off, plain text, empty, a folder, and none at all."""
    whole = (compiled / "several.o").read_bytes()
    (compiled / "cut.o").write_bytes(whole[: len(whole) // 2])
    (compiled / "text.o").write_text("this is no object\n")
    (compiled / "empty.o").touch()
    (compiled / "folder.o").mkdir()
    return {
        name: str(compiled / f"{name}.o") for name in ("cut", "text", "empty", "folder", "none")
    }


REFUSALS: dict[str, str] = {
    # case: what the message must say (a regular expression)
    "verifier-object": r"refused program unchecked of .*several\.o.*nothing was attached",
    "verifier-source": r"function unchecked can't be loaded.*nothing was attached",
    "verifier-tcx": r"refused program unchecked",
    "does-not-compile": r"does not compile.*error: .*undeclared identifier 'nonsense'",
    "no-such-function": r"nowhere",
    "no-such-source": r"source: /no/such/file\.c: No such file",
    "no-such-program": r"several\.o holds no program third; it holds express, first, second, unch",
    "which-program": r"several\.o holds the programs express, first, second, unchecked: name one",
    "object-cut": r"object .*cut\.o can't be opened",
    "object-text": r"object .*text\.o can't be opened",
    "object-empty": r"object .*empty\.o can't be opened",
    "object-folder": r"there is no file .*folder\.o",
    "object-none": r"there is no file .*none\.o",
    "type-object": r"express of .*express\.o has BPF program type 6; only a TC classifier",
    "type-pinned": r"has BPF program type 6; only a TC classifier",
    "type-id": r"has BPF program type 6; only a TC classifier",
    "pinned-map": r"is no program, but another BPF object",
    "pinned-file": r"the pin .* can't be opened",
    "pinned-none": r"there is no such file \(is bpffs mounted\?",
    "dead-id": r"program id \d+ can't be opened: no such program is loaded",
    "pin-map": r"pin: .* pins something else than a program .*; left alone",
    "pin-file": r"pin: .* is no folder of a BPF file system .*nothing was touched",
    "two-sources": r"mutually exclusive: object\|pinned\|program_id\|source",
    "no-source": r"state is present but any of the following are missing: object, pinned",
    "program-alone": r"required by 'program': object",
    "source-alone": r"required by 'source': function",
    "function-alone": r"required by 'function': source",
    "tcx-handle": r"handle is given, but TCX knows no handles; nothing was touched",
    "priority-0": r"priority is 0; it must be from 1 to 65535; nothing was touched",
    "priority-70000": r"priority is 70000; it must be from 1 to 65535; nothing was touched",
    "handle-0": r"handle is 0; it must be from 1 to",
    "program-id-0": r"program_id is 0; it must be from 1 to",
    "no-interface": r"there is no interface nix0 in this network namespace",
    "no-netns": r"cannot open the network namespace /run/netns/no-such-one: No such file",
    "bad-hook": r"value of hook must be one of: ingress, egress, got: sideways",
    "foreign-slot": r"cilium.* is there under another name.*left alone",
    "foreign-handle": r"cilium.* is there under another name.*left alone",
    "foreign-absent": r"cilium.* is not Calico's; if it is yours to remove, give its name",
    "absent-pin-file": r"pin: .* is no pin .*nothing was touched",
    "several-absent": r"several filters fit: .*handle 2.*handle 1.*; choose one with `handle`",
    "other-kind": r"u32 filter at pref 60 .*one priority holds one kind and protocol only",
    "other-protocol": r"protocol 0x0800.*one priority holds one kind and protocol only",
    "ingress-qdisc": r"has an ingress qdisc where clsact belongs; it is not ours to delete",
}


def _refused_options(lab: Lab, compiled: Path, pins: Path, interface: str) -> dict[str, Options]:
    several = str(compiled / "several.o")
    allow: Options = {"object": str(lab.objects / "allow.o")}
    unchecked = {"object": several, "program": "unchecked"}
    express, map_pin = make_pins(compiled, pins)
    absent = {"state": "absent"}
    blocked = endpoint(lab, clsact=False)
    lab.tc("qdisc", "add", "dev", blocked, "ingress")
    options: dict[str, Options] = {
        "verifier-object": unchecked,
        "verifier-source": {"source": str(SOURCES / "unchecked.c"), "function": "unchecked"},
        "verifier-tcx": {**unchecked, "attach_type": "tcx"},
        "does-not-compile": {"source": TEXT.replace("9000", "nonsense"), "function": "from_text"},
        "no-such-function": {"source": TEXT, "function": "nowhere"},
        "no-such-source": {"source": "/no/such/file.c", "function": "f"},
        "no-such-program": {"object": several, "program": "third"},
        "which-program": {"object": several},
        **{f"object-{name}": {"object": path} for name, path in _broken(compiled).items()},
        "type-object": {"object": str(compiled / "express.o")},
        "type-pinned": {"pinned": express},
        "type-id": {"program_id": program_id(express)},
        "pinned-map": {"pinned": map_pin},
        "pinned-file": {"pinned": several},
        "pinned-none": {"pinned": f"{map_pin}-none"},
        "dead-id": {"program_id": _dead_program(lab)},
        "pin-map": {**allow, "pin": map_pin},
        "pin-file": {**allow, "pin": several},
        "two-sources": {**allow, "pinned": express},
        "no-source": {},
        "program-alone": {"pinned": express, "program": "express"},
        "source-alone": {"source": TEXT},
        "function-alone": {**allow, "function": "f"},
        "tcx-handle": {**allow, "attach_type": "tcx", "handle": 1},
        "priority-0": {**allow, "priority": 0},
        "priority-70000": {**allow, "priority": 70000},
        "handle-0": {**allow, "handle": 0},
        "program-id-0": {"program_id": 0},
        "no-interface": {**allow, "interface": "nix0"},
        "no-netns": {**allow, "netns": "no-such-one"},
        "bad-hook": {**allow, "hook": "sideways"},
        "foreign-slot": {**allow, "priority": 50},
        "foreign-handle": {**allow, "priority": 50, "handle": 1, "name": "mine"},
        "foreign-absent": {**absent, "priority": 50, "handle": 1},
        "absent-pin-file": {**absent, "handle": 2, "pin": several},
        "several-absent": absent,
        "other-kind": {**allow, "priority": 60},
        "other-protocol": {**allow, "priority": 70},
        "ingress-qdisc": {**allow, "interface": blocked},
    }
    return {case: {"interface": interface, "hook": "ingress", **o} for case, o in options.items()}


@pytest.fixture(scope="module")
def crowded(module_lab: Lab) -> str:
    """An endpoint with all that can stand in the way."""
    lab, interface = module_lab, endpoint(module_lab)
    lab.attach(interface, "ingress", 1)
    lab.attach(interface, "ingress", 2)
    lab.attach(interface, "egress", 1)
    lab.attach(interface, "ingress", 1, priority=50, variant="foreign", name="cilium")
    dev = ("filter", "add", "dev", interface, "ingress")
    lab.tc(*dev, "pref", "60", "protocol", "all", "u32", "match", "u32", "0", "0")
    lab.attach(interface, "ingress", 1, priority=70, variant="foreign", name="x", protocol="ip")
    attach_without_link(lab, interface, "ingress", lab.pin("foreign"))
    return interface


@pytest.fixture(scope="module")
def refused(
    module_lab: Lab, compiled: Path, crowded: str
) -> tuple[dict[str, Refused], tuple[str, ...], tuple[str, ...]]:
    """Every refusal in check mode and for real, and all that the kernel held before and after."""
    lab = module_lab
    options = _refused_options(lab, compiled, folder_for_pins(lab), crowded)

    def everything() -> tuple[str, ...]:
        names = sorted({crowded, options["ingress-qdisc"]["interface"]})
        filters = [
            lab.tc("filter", "show", "dev", n, h) for n in names for h in ("ingress", "egress")
        ]
        return (*filters, lab.tc("qdisc", "show"), str(programs(lab, crowded, "ingress")),
                str(sorted(str(p) for p in Path("/sys/fs/bpf").rglob("*"))))  # fmt: skip

    before = everything()
    check = lab.modules(MODULE, options, check=True)
    real = lab.modules(MODULE, options)
    after = everything()
    return {case: Refused(check[case], real[case]) for case in options}, before, after


@pytest.mark.parametrize("case", REFUSALS)
def test_refusal(case: str, refused: tuple[dict[str, Refused], object, object]) -> None:
    """A message that says what is wrong, the same in check mode, and no Python traceback."""
    result = refused[0][case]
    assert result.real.get("failed"), result.real
    assert re.search(REFUSALS[case], result.real["msg"], re.DOTALL), result.real["msg"]
    assert "Traceback" not in json.dumps(result.real)
    assert not result.real["changed"]
    ids = re.compile(r"0x[0-9a-f]+|\d+")
    assert ids.sub("#", result.check["msg"]) == ids.sub("#", result.real["msg"])


def test_refusals_leave_everything_as_it_was(
    refused: tuple[dict[str, Refused], tuple[str, ...], tuple[str, ...]],
) -> None:
    _unused, before, after = refused
    assert after == before


@pytest.mark.parametrize("case", ["verifier-object", "verifier-source", "verifier-tcx"])
def test_the_verifiers_log_comes_along(
    case: str, refused: tuple[dict[str, Refused], object, object]
) -> None:
    assert "map_value_or_null" in refused[0][case].real["verifier_log"]


def test_the_compilers_words_come_along(
    refused: tuple[dict[str, Refused], object, object],
) -> None:
    """The module's documentation promises them under the same key."""
    result = refused[0]["does-not-compile"].real
    assert "undeclared identifier 'nonsense'" in result.get("verifier_log", "")


WITHOUT_BPFFS = (
    "unshare", "-m", "sh", "-c",
    'while umount -l /sys/fs/bpf 2>/dev/null; do :; done; exec "$@"', "sh",
)  # fmt: skip


def test_without_a_bpffs(module_lab: Lab) -> None:
    """Pins can't be opened nor made, and that is said before anything is attached."""
    lab, interface = module_lab, endpoint(module_lab)
    lab.attach(interface, "ingress", 1)
    pin = lab.pin("deny")
    place: Options = {"netns": lab.netns, "interface": interface, "hook": "ingress"}
    before = held(lab, interface)
    pinned = run_module(MODULE, {**place, "pinned": pin}, prefix=WITHOUT_BPFFS)
    assert "is bpffs mounted? mount -t bpf bpf /sys/fs/bpf" in pinned["msg"]
    assert held(lab, interface) == before
    deny: Options = {**place, "object": str(lab.objects / "deny.o")}
    refused = run_module(MODULE, {**deny, "pin": "/sys/fs/bpf/mine"}, prefix=WITHOUT_BPFFS)
    assert refused.get("failed"), refused
    assert held(lab, interface) == before
    loaded = run_module(MODULE, deny, prefix=WITHOUT_BPFFS)
    assert loaded["changed"], loaded
