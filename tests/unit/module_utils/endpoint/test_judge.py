# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each finding: its condition, its severity, whether it is repairable, and the plan."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.judge import judge
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    AttachType,
    Behaviour,
    Code,
    DeadPin,
    EmptyProgArray,
    Endpoint,
    Finding,
    Hook,
    MissingTarget,
    Policy,
    Qdisc,
    Severity,
    Target,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.build import (
    around_a_stranger,
    at,
    endpoint,
    foreign,
    in_words,
    listed,
    ours,
    tcx,
    u32,
)

A, B, C, D = (Policy(behaviour) for behaviour in Behaviour)
AUTO = Policy(
    Behaviour.ADD_THEN_DELETE,
    also_safe_for=(
        Behaviour.ADD_WITHOUT_COMPARE,
        Behaviour.REPLACE_AND_COMPARE,
        Behaviour.REPLACE,
    ),
)
TC, TCX = (Policy(attach_type=attach_type) for attach_type in AttachType)
EGRESS_1 = at(1, program=20)
LEGACY = "calico_from_wor:[20]"
PIN = DeadPin(Hook.EGRESS, "/pins/egress")
#: In parity, but Felix 3.31 does not find its own at egress, and no priority is left below.
AT_LAST = endpoint((ours(1, 10, 32768),), (ours(1, 20, 32768, name="allow.o:[tc]"),))
UP = ("add ingress 49152/1 id 10", "add egress 49152/1 id 20")
GONE = ("delete ingress 32768/1 id 10", "delete egress 32768/1 id 20")
EMPTY = EmptyProgArray(Hook.INGRESS, 10, 3, "cali_jump3")
NO_MAIN = MissingTarget(Hook.INGRESS, 10, Target.MAIN, "index 8 of cali_progs3 (map 3)")


@dataclass(frozen=True)
class Case:
    """``findings``: code and hook; * marks repairable findings, ? notices."""

    name: str
    state: Endpoint
    policy: Policy
    outlook: str
    findings: tuple[str, ...]
    plan: tuple[str, ...] = ()


CASES = (
    Case("healthy", endpoint(at(1), EGRESS_1), B, "ok", ()),
    Case("healthy at 2", endpoint(at(2), at(2, program=20)), B, "ok", ()),
    Case("healthy TCX", endpoint((tcx(50),), (tcx(51),), Qdisc.NONE), B, "ok", ()),
    Case("no clsact", endpoint((), (), Qdisc.NONE), B, "ok", ("missing_clsact",)),
    Case(
        "no clsact, TCX at one hook",
        endpoint((tcx(50),), (), Qdisc.NONE),
        TC,
        "ok",
        ("missing_clsact", "mixed_attach_types ingress"),
    ),
    Case(
        "ingress qdisc",
        endpoint(at(1), (), Qdisc.INGRESS),
        B,
        "stuck",
        ("ingress_qdisc", "missing_program egress"),
    ),
    Case(
        "ingress qdisc, which Felix 3.31 removes",
        endpoint(at(1), (), Qdisc.INGRESS),
        D,
        "ok",
        ("ingress_qdisc", "missing_program egress"),
    ),
    Case(
        "both bare",
        endpoint((), ()),
        B,
        "ok",
        ("missing_program ingress", "missing_program egress"),
    ),
    Case(
        "bare v 1, add_then_delete: away from 1",
        endpoint((), EGRESS_1),
        B,
        "stuck",
        ("missing_program ingress",),
        ("add egress 49152/2 id 20", "delete egress 49152/1 id 20"),
    ),
    Case("bare v 2, add_then_delete", endpoint((), at(2)), B, "ok", ("missing_program ingress",)),
    Case(
        "bare v 1, replace_and_compare",
        endpoint((), EGRESS_1),
        C,
        "ok",
        ("missing_program ingress",),
    ),
    Case(
        "bare v 2, replace_and_compare: to 1",
        endpoint((), at(2, program=20)),
        C,
        "stuck",
        ("missing_program ingress",),
        ("add egress 49152/1 id 20", "delete egress 49152/2 id 20"),
    ),
    Case(
        "bare v 1, behaviour unknown: what helps B would harm C",
        endpoint((), EGRESS_1),
        AUTO,
        "stuck",
        ("missing_program ingress",),
    ),
    Case(
        "handles 1 v 2",
        endpoint(at(1), at(2, program=20)),
        B,
        "stuck",
        ("handle_mismatch*",),
        ("add egress 49152/1 id 20", "delete egress 49152/2 id 20"),
    ),
    Case(
        "handles 2 v 1",
        endpoint(at(2), EGRESS_1),
        AUTO,
        "stuck",
        ("handle_mismatch*",),
        ("add ingress 49152/1 id 10", "delete ingress 49152/2 id 10"),
    ),
    Case(
        "handles 1 v 2, replace_and_compare",
        endpoint(at(1), at(2, program=20)),
        C,
        "stuck",
        ("handle_mismatch*",),
        ("add egress 49152/1 id 20", "delete egress 49152/2 id 20"),
    ),
    Case(
        "handles 1 v 2, replace does not mind",
        endpoint(at(1), at(2, program=20)),
        D,
        "ok",
        ("handle_mismatch?",),
    ),
    Case(
        "priorities differ, which 3.28.1 does not see and 3.29 does",
        endpoint((ours(1, 10, 49148),), (ours(1, 20, 49149),)),
        A,
        "ok",
        ("priority_mismatch*",),
        ("add ingress 49149/1 id 10", "delete ingress 49148/1 id 10"),
    ),
    Case(
        "priorities differ",
        endpoint(at(1), (ours(1, 20, 49151),)),
        B,
        "stuck",
        ("priority_mismatch*",),
        ("add egress 49152/1 id 20", "delete egress 49151/1 id 20"),
    ),
    Case(
        "priorities differ, replace does not mind",
        endpoint(at(1), (ours(1, 20, 49151),)),
        D,
        "ok",
        ("priority_mismatch?",),
    ),
    Case(
        "a foreign filter at 49152: the other hook comes down",
        endpoint(listed(foreign(49152), ours(1, 10, 49151)), EGRESS_1),
        B,
        "stuck",
        ("priority_mismatch*", "priority_taken ingress"),
        ("add egress 49151/1 id 20", "delete egress 49152/1 id 20"),
    ),
    Case(
        "a foreign filter at our priority: both make way",
        endpoint(listed(foreign(49152, 2), ours(1, 10)), EGRESS_1),
        B,
        "alternates",
        ("priority_taken ingress",),
        (
            "add ingress 49151/1 id 10",
            "add egress 49151/1 id 20",
            "delete ingress 49152/1 id 10",
            "delete egress 49152/1 id 20",
        ),
    ),
    Case(
        "u32 at 49152 of a bare hook",
        endpoint((u32(49152),), EGRESS_1),
        B,
        "stuck",
        ("missing_program ingress", "priority_taken ingress"),
        ("add egress 49151/2 id 20", "delete egress 49152/1 id 20"),
    ),
    Case(
        "foreign filters at both and in parity",
        endpoint(
            listed(foreign(49152), ours(1, 10, 49151)), listed(foreign(49152), ours(1, 20, 49151))
        ),
        B,
        "ok",
        ("priority_taken ingress?", "priority_taken egress?"),
    ),
    Case(
        "wrong protocol: by way of another priority",
        endpoint(at(1), (ours(1, 20, protocol=0x0800),)),
        B,
        "stuck",
        ("wrong_protocol egress*",),
        (
            "add egress 49151/1 id 20",
            "delete egress 49152/1 id 20",
            "add egress 49152/1 id 20",
            "delete egress 49151/1 id 20",
        ),
    ),
    Case(
        "wrong chain",
        endpoint(at(1), (ours(1, 20, chain=5),)),
        B,
        "alternates",
        ("wrong_chain egress*",),
        ("add egress 49152/1 id 20", "delete egress 49152/1 id 20 chain 5"),
    ),
    Case(
        "another chain beside the right one",
        endpoint(at(1), (ours(1, 20), ours(1, 21, chain=5))),
        B,
        "alternates",
        ("wrong_chain egress*", "duplicate_program egress*"),
        ("delete egress 49152/1 id 21 chain 5",),
    ),
    Case(
        "the same program twice",
        endpoint(at(1), listed(ours(1, 20), ours(2, 20))),
        B,
        "heals",
        ("duplicate_program egress*", "handle_mismatch*"),
        ("delete egress 49152/2 id 20",),
    ),
    Case(
        "an older program behind",
        endpoint(at(1), at(1, 2, program=20)),
        B,
        "heals",
        ("duplicate_program egress*", "handle_mismatch*"),
        ("replace egress 49152/1 id 21", "delete egress 49152/2 id 21"),
    ),
    Case(
        "an older program before",
        endpoint(at(1), listed(ours(1, 21, loaded_at=9), ours(2, 20, loaded_at=3))),
        B,
        "heals",
        ("stale_program egress*",),
        ("delete egress 49152/2 id 20",),
    ),
    Case(
        "an older program before, at a lower priority",
        endpoint(at(1), listed(ours(1, 21, loaded_at=9), ours(1, 20, 10, loaded_at=3))),
        B,
        "ok",
        ("stale_program egress*",),
        ("delete egress 10/1 id 20",),
    ),
    Case(
        "an older program before, whose id is the higher one",
        endpoint(at(1), listed(ours(1, 20, loaded_at=9), ours(2, 21, loaded_at=3))),
        B,
        "heals",
        ("stale_program egress*",),
        ("delete egress 49152/2 id 21",),
    ),
    Case(
        "a legacy program beside",
        endpoint(at(1), listed(ours(2, 20, name=LEGACY, loaded_at=9), ours(1, 21, loaded_at=3))),
        B,
        "heals",
        ("legacy_program egress*",),
        ("delete egress 49152/2 id 20",),
    ),
    Case(
        "a legacy program alone stays",
        endpoint(at(1), (ours(1, 20, name=LEGACY),)),
        B,
        "ok",
        ("legacy_program egress",),
    ),
    Case(
        "no verdict: replaced in place",
        endpoint(at(1), (ours(1, 20, direct_action=False),)),
        B,
        "ok",
        ("not_direct_action egress*",),
        ("replace egress 49152/1 id 20",),
    ),
    Case(
        "no verdict at both hooks: no outlook in between is worse",
        endpoint((ours(2, 10, direct_action=False),), (ours(2, 20, direct_action=False),)),
        AUTO,
        "ok",
        ("not_direct_action ingress*", "not_direct_action egress*"),
        ("replace ingress 49152/2 id 10", "replace egress 49152/2 id 20"),
    ),
    Case(
        "no verdict, and a stranger at our priority",
        endpoint(listed(foreign(49152, 9), ours(1, 10, direct_action=False)), at(1, program=20)),
        AUTO,
        "ok",
        ("foreign_filter_first ingress*?", "not_direct_action ingress*", "priority_taken ingress?"),
        ("replace ingress 49152/1 id 10",),
    ),
    Case(
        "two around a stranger, the newer one before it: no kill would be safe",
        endpoint(around_a_stranger(11, 10), around_a_stranger(21, 20)),
        B,
        "ok",
        ("duplicate_program ingress", "duplicate_program egress"),
    ),
    Case(
        "two around a stranger, the newer one behind it",
        endpoint(around_a_stranger(10, 11), around_a_stranger(20, 21)),
        AUTO,
        "ok",
        (
            "stale_program ingress*",
            "stale_program egress*",
        ),
        ("delete ingress 49150/1 id 10", "delete egress 49150/1 id 20"),
    ),
    Case(
        "TCX before filters",
        endpoint((tcx(50), *at(1)), EGRESS_1),
        B,
        "ok",
        ("mixed_attach_types ingress",),
    ),
    Case(
        "filters beside the wanted TCX",
        endpoint((tcx(50), *at(1)), (tcx(51), *EGRESS_1)),
        TCX,
        "ok",
        ("mixed_attach_types ingress", "mixed_attach_types egress"),
    ),
    Case(
        "TCX at both hooks where filters are wanted",
        endpoint((tcx(50),), (tcx(51),)),
        TC,
        "ok",
        (
            "mixed_attach_types ingress",
            "mixed_attach_types egress",
            "missing_program ingress",
            "missing_program egress",
        ),
    ),
    Case(
        "filters at both hooks where TCX is wanted",
        endpoint(at(1), EGRESS_1),
        TCX,
        "ok",
        (
            "mixed_attach_types ingress",
            "mixed_attach_types egress",
            "missing_program ingress",
            "missing_program egress",
        ),
    ),
    Case(
        "TCX at one hook",
        endpoint((tcx(50),), (), Qdisc.NONE),
        B,
        "ok",
        ("missing_program egress",),
    ),
    Case(
        "a dead pin at a bare hook",
        endpoint((tcx(50),), (), Qdisc.NONE, dead_pins=(PIN,)),
        B,
        "ok",
        ("missing_program egress", "dead_pin egress*"),
        ("unpin egress /pins/egress",),
    ),
    Case(
        "a dead pin before a mismatch",
        endpoint(at(1), at(2, program=20), dead_pins=(PIN,)),
        B,
        "stuck",
        ("handle_mismatch*", "dead_pin egress*"),
        (
            "unpin egress /pins/egress",
            "add egress 49152/1 id 20",
            "delete egress 49152/2 id 20",
        ),
    ),
    Case(
        "a foreign filter first",
        endpoint(listed(foreign(1), *at(1)), EGRESS_1),
        B,
        "ok",
        ("foreign_filter_first ingress?",),
    ),
    Case(
        "a foreign TCX program first",
        endpoint((tcx(60, "cil_from_netdev"), *at(1)), EGRESS_1),
        B,
        "ok",
        ("foreign_filter_first ingress?",),
    ),
    Case(
        "a foreign filter behind",
        endpoint(listed(foreign(50000), *at(1)), EGRESS_1),
        B,
        "ok",
        (),
    ),
    Case(
        "foreign filters whose order a move would change",
        endpoint(listed(foreign(50), ours(1, 10, 10)), listed(foreign(50), *EGRESS_1)),
        B,
        "stuck",
        ("foreign_filter_first egress?", "priority_mismatch"),
    ),
    Case(
        "an empty program array",
        endpoint(at(1), EGRESS_1, empty_prog_arrays=(EMPTY,)),
        B,
        "ok",
        ("empty_prog_array ingress",),
    ),
    Case("Felix 3.31 finds no place", AT_LAST, D, "stuck", ("felix_fails*",), (*UP, *GONE)),
    Case(
        "a main program that is missing",
        endpoint(at(1), EGRESS_1, missing_targets=(NO_MAIN,)),
        B,
        "ok",
        ("missing_jump_target ingress",),
    ),
    Case(
        "programs that the kernel does not name",
        endpoint((ours(1, 0),), (ours(2, 0),)),
        B,
        "stuck",
        ("handle_mismatch",),
    ),
)


def short(f: Finding) -> str:
    marks = ("*" if f.repairable else "") + ("?" if f.severity is Severity.NOTICE else "")
    return f"{f.code.value}{f' {f.hook.value}' if f.hook else ''}{marks}"


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_judge(case: Case) -> None:
    judged = judge(case.state, case.policy)
    assert sorted(map(short, judged.findings)) == sorted(case.findings)
    assert tuple(in_words(judged.plan)) == case.plan
    assert judged.outlook.value == case.outlook
    assert (judged.felix_message is not None) is (case.outlook in ("alternates", "stuck"))


def test_the_table_knows_every_code() -> None:
    named = {word.split()[0].rstrip("*?") for case in CASES for word in case.findings}
    assert named == {code.value for code in Code}
