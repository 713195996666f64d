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

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import Behaviour
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.states import (
    ENFORCES_NOTHING,
    FOREIGN,
    STATES,
    State,
    dead_pin,
)
from ansible_collections.dataplane.calico_bpf.tests.support.felix.lab_felix import Felix, witnessed
from ansible_collections.dataplane.calico_bpf.tests.support.felix.libbpf import HOOKS
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Filter, Lab
from ansible_collections.dataplane.calico_bpf.tests.support.tc import tcx

#: The first test waits for all of it.
pytestmark = pytest.mark.timeout(300)

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
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
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


#: Each repaired state, with the Felix that then works on a copy of it: whatever was
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
        stories = {name: Story(look(module_lab, interface_of(name, REPAIRED))) for name in STATES}
        for run in RUNS:
            _record(module_lab, stories, run)
        yield stories
    finally:
        tcx.remove_pins([interface_of(name, copy) for name, copy in COPIES])


def _record(lab: Lab, stories: dict[str, Story], run: str) -> None:
    """One run of the module for each release over its states, but for the copies left alone."""
    versions = {state.calico_version for state in STATES.values()}
    cases = {f"run-{version}": _options(version, run) for version in versions}
    results = lab.modules("qdisc_consistency", cases, check=run == "check", diff=True)
    for name, story in stories.items():
        result = results[f"run-{STATES[name].calico_version}"]
        endpoints = {e["interface"]: e for e in result["endpoints"]}
        story.runs[run] = result
        story.results[run] = endpoints[interface_of(name, REPAIRED)]
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
    found = story.results["audit"]["findings"]
    shown = [(f["code"], f["hook"], f["severity"], f["repairable"]) for f in found]
    wanted = [(f.code, f.hook, f.severity, f.repairable) for f in state.findings]
    assert sorted(shown, key=str) == sorted(wanted, key=str)
    drifts = any(f.severity == "drift" for f in state.findings)
    assert story.results["audit"]["verdict"] == ("drifted" if drifts else "consistent")


def test_what_cannot_be_repaired_has_a_remedy(story: Story, state: State) -> None:
    for wanted in state.findings:
        messages = [
            f["message"] for f in story.results["audit"]["findings"] if f["code"] == wanted.code
        ]
        assert all(wanted.remedy in message for message in messages)


def test_a_bare_hook_is_called_one(story: Story) -> None:
    """Where nothing of ours is attached, the finding says in capitals that nothing is enforced."""
    for hook in HOOKS:
        bare = not story.before.ours(hook) and not story.before.tcx[hook]
        harmful = [
            f for f in story.results["audit"]["findings"]
            if f["hook"] in (hook, None) and ENFORCES_NOTHING in f["message"]
        ]  # fmt: skip
        assert bool(harmful) == bare


def test_audit_and_check_mode_write_nothing(story: Story) -> None:
    assert story.after["audit"] == story.before
    assert story.after["check"] == story.before
    assert not story.runs["audit"]["changed"]


def test_check_mode_predicts_the_repair(story: Story, state: State) -> None:
    """Plan, end and verdict to the letter; and the real run does just that plan."""
    predicted, done = dict(story.results["check"]), dict(story.results["repair"])
    assert predicted == done
    assert done["done"] == done["plan"]
    assert bool(done["plan"]) == state.changes
    assert story.runs["check"]["changed"] == story.runs["repair"]["changed"]
    assert story.runs["check"].get("diff") == story.runs["repair"].get("diff")


def test_verdict_of_the_repair(story: Story, state: State) -> None:
    assert story.results["repair"]["verdict"] == state.verdict


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
    assert story.results["again"]["plan"] == []
    assert story.after["again"] == story.after["repair"]
    assert story.after["last"] == story.after["repair"]


def test_the_last_audit_agrees_with_the_repair(story: Story, state: State) -> None:
    verdict = "consistent" if state.verdict == "repaired" else state.verdict
    assert story.results["last"]["verdict"] == verdict
    remaining = [f for f in story.results["last"]["findings"] if f["severity"] == "drift"]
    expected = [] if verdict == "consistent" else [f for f in state.findings if not f.repairable]
    assert len(remaining) == len(expected)


def test_the_outlook_is_what_felix_does(
    module_lab: Lab, stories: dict[str, Story], name: str, state: State
) -> None:
    """Of the copy that was not repaired; and the message is Felix's own line."""
    interface = interface_of(name, LEFT_ALONE)
    behaviour = state.behaviour or Behaviour.ADD_THEN_DELETE
    outlook, line = witnessed(Felix(module_lab, behaviour).passes(interface))
    result = stories[name].results["audit"]
    assert result["outlook"] == outlook.value
    message = result.get("felix_message")
    assert message == (line.replace(interface, result["interface"]) if line else None)


@pytest.mark.parametrize(
    ("repaired_name", "behaviour"), AFTERWARDS, ids=[f"{n}-{e.value}" for n, e in AFTERWARDS]
)
def test_felix_finds_parity_after_the_repair(
    module_lab: Lab, stories: dict[str, Story], repaired_name: str, behaviour: Behaviour
) -> None:
    """On every one of eight passes, of which the first attaches the missing program."""
    copy, story = FOR_FELIX[behaviour], stories[repaired_name]
    assert _moves(story.copies["repair"][copy]) == _moves(story.results["repair"])
    interface = interface_of(repaired_name, copy)
    assert Felix(module_lab, behaviour).passes(interface) == [None] * 8
    slots = [[f.slot for f in ours(module_lab.filters(interface, hook))] for hook in HOOKS]
    assert slots[0] == slots[1]
    assert len(slots[0]) == 1


def _moves(result: Mapping[str, Any]) -> list[tuple[object, ...]]:
    return [(s["action"], s["hook"], s.get("priority"), s.get("handle")) for s in result["done"]]
