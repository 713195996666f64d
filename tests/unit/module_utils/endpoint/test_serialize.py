# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The returned values: their shape, plain enough for JSON, and readable in a diff."""

from __future__ import annotations

import json
from dataclasses import replace

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint import serialize
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.audit import Audit
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.judge import judge
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.plan import apply_plan
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.repair import Outcome
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.dataplane import (
    Dataplane,
    Mode,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    Behaviour,
    Code,
    DeadPin,
    Endpoint,
    Hook,
    Judgement,
    Outlook,
    Policy,
    Qdisc,
    Verdict,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.build import (
    INTERFACE,
    at,
    endpoint,
    tcx,
    u32,
)

EBPF = Dataplane(Mode.EBPF, "1 of 1 interfaces have programs of Calico")
POLICY = Policy(Behaviour.ADD_THEN_DELETE)
HEALTHY = endpoint(at(1), at(1, program=20))
MISMATCH = endpoint(at(1), at(2, program=20), dead_pins=(DeadPin(Hook.EGRESS, "/pins/e"),))
CLEAN = Judgement((), (), Outlook.OK)


def seen(state: Endpoint, verdict: Verdict) -> Outcome:
    judged = judge(state, POLICY)
    return Outcome(verdict=verdict, before=state, found=judged, after=state, left=judged)


def repaired(state: Endpoint) -> Outcome:
    judged = judge(state, POLICY)
    return Outcome(
        verdict=Verdict.REPAIRED,
        before=state,
        found=judged,
        after=apply_plan(state, judged.plan),
        left=CLEAN,
        done=judged.plan,
        notes=("n",),
    )


VANISHED = Outcome(
    verdict=Verdict.VANISHED,
    before=Endpoint("gone", 0, Qdisc.NONE),
    found=CLEAN,
    after=None,
    left=None,
)


def test_an_attachment() -> None:
    assert serialize.attachment(at(2)[0]) == {
        "attach_type": "tc",
        "priority": 49152,
        "handle": 2,
        "program_id": 10,
        "name": "cali_tc_preambl:[10]",
        "tag": "aa",
        "direct_action": True,
        "calico": True,
        "kind": "bpf",
        "protocol": 3,
        "chain": 0,
    }
    shown = serialize.attachment(tcx(50))
    assert (shown["attach_type"], shown["link_id"]) == ("tcx", 50)
    assert "chain" not in shown


def test_an_outcome() -> None:
    shown = serialize.outcome(repaired(MISMATCH))
    assert set(shown) == {
        "interface", "ifindex", "qdisc", "ingress", "egress", "verdict", "outlook",
        "outlook_by_behaviour", "findings", "remaining", "plan", "done", "notes",
    }  # fmt: skip
    assert shown["outlook_by_behaviour"] == {b.value: "ok" for b in Behaviour}
    assert (shown["verdict"], shown["outlook"], shown["notes"]) == ("repaired", "ok", ["n"])
    assert [a["handle"] for a in shown["egress"]] == [1]
    assert shown["plan"] == shown["done"]
    assert shown["remaining"] == []
    assert shown["plan"][0] == {"action": "unpin", "hook": "egress", "path": "/pins/e"}
    assert shown["plan"][1] == {
        "action": "add",
        "hook": "egress",
        "priority": 49152,
        "handle": 1,
        "chain": 0,
        "program_id": 20,
        "name": "cali_tc_preambl:[20]",
    }
    assert set(shown["findings"][0]) == {"code", "hook", "message", "severity", "repairable"}
    assert [(f["code"], f["hook"], f["repairable"]) for f in shown["findings"]] == [
        ("handle_mismatch", None, True),
        ("dead_pin", "egress", True),
    ]


def test_felix_message_is_there_exactly_where_stuck() -> None:
    assert "does not equal" in serialize.outcome(seen(MISMATCH, Verdict.DRIFTED))["felix_message"]
    assert "felix_message" not in serialize.outcome(repaired(MISMATCH))
    assert "felix_message" not in serialize.outcome(seen(HEALTHY, Verdict.CONSISTENT))


def test_a_program_that_disappeared_is_reported() -> None:
    """``findings`` are from before; the result must also show that a hook is bare since."""
    left = endpoint(at(1), ())
    judged = judge(left, POLICY)
    assert Code.MISSING_PROGRAM in [f.code for f in judged.findings]
    outcome = replace(
        seen(MISMATCH, Verdict.DRIFTED), after=left, left=judged, notes=("egress changed",)
    )
    assert "NO POLICY IS ENFORCED" in json.dumps(serialize.outcome(outcome))


def test_only_drifted_or_changed_endpoints_are_listed() -> None:
    outcomes = (
        seen(HEALTHY, Verdict.CONSISTENT),
        seen(replace(MISMATCH, interface="calib"), Verdict.DRIFTED),
        replace(seen(HEALTHY, Verdict.UNMANAGED), before=replace(HEALTHY, interface="calic")),
        repaired(replace(MISMATCH, interface="calia")),
        VANISHED,
    )
    shown = serialize.audit_to_dict(Audit(outcomes, EBPF), verbose=False, with_diff=False)
    assert [e["interface"] for e in shown["endpoints"]] == ["calia", "calib", "gone"]
    everything = serialize.audit_to_dict(Audit(outcomes, EBPF), verbose=True, with_diff=False)
    assert len(everything["endpoints"]) == 5
    assert everything["summary"] == shown["summary"]


def test_the_summary_counts_every_endpoint_and_finding() -> None:
    outcomes = [seen(MISMATCH, Verdict.DRIFTED), repaired(MISMATCH), VANISHED]
    assert serialize.summary(outcomes) == {
        "endpoints": 3,
        "verdicts": {
            "consistent": 0,
            "drifted": 1,
            "repaired": 1,
            "contended": 0,
            "vanished": 1,
            "unmanaged": 0,
        },
        "findings": {"dead_pin": 2, "handle_mismatch": 2},
        "failed": [],
    }


def test_changed_says_whether_steps_were_done() -> None:
    drifted, fixed = seen(MISMATCH, Verdict.DRIFTED), repaired(MISMATCH)
    audit = serialize.audit_to_dict(Audit((drifted,), EBPF), verbose=False, with_diff=True)
    assert not audit["changed"]
    assert "diff" not in audit
    run = serialize.audit_to_dict(
        Audit((drifted, fixed), EBPF, {"tcx": "why"}), verbose=False, with_diff=True
    )
    assert run["changed"]
    assert run["unread"] == {"tcx": "why"}
    assert run["not_judged"] == ["could not read tcx (why)"]
    assert run["summary"]["not_judged"] == 1
    assert (audit["not_judged"], audit["summary"]["not_judged"]) == ([], 0)
    quiet = serialize.audit_to_dict(Audit((fixed,), EBPF), verbose=False, with_diff=False)
    assert "diff" not in quiet


def test_a_diff_shows_one_line_for_each_attachment_and_pin() -> None:
    fixed = repaired(MISMATCH)
    ingress = f"{INTERFACE} ingress: cali_tc_preambl:[10] id 10 at pref 49152 handle 1"
    egress = f"{INTERFACE} egress: cali_tc_preambl:[20] id 20 at pref 49152 handle"
    assert serialize.diff([(fixed.before, fixed.after)]) == {
        "before": f"{ingress} direct-action\n{egress} 2 direct-action\n"
        f"{INTERFACE} egress: dead pin /pins/e\n",
        "after": f"{ingress} direct-action\n{egress} 1 direct-action\n",
    }
    assert serialize.diff([(None, HEALTHY), (HEALTHY, None)])["before"].count("\n") == 2


def test_odd_attachments_read_well() -> None:
    odd = endpoint(
        (tcx(50, "cil_from_netdev"), u32(7), at(1)[0]._replace(chain=5, protocol=0x0800)), ()
    )
    assert serialize.lines(odd) == [
        f"{INTERFACE} ingress: tcx cil_from_netdev id 50",
        f"{INTERFACE} ingress: u32 filter at pref 7 handle 2147485696",
        f"{INTERFACE} ingress: cali_tc_preambl:[10] id 10 at pref 49152 handle 1 chain 5 "
        "protocol 0x0800 direct-action",
    ]


def test_everything_is_plain_json() -> None:
    outcomes = (seen(MISMATCH, Verdict.DRIFTED), repaired(MISMATCH), VANISHED)
    shown = serialize.audit_to_dict(Audit(outcomes, EBPF), verbose=True, with_diff=True)
    assert json.loads(json.dumps(shown)) == shown
    plain = {dict, list, str, int, bool, type(None)}

    def walk(value: object) -> None:
        assert type(value) in plain, value
        if isinstance(value, dict):
            walk(list(value.items()) and list(value) + list(value.values()))
        elif isinstance(value, list):
            for one in value:
                walk(one)

    walk(shown)
