# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the shared options mean, and what no argument spec can say of numbers."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint import argspec
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.attach import Place
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.programs import (
    ProgramSpec,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    AttachType,
    Era,
    Hook,
    Policy,
)

PROGRAM = {name: option.get("default") for name, option in argspec.PROGRAM.items()}


@pytest.mark.parametrize(
    ("era", "attach_type", "policy"),
    [
        ("auto", "auto", Policy(Era.B, None, also_safe_for=(Era.C, Era.D))),
        ("auto", "tcx", Policy(Era.B, AttachType.TCX, also_safe_for=(Era.C, Era.D))),
        ("B", "auto", Policy(Era.B)),
        ("C", "tc", Policy(Era.C, AttachType.TC)),
        ("D", "auto", Policy(Era.D)),
    ],
)
def test_policy(era: str, attach_type: str, policy: Policy) -> None:
    assert argspec.policy({"felix_era": era, "attach_type": attach_type}) == policy


def test_every_era_can_be_named() -> None:
    assert argspec.JUDGING["felix_era"]["choices"] == ["auto", *(era.value for era in Era)]


def test_place_and_program() -> None:
    given = {**PROGRAM, "pinned": "/sys/fs/bpf/p", "handle": 3, "name": "mine"}
    assert argspec.place(given, Hook.EGRESS) == Place(Hook.EGRESS, AttachType.TC, 49152, 3, "mine")
    assert argspec.program_spec(given) == ProgramSpec(pinned="/sys/fs/bpf/p")


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"priority": 1, "handle": 1, "program_id": 1, "settle": 0.0, "retries": 0},
        {"priority": 0xFFFF, "handle": 0x7FFFFFFF, "settle": 600.0, "retries": 100},
        {"priority": None, "handle": None, "attach_type": "tcx"},
    ],
)
def test_in_range(params: dict[str, Any]) -> None:
    assert argspec.out_of_range(params) is None


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"priority": 0}, "priority is 0; it must be from 1 to 65535"),
        ({"priority": 65536}, "priority is 65536"),
        ({"handle": 0}, "handle is 0"),
        ({"handle": -1}, "handle is -1"),
        ({"handle": 1 << 31}, "handle is 2147483648"),
        ({"program_id": 0}, "program_id is 0"),
        ({"settle": -0.1}, "settle is -0.1; it must be from 0 to 600"),
        ({"settle": 601}, "settle is 601"),
        ({"settle": float("nan")}, "settle is nan"),
        ({"settle": float("inf")}, "settle is inf"),
        ({"retries": -1}, "retries is -1"),
        ({"retries": 101}, "retries is 101"),
        ({"attach_type": "tcx", "handle": 1}, "TCX knows no handles"),
    ],
)
def test_out_of_range(params: dict[str, Any], words: str) -> None:
    assert words in (argspec.out_of_range(params) or "")
