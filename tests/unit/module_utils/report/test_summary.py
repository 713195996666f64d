# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a report makes of a journal, above all of one that ends where it should not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.next_steps import (
    next_steps,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.phases import State
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.summary import (
    Report,
    RunVerdict,
    Stop,
    summarize,
)
from ansible_collections.dataplane.calico_bpf.tests.support.report.rollout import (
    NEW,
    OLD,
    RUN,
    Rollout,
    endpoint,
    parity,
    result_of,
)


def of(rollout: Rollout) -> Report:
    return summarize(rollout.events, rollout.run, rollout.check)


def states(made: Report) -> dict[str, str]:
    return {n.name: n.state.value for n in made.nodes}


def tries(made: Report, node: int = 0) -> list[tuple[str, str]]:
    return [(p.phase, p.state.value) for p in made.nodes[node].phases]


@pytest.fixture
def rollout() -> Rollout:
    begun = Rollout()
    begun.begin("w1", "w2", "w3", target=NEW)
    return begun


def failed_at(rollout: Rollout, phase: str, node: str = "w2") -> None:
    rollout.say("begun", node, phase)
    rollout.say("failed", node, phase, after=60, message="because")


def test_a_run_that_went_well(rollout: Rollout) -> None:
    rollout.phase("", "preflight", 4)
    for node in ("w1", "w2", "w3"):
        rollout.node(node, total=3)
    rollout.say("finished", message="all well")
    made = of(rollout)
    assert (made.verdict, made.stop, made.message) == (RunVerdict.COMPLETED, None, "all well")
    assert states(made) == {"w1": "done", "w2": "done", "w3": "done"}
    assert (made.title, made.about) == ("Calico v3.28.1 to v3.29.5", {"target": NEW})
    assert [(n.version_before, n.version_after) for n in made.nodes] == [(OLD, NEW)] * 3
    assert made.nodes[0].seconds == sum(range(5, 12))
    assert [p.seconds for p in made.nodes[0].phases] == list(range(5, 12))
    assert (made.started, made.ended) == (rollout.events[0].at, rollout.events[-1].at)
    assert [(p.phase, p.seconds) for p in made.phases] == [("preflight", 4)]
    totals = made.totals
    assert totals.nodes == {"done": 3}
    assert (totals.found, totals.repaired, totals.left) == (9, 6, 0)
    assert (totals.evicted, totals.drain_seconds) == (6, 37.5)
    assert (totals.sent_packets, totals.lost_packets) == (None, None)
    assert totals.seconds_by_phase["drain"] == 18
    assert next_steps(made) == ("Nothing is left to do.",)


def test_every_truncated_journal_has_no_end(rollout: Rollout) -> None:
    """Killed after any event: never completed, and the phase that was on is named."""
    for node in ("w1", "w2", "w3"):
        rollout.node(node)
    for cut in range(1, len(rollout.events) + 1):
        made = summarize(rollout.events[:cut], RUN)
        last = rollout.events[cut - 1]
        assert made.verdict is RunVerdict.RUNNING
        assert (made.ended, made.last_event_at) == ("", last.at)
        on = [(n.name, p.phase) for n in made.nodes for p in n.phases if p.state is State.RUNNING]
        begun = last.status.value == "begun" and last.node
        assert on == ([(last.node, last.phase)] if begun else [])
        step = next_steps(made)[0]
        assert "the run was killed after its last event" in step
        if begun:
            assert f"({last.node}, {last.phase})" in step


def test_a_failure_stops_the_run(rollout: Rollout) -> None:
    rollout.node("w1")
    rollout.phase("w2", "drain", result=result_of("drain"))
    failed_at(rollout, "verify")
    for said in (False, True):
        if said:
            rollout.say("stopped", message="w3 was not touched")
        made = of(rollout)
        assert made.verdict is RunVerdict.STOPPED
        assert states(made) == {"w1": "done", "w2": "failed", "w3": "untouched"}
        assert made.stop
        assert (made.stop.node, made.stop.phase, made.stop.message) == ("w2", "verify", "because")
        assert made.nodes[1].message == "because"
        assert made.nodes[1].phases[-1].seconds == 60
        assert [n.cordoned for n in made.nodes] == [False, True, False]
        steps = next_steps(made)
        assert "checks of w2" in steps[0]
        assert "Cordoned by this run, unless uncordoned since: w2 " in steps[1]
        assert "same playbook again" in steps[2]
        assert "rollback playbook" in steps[3]
    assert made.message == "w3 was not touched"


def test_a_node_that_is_not_kept_cordoned_is_not_listed(rollout: Rollout) -> None:
    """A drain that evicted nothing says so; what a stop uncordons is noted."""
    for node in ("w1", "w2", "w3"):
        rollout.say("begun", node, "drain")
    nothing = {"evicted": [], "cordoned": False}
    rollout.say("failed", "w1", "drain", message="because", result=nothing)
    rollout.say("note", "w2", message="Another node failed.", result={"uncordoned": True})
    rollout.say("note", "w3", message="Another node failed.")
    rollout.say("stopped", message="because")
    made = of(rollout)
    assert [node.cordoned for node in made.nodes] == [False, False, True]
    assert any(
        step.startswith("Cordoned by this run") and ": w3 " in step for step in next_steps(made)
    )


def test_the_first_failure_is_the_cause(rollout: Rollout) -> None:
    """A batch mate is sent through its rescue too, and says that it failed."""
    rollout.say("begun", "w1", "drain")
    rollout.say("begun", "w2", "drain")
    rollout.say("failed", "w2", "drain", message="cause")
    made = of(rollout)
    assert made.verdict is RunVerdict.RUNNING
    assert made.stop
    assert made.stop.message == "cause"
    rollout.say("failed", "w1", "drain", message="with it")
    made = of(rollout)
    assert made.verdict is RunVerdict.STOPPED
    assert made.stop
    assert made.stop.message == "cause"


def test_a_node_that_failed_did_so_in_the_phase_that_was_on(rollout: Rollout) -> None:
    rollout.say("begun", "w1", "drain")
    rollout.say("failed", "w1", message="why", result={"odd": 1})
    made = of(rollout)
    assert tries(made) == [("drain", "failed")]
    assert made.nodes[0].result.other == {"odd": 1}
    assert made.stop == Stop(rollout.events[-1].at, "w1", "drain", "why")


def test_an_unreachable_node(rollout: Rollout) -> None:
    rollout.say("begun", "w1", "reattach")
    rollout.say("unreachable", "w1", message="no route to host")
    rollout.say("stopped")
    made = of(rollout)
    assert states(made)["w1"] == "unreachable"
    assert made.stop == Stop(rollout.events[-2].at, "w1", "reattach", "no route to host")
    assert "w1 stopped answering" in " ".join(next_steps(made))


def test_finished_is_not_completed_where_a_node_is_not(rollout: Rollout) -> None:
    rollout.say("begun", "w1", "drain")
    rollout.say("finished")
    made = of(rollout)
    assert made.verdict is RunVerdict.STOPPED
    assert states(made)["w1"] == "interrupted"
    assert tries(made) == [("drain", "interrupted")]


def test_finished_without_touching_all_says_so(rollout: Rollout) -> None:
    rollout.say("skipped", "w1", message="already at v3.29.5")
    rollout.say("finished", total=5)
    made = of(rollout)
    assert made.verdict is RunVerdict.PARTIAL
    assert made.totals.nodes == {"skipped": 1, "untouched": 4}
    assert made.nodes[0].message == "already at v3.29.5"
    assert next_steps(made) == ("4 nodes were not touched: run the playbook for them too.",)


def test_a_limited_run_leaves_old_pods(rollout: Rollout) -> None:
    for name in ("w1", "w2", "w3"):
        rollout.node(name)
    rollout.say("finished", result={"pods_left": 2})
    made = of(rollout)
    assert made.verdict is RunVerdict.PARTIAL
    assert made.stop is None
    (step,) = next_steps(made)
    assert step.startswith(
        "2 calico-node pods have an older revision, and the DaemonSet stays at OnDelete"
    )


def test_a_failed_preflight_of_the_run(rollout: Rollout) -> None:
    rollout.phase("", "lease")
    rollout.say("begun", phase="preflight")
    rollout.say("failed", phase="preflight", message="no permission")
    rollout.say("stopped")
    made = of(rollout)
    assert made.stop == Stop(rollout.events[-2].at, "", "preflight", "no permission")
    assert made.totals.nodes == {"untouched": 3}
    assert not any("Cordoned" in step or "rollback" in step for step in next_steps(made))


def test_the_run_itself_may_say_where_it_stopped(rollout: Rollout) -> None:
    rollout.phase("w1", "drain")
    rollout.say("stopped", "w1", "qdisc_parity", message="the Lease was lost")
    made = of(rollout)
    assert made.stop == Stop(rollout.events[-1].at, "w1", "qdisc_parity", "the Lease was lost")


def test_a_repeated_run_continues(rollout: Rollout) -> None:
    rollout.node("w1")
    rollout.say("begun", "w2", "drain")
    rollout.begin("w1", "w2", "w3")
    made = of(rollout)
    assert made.verdict is RunVerdict.RUNNING
    assert tries(made, 1) == [("drain", "interrupted")]
    failed_at(rollout, "verify")
    rollout.say("stopped")
    assert of(rollout).verdict is RunVerdict.STOPPED
    rollout.begin("w1", "w2", "w3")
    assert (of(rollout).verdict, of(rollout).stop) == (RunVerdict.RUNNING, None)
    rollout.node("w2")
    rollout.node("w3")
    rollout.say("finished")
    made = of(rollout)
    assert made.verdict is RunVerdict.COMPLETED
    assert tries(made, 1)[:3] == [
        ("drain", "interrupted"), ("verify", "failed"), ("preflight", "done"),
    ]  # fmt: skip


def test_a_phase_tried_again_ends_its_failure(rollout: Rollout) -> None:
    failed_at(rollout, "drain", "w1")
    rollout.node("w1")
    made = of(rollout)
    assert (made.verdict, made.stop) == (RunVerdict.RUNNING, None)
    assert states(made)["w1"] == "done"


def test_a_node_that_is_rolled_back(rollout: Rollout) -> None:
    rollout.node("w1")
    failed_at(rollout, "verify")
    for node in ("w2", "w1"):
        rollout.phase(node, "rollback")
        rollout.phase(node, "resume", result={"uncordoned": True})
    rollout.say("stopped")
    assert "same playbook again" in next_steps(of(rollout))[-1]
    rollout.say("finished")
    made = of(rollout)
    assert states(made) == {"w1": "rolled back", "w2": "rolled back", "w3": "untouched"}
    assert not any(n.cordoned for n in made.nodes)


def test_a_report_lists_earlier_runs_of_its_journal() -> None:
    cut, check, again = Rollout("first"), Rollout("trial", check=True), Rollout("second")
    cut.begin("w1")
    cut.say("begun", "w1", "drain")
    check.begin("w1")
    again.begin("w1")
    events = [*cut.events, *check.events, *again.events]
    (earlier,) = summarize(events, "second").earlier
    assert (earlier.run, earlier.verdict) == ("first", RunVerdict.INTERRUPTED)
    assert earlier.stop == Stop(cut.events[-1].at, "w1", "drain", "")
    assert summarize(events, "first").earlier == ()
    assert summarize(events, "first").verdict is RunVerdict.RUNNING


def test_interrupted_as_another_says_it(rollout: Rollout) -> None:
    rollout.say("begun", "w1", "drain")
    rollout.say("interrupted", message="its Lease was not renewed")
    made = of(rollout)
    assert made.verdict is RunVerdict.INTERRUPTED
    assert made.stop
    assert (made.stop.node, made.stop.phase) == ("w1", "drain")
    assert states(made)["w1"] == "interrupted"


def test_check_mode_is_a_run_of_its_own(rollout: Rollout) -> None:
    trial = Rollout(check=True)
    trial.begin("w1")
    trial.phase("w1", "drain", result=result_of("drain"))
    trial.say("finished")
    events = [*rollout.events, *trial.events]
    assert summarize(events, RUN).nodes[0].phases == ()
    made = summarize(events, RUN, check=True)
    assert made.check
    assert not made.nodes[0].cordoned
    assert not any("ordoned" in step for step in next_steps(made))


def test_notes_and_the_packets_they_tell(rollout: Rollout) -> None:
    rollout.say("note", "w1", "drain", message="probe", result={"sent": 100, "lost": 2})
    rollout.say("note", message="left at OnDelete", result={"sent": 50, "lost": "1"})
    made = of(rollout)
    assert [(n.node, n.phase, n.message) for n in made.notes] == [
        ("w1", "drain", "probe"), ("", "", "left at OnDelete"),
    ]  # fmt: skip
    assert (made.totals.sent_packets, made.totals.lost_packets) == (150, 3)
    assert states(made)["w1"] == "untouched"
    assert any("3 packets" in step for step in next_steps(made))


def test_left_counts_the_last_audit(rollout: Rollout) -> None:
    rollout.phase("w1", "qdisc_parity", result=parity(endpoint("cali1"), endpoint("cali2")))
    assert of(rollout).totals.left == 2
    rollout.phase("w1", "reattach", result=parity(endpoint("cali1", "contended")))
    made = of(rollout)
    assert (made.totals.found, made.totals.left) == (3, 1)
    assert any("1 endpoints still drifted" in step for step in next_steps(made))


def test_no_value_of_a_result_is_lost(rollout: Rollout) -> None:
    rollout.say("begun", "w1", "drain", result={"a": 1})
    rollout.say("done", "w1", "drain", result={"b": 2})
    rollout.say("done", "w2", "strange", message="m", result={"c": 3})
    rollout.say("done", "w3", result={"d": 4})
    rollout.say("finished", result={"e": 5})
    made = of(rollout)
    assert made.nodes[0].phases[0].result.other == {"a": 1, "b": 2}
    strange = made.nodes[1].phases[0]
    assert (strange.begun, strange.seconds, strange.message) == ("", None, "m")
    assert strange.result.other == {"c": 3}
    assert made.nodes[2].result.other == {"d": 4}
    assert made.result.other == {"e": 5}


def test_nodes_that_were_not_named_come_by_position() -> None:
    rollout = Rollout()
    rollout.say("begun", begin={"nodes": [7], "x": 1})
    rollout.say("begun", "b", "drain", position=2, total=4)
    rollout.say("begun", "a", "drain", position=1, total=4)
    made = of(rollout)
    assert list(states(made)) == ["a", "b"]
    assert made.about == {"nodes": [7], "x": 1}
    assert made.totals.nodes == {"running": 2, "untouched": 2}
    assert made.title == f"Rollout {RUN}"


def test_unreadable_lines_are_reported(rollout: Rollout) -> None:
    made = summarize(rollout.events, RUN, unreadable=(3, 9))
    assert made.unreadable == (3, 9)
    assert any(step.startswith("Line 3, 9 of the journal") for step in next_steps(made))


def test_a_run_without_events_has_no_report(rollout: Rollout) -> None:
    with pytest.raises(ValueError, match="no event of the run 'other'"):
        summarize(rollout.events, "other")


def test_a_clock_put_back_harms_nothing(rollout: Rollout) -> None:
    rollout.say("begun", "w1", "drain")
    early = replace(rollout.events[-1], at="2026-11-23T21:00:00.000Z")
    rollout.say("done", "w1", "drain")
    made = summarize([*rollout.events[:-1], replace(early, status=rollout.events[-1].status)], RUN)
    assert (made.seconds, made.nodes[0].phases[0].seconds) == (0.0, 0.0)


# --- audits and repairs ---------------------------------------------------------------------------


def in_place(kind: str, **result: Any) -> Report:
    made = Rollout()
    made.begin("worker-1", kind=kind)
    made.say("done", "worker-1", "qdisc_parity", result=result)
    made.say("done", "worker-1")
    made.say("finished")
    return summarize(made.events, RUN)


@pytest.mark.parametrize("kind", ["audit", "repair"])
def test_an_audit_or_a_repair_that_leaves_nothing_is_completed(kind: str) -> None:
    report = in_place(kind, **parity(endpoint("cali1", "repaired")), not_judged_error=None)
    assert (report.kind, report.verdict) == (kind, RunVerdict.COMPLETED)
    assert next_steps(report) == ("Nothing is left to do.",)


def test_an_audit_that_found_drift_is_not_completed() -> None:
    report = in_place("audit", **parity(endpoint("cali1")))
    assert report.verdict is RunVerdict.PARTIAL
    assert next_steps(report)[-1] == "Run the repair playbook for these nodes."
    assert not any("rollback" in step for step in next_steps(report))


def test_what_was_not_judged_is_not_completed() -> None:
    report = in_place("repair", **parity(), not_judged_error="could not read tcx")
    assert report.verdict is RunVerdict.PARTIAL
    assert next_steps(report) == ("worker-1: could not read tcx.",)


def test_a_repair_that_stopped_is_run_again_and_not_rolled_back() -> None:
    made = Rollout()
    made.begin("worker-1", "worker-2", kind="repair")
    made.say("done", "worker-1")
    made.say("failed", "worker-2", "qdisc_parity", message="1 endpoint is not consistent")
    made.say("stopped", message="worker-2: 1 endpoint is not consistent")
    report = summarize(made.events, RUN)
    assert report.verdict is RunVerdict.STOPPED
    steps = " ".join(next_steps(report))
    assert "run the same playbook again: what is consistent is not changed" in steps
    assert "rollback" not in steps
