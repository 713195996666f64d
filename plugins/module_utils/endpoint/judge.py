# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judgement of an endpoint from one snapshot. Pure.

Findings and plan cannot disagree: a finding is repairable exactly if, by the kernel's own rules,
the endpoint no longer has it after the plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace as with_changes

from ..model import HOOKS, AttachType, Endpoint, Finding, Hook, Judgement, Policy, Severity
from .findings import assess, survivor
from .plan import plan
from .shared_block import refused_plan


def judge(endpoint: Endpoint, policy: Policy) -> Judgement:
    """Findings, plan and outlook of ``endpoint``."""
    seen = assess(endpoint, policy)
    if not seen.drifted:
        return seen
    cut_off = _cut_off_by_repair(endpoint)
    if cut_off:
        findings = _with_note(seen.findings, cut_off)
        return Judgement(findings, (), seen.outlook, seen.felix_message)
    steps, end, unsafe = plan(endpoint, policy)
    findings = seen.findings
    refused = refused_plan(endpoint, steps)
    if refused is not None:
        return Judgement(
            findings=_with_note(findings, f"NOT REPAIRED: {refused}"),
            plan=(),
            outlook=seen.outlook,
            felix_message=seen.felix_message,
            refusal=f"{refused}. Nothing was changed at this endpoint. {refused.advice}, and run "
            "the task again",
        )
    if steps:
        remaining = {(f.code, f.hook) for f in assess(end, policy).findings}
        findings = tuple(
            f if (f.code, f.hook) in remaining else with_changes(f, repairable=True)
            for f in findings
        )
    if unsafe:
        findings = _with_note(findings, _not_repaired(endpoint))
    return Judgement(findings, steps, seen.outlook, seen.felix_message)


def _with_note(findings: tuple[Finding, ...], note: str) -> tuple[Finding, ...]:
    """The findings, those of drift that no plan ends with ``note`` in their message."""
    return tuple(
        f
        if f.repairable or f.severity is not Severity.DRIFT
        else with_changes(f, message=f"{f.message}. {note}")
        for f in findings
    )


def _cut_off_by_repair(endpoint: Endpoint) -> str | None:
    """Why no plan may keep the newest program of a hook; None if that does no harm.

    A plan keeps the newest program. If that cannot run but the one that packets reach can, then the
    plan would stop all traffic.
    """
    for hook in HOOKS:
        calico = [a for a in endpoint.at(hook) if a.calico]
        decides = next((a for a in calico if a.enforces), None)
        if decides is None or len(calico) == 1:
            continue
        broken = {program_id for at, program_id in _broken(endpoint) if at is hook}
        newest = survivor(tuple(calico))
        if newest.program_id in broken and decides.program_id not in broken:
            return (
                f"NOT REPAIRED: {newest} at {hook.value} is the newest program and cannot run, "
                f"while packets reach {decides}, which can. Once the newest program can run, "
                "repair again"
            )
    return None


def _broken(endpoint: Endpoint) -> Iterator[tuple[Hook, int]]:
    """Hooks and programs that cannot run."""
    for missing in endpoint.missing_targets:
        yield missing.hook, missing.program_id
    for empty in endpoint.empty_prog_arrays:
        yield empty.hook, empty.program_id


def _not_repaired(endpoint: Endpoint) -> str:
    foreign = [
        a
        for hook in HOOKS
        for a in endpoint.at(hook)
        if a.attach_type is AttachType.TC and not a.calico and a.runs
    ]
    in_the_way = f" ({foreign[0]})" if foreign else ""
    return (
        "NOT REPAIRED: after an interrupted repair, Felix could leave the two hooks on different "
        f"sides of a foreign filter{in_the_way}, and no later repair could align them. Ask the "
        "owner of that filter to move it below or above Calico's programs, then repair again"
    )
