# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every source of a program, attached by TC and by TCX: check mode, a first and a second run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import (
    Lab,
)
from ansible_collections.dataplane.calico_bpf.tests.support.tc.bpf_tc_program import (
    MODULE,
    SOURCES,
    TEXT,
    Options,
    Result,
    endpoint,
)
from ansible_collections.dataplane.calico_bpf.tests.support.tc.bpftool import program, program_id
from ansible_collections.dataplane.calico_bpf.tests.support.tc.held import Held, held, without_ids


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
        (current,) = done.filters(story.hook)
        assert (current.slot, current.direct_action) == ((49152, 1), True)
        assert (current.protocol, current.chain, current.kind) == ("all", 0, "bpf")
        assert not done.tcx(story.hook)
        attached = current.program_id
    else:
        ((attached, _link),) = done.tcx(story.hook)
        assert not done.filters(story.hook)
    assert story.program_id in (None, attached)
    assert program("id", str(attached))["name"] == story.program


def test_the_other_hook_stays_bare(story: Story) -> None:
    other = "egress" if story.hook == "ingress" else "ingress"
    assert (story.states[2].filters(other), story.states[2].tcx(other)) == ((), [])


def test_the_result_shows_the_kernel_state(story: Story) -> None:
    after = story.runs[1]["attachment"]["after"]
    done = story.states[2]
    assert story.runs[1]["attachment"]["before"] is None
    assert after["tag"] == program("id", str(after["program_id"]))["tag"]
    if story.options["attach_type"] == "tc":
        (current,) = done.filters(story.hook)
        assert (after["priority"], after["handle"], after["name"]) == (*current.slot, current.name)
        assert after["program_id"] == current.program_id
    else:
        assert [(after["program_id"], after["link_id"])] == done.tcx(story.hook)


def test_a_second_run_changes_nothing(story: Story) -> None:
    """A newly loaded program is compared by its tag, so the attached one stays."""
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
