# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What findings say of a hook without a program, and which program stays."""

from __future__ import annotations

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.findings import survivor
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.judge import judge
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    Behaviour,
    Code,
    Endpoint,
    Policy,
    Qdisc,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.build import (
    at,
    endpoint,
    ours,
    tcx,
)

B = Policy(Behaviour.ADD_THEN_DELETE)
AUTO = Policy(Behaviour.ADD_THEN_DELETE, also_safe_for=tuple(Behaviour))


@pytest.mark.parametrize(
    "state",
    [
        endpoint((), at(1, program=20)),
        endpoint((), ()),
        endpoint((), (), Qdisc.NONE),
        endpoint((tcx(50),), (), Qdisc.NONE),
    ],
)
def test_a_hook_without_a_program_is_said_in_capitals(state: Endpoint) -> None:
    missing = (Code.MISSING_PROGRAM, Code.MISSING_CLSACT)
    messages = [f.message for f in judge(state, B).findings if f.code in missing]
    assert messages
    assert all("NO POLICY IS ENFORCED" in message for message in messages)


def test_a_hook_that_another_attach_type_holds_is_not_called_bare() -> None:
    findings = judge(endpoint((tcx(50),), at(1, program=20)), B).findings
    missing = next(f for f in findings if f.code is Code.MISSING_PROGRAM)
    assert "NO POLICY" not in missing.message
    assert "another attach type enforces" in missing.message


def test_an_unknown_release_is_asked_for_where_it_matters() -> None:
    assert "calico_version" in judge(endpoint((), at(1, program=20)), AUTO).findings[0].message
    assert "calico_version" not in judge(endpoint((), at(1, program=20)), B).findings[0].message


def test_which_of_several_stays() -> None:
    newest = ours(1, 20, loaded_at=9)
    older = ours(2, 21, loaded_at=3)
    assert survivor((older, newest)) == newest
    assert survivor((ours(2, 21), ours(1, 20))).program_id == 21  # load times unknown
    assert survivor((ours(2, 20), ours(1, 20))).handle == 2  # the first, which packets meet
    as_felix_does_not = ours(3, 22, loaded_at=99, direct_action=False)
    assert survivor((as_felix_does_not, newest)) == newest
    assert survivor((newest._replace(name="calico_from_wor:[20]"), older)) == older
