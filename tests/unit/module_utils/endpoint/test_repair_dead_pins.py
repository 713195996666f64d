# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repairs of dead pins: removed, unless one has come to life or is gone already."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.judge import judge
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.snapshot import Reader
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    DeadPin,
    Hook,
    Qdisc,
    Verdict,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.build import (
    INTERFACE,
    at,
    endpoint,
    in_words,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.repairs import (
    POLICY,
    Patch,
    at_calls,
    kernel_with,
    repair,
)


@pytest.fixture(autouse=True)
def _no_real_bpf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test's kernel patches itself in; see ``kernel_with``."""
    Patch.now = monkeypatch


@dataclass
class Pins:
    """A folder of pins, each of a link that is dead unless ``alive``.

    ``vanishing``: another process removes a pin right after it was read.
    """

    folder: Path
    alive: bool = False
    vanishing: bool = False

    def dead(self, hook: Hook) -> DeadPin:
        path = self.folder / f"{INTERFACE}_{hook.value}"
        path.touch()
        return DeadPin(hook, str(path))


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pins:
    made = Pins(tmp_path)

    def link_is_dead(_unused: Reader, path: str) -> bool:
        return not made.alive and (made.vanishing or Path(path).exists())

    monkeypatch.setattr(Reader, "link_is_dead", link_is_dead)
    return made


def test_a_dead_pin_is_removed(pins: Pins) -> None:
    broken = endpoint(at(1), at(1, program=20), dead_pins=(pins.dead(Hook.EGRESS),))
    kernel = kernel_with(broken)
    outcome = repair(kernel, broken)
    assert outcome.verdict is Verdict.REPAIRED
    assert in_words(outcome.done) == [f"unpin egress {pins.folder}/{INTERFACE}_egress"]
    assert list(pins.folder.iterdir()) == []
    assert kernel.writes == 0


def test_a_pin_that_came_to_life_is_left_alone(pins: Pins) -> None:
    broken = endpoint(at(1), at(1, program=20), dead_pins=(pins.dead(Hook.EGRESS),))
    pins.alive = True
    outcome = repair(kernel_with(broken), broken)
    assert outcome.verdict is Verdict.CONSISTENT
    assert len(list(pins.folder.iterdir())) == 1
    assert "no longer a dead pin" in outcome.notes[0]


@pytest.mark.parametrize("vanishing", [False, True])
def test_a_pin_removed_by_another_process_is_not_an_error(pins: Pins, vanishing: bool) -> None:
    pins.vanishing = vanishing
    broken = endpoint(at(1), at(1, program=20), dead_pins=(pins.dead(Hook.EGRESS),))
    (pins.folder / f"{INTERFACE}_egress").unlink()
    outcome = repair(kernel_with(broken), broken)
    assert outcome.verdict is Verdict.CONSISTENT
    assert outcome.done == ()
    assert outcome.notes


def test_clsact_comes_between_two_tries(pins: Pins) -> None:
    """Felix makes clsact, and attaches out of step, while a bare interface's pin is removed."""
    broken = endpoint((), (), Qdisc.NONE, dead_pins=(pins.dead(Hook.EGRESS),))
    kernel = kernel_with(broken)
    felix_made = endpoint(at(1), at(2, program=20))
    kernel.before_call = at_calls((0, partial(kernel.put, felix_made)))
    pins.alive = True
    outcome = repair(kernel, broken)
    assert outcome.verdict is Verdict.REPAIRED
    assert judge(kernel.endpoints[INTERFACE], POLICY).findings == ()
