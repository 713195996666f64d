# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every state that an endpoint is known to fall into, through ``ansible`` itself.

All states are built in one namespace, up to four times: for the module to look at and repair, for
a Felix of either behaviour to work on afterwards, and once more without a repair, to see what Felix
makes of that. Then come an audit, a check, a repair, a second repair and a last audit, and what tc
and bpf(2) show after each. The tests only compare.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import Behaviour
from ansible_collections.dataplane.calico_bpf.tests.support.felix.lab_felix import Felix, witnessed
from ansible_collections.dataplane.calico_bpf.tests.support.felix.libbpf import HOOKS
from ansible_collections.dataplane.calico_bpf.tests.support.netns import lab as labs
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Filter, Lab
from ansible_collections.dataplane.calico_bpf.tests.support.tc import tcx

#: The first test waits for all of it.
pytestmark = pytest.mark.timeout(300)

# --- the states -----------------------------------------------------------------------------------


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

    A stranger at 49152 stays there: in our way it is drift, beside a repaired endpoint a notice.
    """

    code: str
    hook: str | None = None
    severity: str = "drift"
    repairable: bool = False
    remedy: str = ""


def mended(code: str, hook: str | None = None) -> Expected:
    return Expected(code, hook, repairable=True)


def told(code: str, hook: str) -> Expected:
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


JUMPING = """
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 4);
    __type(key, __u32);
    __type(value, __u32);
} cali_jump SEC(".maps");

SEC("tc")
int cali_tc_preamble(struct __sk_buff *skb)
{
    bpf_tail_call(skb, &cali_jump, 0);
    return TC_ACT_SHOT;
}

char _license[] SEC("license") = "GPL";
"""


def jumping(lab: Lab, interface: str, *, emptied: bool) -> None:
    """Programs that jump through a program array. The kernel empties it when its last pin goes."""
    source = lab.objects / "jumping.c"
    if not source.exists():
        source.write_text(JUMPING)
        labs.compile_program(source, lab.objects / "jumping.o")
    for hook in HOOKS:
        pin = Path(lab.attach(interface, hook, 1, variant="jumping"))
        shown = json.loads(labs.run("bpftool", "-j", "prog", "show", "pinned", str(pin)))
        array, array_pin = str(shown["map_ids"][0]), pin.with_name("cali_jump")
        labs.run("bpftool", "map", "pin", "id", array, str(array_pin))
        key = ("key", "0", "0", "0", "0")
        labs.run("bpftool", "map", "update", "id", array, *key, "value", "pinned", lab.pin("pass"))
        if emptied:
            array_pin.unlink()
            wait_until_empty(array)


def wait_until_empty(array: str) -> None:
    """The kernel does it in the background."""
    deadline = time.monotonic() + 20
    while '"value"' in labs.run("bpftool", "-j", "map", "dump", "id", array):
        assert time.monotonic() < deadline, f"program array {array} was not emptied"
        time.sleep(0.01)


def full_array(lab: Lab, interface: str) -> None:
    jumping(lab, interface, emptied=False)


def empty_array(lab: Lab, interface: str) -> None:
    jumping(lab, interface, emptied=True)


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
        (told("foreign_filter_first", "ingress"),),
    ),
    "foreign behind": State((ingress(3, priority=50000, **FOREIGN), ingress(), egress())),
    "TCX both hooks": State(extra=tcx_at(*HOOKS), qdisc="none"),
    # --- out of step ------------------------------------------------------------------------------
    "handles 1 and 2": repaired(ingress(1), egress(2), findings=(mended("handle_mismatch"),)),
    "handles 2 and 1": repaired(ingress(2), egress(1), findings=(mended("handle_mismatch"),)),
    "handles 2 and 1, named by tc": repaired(
        ingress(2, name="to_pod"), egress(1, name="to_pod"),
        findings=(mended("handle_mismatch"),),
    ),
    "priorities 10 and 49152": repaired(
        ingress(priority=10), egress(), findings=(mended("priority_mismatch"),)
    ),
    "foreign at 100 and handles 1 and 2": repaired(
        ingress(1, priority=100, **FOREIGN), ingress(1), egress(2),
        findings=(told("foreign_filter_first", "ingress"), mended("handle_mismatch")),
    ),
    "foreign took 49152": repaired(
        ingress(**FOREIGN), ingress(priority=49151), egress(),
        findings=(mended("priority_mismatch"), Expected("priority_taken", "ingress")),
    ),
    "foreign shares our priority": repaired(
        ingress(1, **FOREIGN), ingress(2), egress(1),
        findings=(mended("handle_mismatch"), Expected("priority_taken", "ingress")),
    ),
    # --- too many ---------------------------------------------------------------------------------
    "duplicate one side": repaired(
        ingress(1), ingress(2), egress(1),
        findings=(mended("duplicate_program", "ingress"), mended("handle_mismatch")),
    ),
    "duplicate both sides": repaired(
        ingress(1), ingress(2), egress(1), egress(2),
        findings=(mended("duplicate_program", "ingress"), mended("duplicate_program", "egress")),
    ),
    "duplicate uneven": repaired(
        ingress(1), ingress(2), ingress(3), egress(1), egress(2),
        findings=(
            mended("duplicate_program", "ingress"),
            mended("duplicate_program", "ingress"),
            mended("duplicate_program", "egress"),
            mended("handle_mismatch"),
        ),
    ),
    "same program twice": repaired(
        ingress(1), ingress(2, program_of=0), egress(2),
        findings=(mended("duplicate_program", "ingress"),),
    ),
    "stale program first": repaired(
        ingress(priority=49151), ingress(variant="newer"), egress(variant="newer"),
        findings=(mended("stale_program", "ingress"),), keeps={"ingress": 1},
    ),
    "legacy beside current": repaired(
        ingress(1, **LEGACY), ingress(2), egress(1, **LEGACY), egress(2),
        findings=(mended("legacy_program", "ingress"), mended("legacy_program", "egress")),
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
        ingress(protocol="ip"), egress(), findings=(mended("wrong_protocol", "ingress"),)
    ),
    "chain 5": repaired(ingress(), egress(chain=5), findings=(mended("wrong_chain", "egress"),)),
    "not direct-action": repaired(
        ingress(direct_action=False), egress(),
        findings=(mended("not_direct_action", "ingress"),),
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
        findings=(mended("dead_pin", "ingress"),), extra=dead_pin, qdisc="none"
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
            told("foreign_filter_first", "ingress"),
            mended("stale_program", "ingress"),
            mended("wrong_chain", "ingress"),
            mended("duplicate_program", "ingress"),
            mended("duplicate_program", "ingress"),
            mended("legacy_program", "egress"),
            mended("not_direct_action", "egress"),
            mended("handle_mismatch"),
        ),
        keeps={"ingress": 1},
    ),
}  # fmt: skip

# --- what happened --------------------------------------------------------------------------------

#: What becomes of each copy of a state, by the last letter of its interface's name.
REPAIRED, LEFT_ALONE = "m", "x"
FOR_FELIX = {Behaviour.ADD_THEN_DELETE: "b", Behaviour.REPLACE_AND_COMPARE: "c"}
RUNS = ("audit", "check", "repair", "again", "last")


@dataclass(frozen=True)
class Seen:
    """One endpoint as tc and bpf(2) show it."""

    qdiscs: str
    text: Mapping[str, str]
    filters: Mapping[str, list[Filter]]
    tcx: Mapping[str, list[tuple[int, int]]]
    pins: list[str]

    def ours(self, hook: str) -> list[Filter]:
        return ours(self.filters[hook])

    def foreign(self, hook: str) -> list[str]:
        return [line for line in self.text[hook].split("\n") if FOREIGN["name"] in line]


@dataclass
class Story:
    """A state's endpoint: the module's word on it in each run, and how it stood after each."""

    before: Seen
    after: dict[str, Seen] = field(default_factory=dict)
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: Its word on the copies for Felix, by run and copy.
    copies: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    #: Each whole run's result, which other endpoints share.
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)


def ours(filters: list[Filter]) -> list[Filter]:
    return [f for f in filters if FOREIGN["name"] not in f.name]


def interface_of(name: str, copy: str) -> str:
    return f"cali{[*STATES].index(name):02}{copy}"


def build(lab: Lab, name: str, copy: str) -> None:
    state, interface = STATES[name], interface_of(name, copy)
    if state.extra is not dead_pin:
        lab.endpoint(interface, clsact=state.qdisc == "clsact")
    pins: list[str] = []
    for a in state.filters:
        pins.append(
            lab.attach(
                interface, a.hook, a.handle,
                priority=a.priority, variant=a.variant, name=a.name, protocol=a.protocol,
                chain=a.chain, direct_action=a.direct_action,
                pin=None if a.program_of is None else pins[a.program_of],
            )
        )  # fmt: skip
    if state.extra:
        state.extra(lab, interface)


def look(lab: Lab, interface: str) -> Seen:
    show = ("filter", "show", "dev", interface)
    return Seen(
        lab.tc("qdisc", "show", "dev", interface),
        {hook: lab.tc(*show, hook) for hook in HOOKS},
        {hook: lab.filters(interface, hook) for hook in HOOKS},
        {hook: tcx.programs(lab, interface, hook) for hook in HOOKS},
        sorted(p.name for p in tcx.PINS.glob(f"{interface}_*")),
    )


#: Each state that a repair was for, with the Felix that then works on a copy of it: whatever was
#: repaired, and, where one hook is bare, what needs no repair under the behaviour that was named.
AFTERWARDS = [
    (name, behaviour)
    for name, state in STATES.items()
    for behaviour in (Behaviour.ADD_THEN_DELETE, Behaviour.REPLACE_AND_COMPARE)
    if state.behaviour is behaviour or (state.calico_version == "auto" and state.changes)
]
COPIES = [(name, copy) for name in STATES for copy in (REPAIRED, LEFT_ALONE)]
COPIES += [(name, FOR_FELIX[behaviour]) for name, behaviour in AFTERWARDS]


@pytest.fixture(scope="module")
def stories(module_lab: Lab) -> Iterator[dict[str, Story]]:
    try:
        for name, copy in COPIES:
            build(module_lab, name, copy)
        told = {name: Story(look(module_lab, interface_of(name, REPAIRED))) for name in STATES}
        for run in RUNS:
            _tell(module_lab, told, run)
        yield told
    finally:
        tcx.remove_pins([interface_of(name, copy) for name, copy in COPIES])


def _tell(lab: Lab, stories: dict[str, Story], run: str) -> None:
    """One run of the module for each release over its states, but for the copies left alone."""
    versions = {state.calico_version for state in STATES.values()}
    cases = {f"run-{version}": _options(version, run) for version in versions}
    results = lab.modules("qdisc_consistency", cases, check=run == "check", diff=True)
    for name, story in stories.items():
        result = results[f"run-{STATES[name].calico_version}"]
        endpoints = {e["interface"]: e for e in result["endpoints"]}
        story.runs[run] = result
        story.told[run] = endpoints[interface_of(name, REPAIRED)]
        story.copies[run] = {c: endpoints[interface_of(n, c)] for n, c in _copies(name)}
        story.after[run] = look(lab, interface_of(name, REPAIRED))


def _copies(name: str) -> list[tuple[str, str]]:
    return [(n, copy) for n, copy in COPIES if n == name and copy in FOR_FELIX.values()]


def _options(version: str, run: str) -> dict[str, Any]:
    return {
        "interfaces": [interface_of(n, "?") for n in STATES if STATES[n].calico_version == version],
        "exclude": [f"cali*{LEFT_ALONE}"],
        "state": "audited" if run in ("audit", "last") else "consistent",
        "calico_version": version,
        "settle": 0,
        "verbose_endpoints": True,
    }


@pytest.fixture(params=STATES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def state(name: str) -> State:
    return STATES[name]


@pytest.fixture
def story(stories: dict[str, Story], name: str) -> Story:
    return stories[name]


# --- tests ----------------------------------------------------------------------------------------


def test_audit_finds_exactly_this(story: Story, state: State) -> None:
    found = story.told["audit"]["findings"]
    shown = [(f["code"], f["hook"], f["severity"], f["repairable"]) for f in found]
    wanted = [(f.code, f.hook, f.severity, f.repairable) for f in state.findings]
    assert sorted(shown, key=str) == sorted(wanted, key=str)
    drifts = any(f.severity == "drift" for f in state.findings)
    assert story.told["audit"]["verdict"] == ("drifted" if drifts else "consistent")


def test_what_cannot_be_repaired_has_a_remedy(story: Story, state: State) -> None:
    for wanted in state.findings:
        messages = [
            f["message"] for f in story.told["audit"]["findings"] if f["code"] == wanted.code
        ]
        assert all(wanted.remedy in message for message in messages)


def test_a_bare_hook_is_called_one(story: Story) -> None:
    """Where nothing of ours is attached, the finding says in capitals that nothing is enforced."""
    for hook in HOOKS:
        bare = not story.before.ours(hook) and not story.before.tcx[hook]
        told = [
            f for f in story.told["audit"]["findings"]
            if f["hook"] in (hook, None) and ENFORCES_NOTHING in f["message"]
        ]  # fmt: skip
        assert bool(told) == bare


def test_audit_and_check_mode_write_nothing(story: Story) -> None:
    assert story.after["audit"] == story.before
    assert story.after["check"] == story.before
    assert not story.runs["audit"]["changed"]


def test_check_mode_predicts_the_repair(story: Story, state: State) -> None:
    """Plan, end and verdict to the letter; and the real run does just that plan."""
    predicted, done = dict(story.told["check"]), dict(story.told["repair"])
    assert predicted == done
    assert done["done"] == done["plan"]
    assert bool(done["plan"]) == state.changes
    assert story.runs["check"]["changed"] == story.runs["repair"]["changed"]
    assert story.runs["check"].get("diff") == story.runs["repair"].get("diff")


def test_verdict_of_the_repair(story: Story, state: State) -> None:
    assert story.told["repair"]["verdict"] == state.verdict


def test_the_same_programs_go_on_running(story: Story, state: State) -> None:
    """One program of each hook's own stays, under its name; nothing else comes or goes."""
    after = story.after["repair"]
    if not state.changes:
        assert after == story.before
        return
    for hook in HOOKS:
        before = story.before.ours(hook)
        kept = [before[state.keeps.get(hook, 0)]] if before else []
        identity = [(f.program_id, f.name) for f in kept]
        assert [(f.program_id, f.name) for f in after.ours(hook)] == identity
        assert all(f.direct_action and f.protocol == "all" for f in after.ours(hook))
        assert after.tcx[hook] == story.before.tcx[hook]
    assert after.qdiscs == story.before.qdiscs
    assert after.pins == []


def test_slots_are_equal_where_repaired(story: Story, state: State) -> None:
    after = story.after["repair"]
    if state.verdict in ("consistent", "repaired") and state.qdisc == "clsact":
        slots = [[(f.priority, f.handle, f.chain) for f in after.ours(hook)] for hook in HOOKS]
        assert slots[0] == slots[1]
        assert len(slots[0]) == 1


def test_foreign_filters_are_untouched(story: Story) -> None:
    """To the letter of what tc shows, and in the same order."""
    for hook in HOOKS:
        assert story.after["last"].foreign(hook) == story.before.foreign(hook)


def test_a_second_run_changes_nothing(story: Story) -> None:
    assert not story.runs["again"]["changed"]
    assert story.told["again"]["plan"] == []
    assert story.after["again"] == story.after["repair"]
    assert story.after["last"] == story.after["repair"]


def test_the_last_audit_agrees_with_the_repair(story: Story, state: State) -> None:
    verdict = "consistent" if state.verdict == "repaired" else state.verdict
    assert story.told["last"]["verdict"] == verdict
    remaining = [f for f in story.told["last"]["findings"] if f["severity"] == "drift"]
    expected = [] if verdict == "consistent" else [f for f in state.findings if not f.repairable]
    assert len(remaining) == len(expected)


def test_the_outlook_is_what_felix_does(
    module_lab: Lab, stories: dict[str, Story], name: str, state: State
) -> None:
    """Of the copy that nobody repaired; and the message is Felix's own line."""
    interface = interface_of(name, LEFT_ALONE)
    behaviour = state.behaviour or Behaviour.ADD_THEN_DELETE
    outlook, line = witnessed(Felix(module_lab, behaviour).passes(interface))
    told = stories[name].told["audit"]
    assert told["outlook"] == outlook.value
    message = told.get("felix_message")
    assert message == (line.replace(interface, told["interface"]) if line else None)


@pytest.mark.parametrize(
    ("repaired_name", "behaviour"), AFTERWARDS, ids=[f"{n}-{e.value}" for n, e in AFTERWARDS]
)
def test_felix_finds_parity_after_the_repair(
    module_lab: Lab, stories: dict[str, Story], repaired_name: str, behaviour: Behaviour
) -> None:
    """On every one of eight passes, of which the first mends what was bare."""
    copy, story = FOR_FELIX[behaviour], stories[repaired_name]
    assert _moves(story.copies["repair"][copy]) == _moves(story.told["repair"])
    interface = interface_of(repaired_name, copy)
    assert Felix(module_lab, behaviour).passes(interface) == [None] * 8
    slots = [[f.slot for f in ours(module_lab.filters(interface, hook))] for hook in HOOKS]
    assert slots[0] == slots[1]
    assert len(slots[0]) == 1


def _moves(told: Mapping[str, Any]) -> list[tuple[object, ...]]:
    return [(s["action"], s["hook"], s.get("priority"), s.get("handle")) for s in told["done"]]
