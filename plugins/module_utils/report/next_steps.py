# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The next steps for the person who reads the report of a rollout. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from .phases import State
from .summary import Report, RunVerdict, Stop, not_judged, pods_left

_LOOK = {
    "preflight": "Fix the problems in the message. This phase changes nothing.",
    "drain": (
        "Check the pods and disruption budgets in the message: kubectl get pdb -A; "
        "kubectl get pods -A -o wide --field-selector spec.nodeName={node}. The old calico-node "
        "still runs there."
    ),
    "qdisc_parity": (
        "Check the endpoints below on {node}: run qdisc_consistency there in check mode with "
        "--diff. This phase does not change calico-node."
    ),
    "node_upgrade": (
        "Check the calico-node pod of {node} (kubectl get pods -A -o wide --field-selector "
        "spec.nodeName={node}) and the processes of the node. If the pod stays Terminating with "
        "the finalizer dataplane.calico-bpf/felix-must-be-gone, the kubelet has not reported its "
        "end yet. Rerunning the upgrade resumes there and removes the finalizer."
    ),
    "reattach": (
        "Check the log of the new calico-node on {node} for endpoints left dirty, and audit them "
        "with qdisc_consistency there."
    ),
    "verify": (
        "Check the failed checks of {node} below, and felix_info on the node. The new calico-node "
        "runs there."
    ),
    "resume": (
        "The node was upgraded and verified, but not uncordoned and recorded. Run the upgrade "
        "again."
    ),
    "rollback": (
        "Check the calico-node pod of {node}, and run the rollback again: it resumes where it "
        "stopped."
    ),
}
_AGAIN = "Then run the same playbook again: it skips completed nodes and resumes where it stopped."


def next_steps(report: Report) -> tuple[str, ...]:
    """Sentences, in the order of the steps."""
    return tuple(_steps(report))


def _steps(report: Report) -> Iterator[str]:
    if report.kind and not report.check:
        yield from _after_work_in_place(report)
        return
    if report.check:
        if report.stop:
            yield from _look_at(report.stop)
            yield "Run in check mode again until the run is not stopped, then without check mode."
        else:
            yield "Nothing was changed. Run without check mode to make the changes in this report."
        return
    if report.verdict is RunVerdict.RUNNING:
        yield from _while_it_runs(report)
    if report.stop:
        yield from _look_at(report.stop)
    yield from _what_is_left(report)
    if report.verdict in (RunVerdict.STOPPED, RunVerdict.INTERRUPTED):
        yield _AGAIN
        if _upgraded(report) and not _rolls_back(report):
            yield (
                "Or run the rollback playbook, which restores the former version on the upgraded "
                "nodes, newest first."
            )
    elif report.verdict is RunVerdict.COMPLETED and not any(_what_is_left(report)):
        yield "Nothing is left to do."


def _after_work_in_place(report: Report) -> Iterator[str]:
    """After an audit or a repair, which leave calico-node and the cluster's objects alone."""
    if report.verdict is RunVerdict.RUNNING:
        yield from _while_it_runs(report)
    if report.stop:
        yield from _look_at(report.stop)
    yield from _what_is_left(report)
    for node in report.nodes:
        if why := not_judged(node):
            yield f"{node.name}: {why}."
    if report.kind == "audit" and report.totals.left:
        yield "Run the repair playbook for these nodes."
    elif report.verdict in (RunVerdict.STOPPED, RunVerdict.INTERRUPTED):
        yield "Then run the same playbook again: what is consistent is not changed."
    elif report.verdict is RunVerdict.COMPLETED:
        yield "Nothing is left to do."


def _upgraded(report: Report) -> bool:
    return any(n.version_after or n.state is State.DONE for n in report.nodes)


def _rolls_back(report: Report) -> bool:
    return any(p.phase == "rollback" for n in report.nodes for p in n.phases)


def _look_at(stop: Stop) -> Iterator[str]:
    look = _LOOK.get(stop.phase, "Check what the message names.")
    yield look.replace("{node}", stop.node or "the node")


def _while_it_runs(report: Report) -> Iterator[str]:
    at = next((n for n in report.nodes if n.state is State.RUNNING), None)
    phase = at.phases[-1].phase if at and at.phases else ""
    where = f" ({at.name}{', ' + phase if phase else ''})" if at else ""
    yield (
        "This report is rewritten at every event. If it does not change and the playbook no longer "
        f"runs, the run was killed after its last event{where}: run the playbook again to resume "
        "there."
    )


def _what_is_left(report: Report) -> Iterator[str]:
    by_state: dict[State, list[str]] = {}
    for node in report.nodes:
        by_state.setdefault(node.state, []).append(node.name)
    unreachable = by_state.get(State.UNREACHABLE, [])
    if unreachable:
        yield (
            f"{', '.join(unreachable)} stopped answering: check whether it is up, and what its "
            "phase had already done."
        )
    cordoned = [n.name for n in report.nodes if n.cordoned and n.state is not State.RUNNING]
    if cordoned:
        yield (
            f"Cordoned by this run, unless uncordoned since: {', '.join(cordoned)} (kubectl get "
            "nodes). A node stays cordoned until it is verified."
        )
    if report.totals.left:
        yield (
            f"{report.totals.left} endpoints still drifted in their last audit: they are listed "
            "below."
        )
    if report.totals.lost_packets:
        yield f"{report.totals.lost_packets} packets of the probes were lost: see the notes."
    if report.unreadable:
        lines = ", ".join(map(str, report.unreadable))
        yield (
            f"Line {lines} of the journal cannot be read, because a crash interrupted its write; "
            "its event is missing here."
        )
    untouched = report.totals.nodes.get(State.UNTOUCHED.value, 0)
    if untouched and report.verdict is RunVerdict.PARTIAL:
        yield f"{untouched} nodes were not touched: run the playbook for them too."
    old = pods_left(report.result)
    if old:
        pods = "pod has" if old == 1 else "pods have"
        yield (
            f"{old} calico-node {pods} an older revision, and the DaemonSet stays at OnDelete: "
            "run the playbook for the other nodes too, which then restores the update strategy."
        )
