# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the shared options mean, and what no argument spec can say of numbers."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint import argspec
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.attach import Place
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import Refusal
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.programs import (
    ProgramSpec,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    AttachType,
    Behaviour,
    Hook,
    Policy,
)

PROGRAM = {name: option.get("default") for name, option in argspec.PROGRAM.items()}


@pytest.mark.parametrize(
    ("version", "attach_type", "policy"),
    [
        (
            "auto",
            "auto",
            Policy(
                Behaviour.ADD_THEN_DELETE,
                None,
                also_safe_for=(
                    Behaviour.ADD_WITHOUT_COMPARE,
                    Behaviour.REPLACE_AND_COMPARE,
                    Behaviour.REPLACE,
                ),
            ),
        ),
        (
            "auto",
            "tcx",
            Policy(
                Behaviour.ADD_THEN_DELETE,
                AttachType.TCX,
                also_safe_for=(
                    Behaviour.ADD_WITHOUT_COMPARE,
                    Behaviour.REPLACE_AND_COMPARE,
                    Behaviour.REPLACE,
                ),
            ),
        ),
        ("v3.28.1", "auto", Policy(Behaviour.ADD_WITHOUT_COMPARE)),
        ("v3.29.1", "auto", Policy(Behaviour.ADD_THEN_DELETE)),
        ("3.29.5", "tc", Policy(Behaviour.REPLACE_AND_COMPARE, AttachType.TC)),
        ("v3.31.0", "auto", Policy(Behaviour.REPLACE)),
    ],
)
def test_policy(version: str, attach_type: str, policy: Policy) -> None:
    assert argspec.policy({"calico_version": version, "attach_type": attach_type}) == policy


@pytest.mark.parametrize(
    "version", ["B", "", "latest", "v3.29", "v3.23.5", "v3.33.0", "v3.31.0-rc1"]
)
def test_a_release_that_is_not_known_is_refused(version: str) -> None:
    with pytest.raises(Refusal) as caught:
        argspec.policy({"calico_version": version, "attach_type": "auto"})
    assert str(caught.value) == (
        f"calico_version is {version!r}; known releases are v3.24.0 to v3.32 (final ones, such as "
        "v3.29.5), or auto; nothing was changed"
    )


@pytest.mark.parametrize("version", ["v3.24.0", "v3.27.4"])
def test_a_release_from_before_these_behaviours_is_judged_as_auto(version: str) -> None:
    auto = argspec.policy({"calico_version": "auto", "attach_type": "auto"})
    assert argspec.policy({"calico_version": version, "attach_type": "auto"}) == auto


def test_every_behaviour_is_that_of_some_release() -> None:
    versions = ("v3.28.1", "v3.29.1", "v3.29.5", "v3.31.0")
    policies = [argspec.policy({"calico_version": v, "attach_type": "auto"}) for v in versions]
    assert [policy.behaviour for policy in policies] == list(Behaviour)


def test_place_and_program() -> None:
    given = {**PROGRAM, "pinned": "/sys/fs/bpf/p", "handle": 3, "name": "mine"}
    assert argspec.place(given, Hook.EGRESS) == Place(
        hook=Hook.EGRESS, attach_type=AttachType.TC, priority=49152, handle=3, name="mine"
    )
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
        ({"attach_type": "tcx", "handle": 1}, "TCX has no handles"),
    ],
)
def test_out_of_range(params: dict[str, Any], words: str) -> None:
    assert words in (argspec.out_of_range(params) or "")
