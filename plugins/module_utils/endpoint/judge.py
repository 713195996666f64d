# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judgement of an endpoint from one snapshot. Pure.

Findings and plan cannot disagree: a finding is repairable exactly if, by the kernel's own rules,
the endpoint no longer has it after the plan.
"""

from __future__ import annotations

from dataclasses import replace as with_changes

from ..model import HOOKS, AttachType, Endpoint, Judgement, Policy, Severity
from .findings import assess
from .plan import plan


def judge(endpoint: Endpoint, policy: Policy) -> Judgement:
    """Findings, plan and outlook of ``endpoint``."""
    seen = assess(endpoint, policy)
    if not seen.drifted:
        return seen
    steps, end, unsafe = plan(endpoint, policy)
    findings = seen.findings
    if steps:
        remaining = {(f.code, f.hook) for f in assess(end, policy).findings}
        findings = tuple(
            f if (f.code, f.hook) in remaining else with_changes(f, repairable=True)
            for f in findings
        )
    if unsafe:
        findings = tuple(
            f
            if f.repairable or f.severity is not Severity.DRIFT
            else with_changes(f, message=f"{f.message}. {_not_repaired(endpoint)}")
            for f in findings
        )
    return Judgement(findings, steps, seen.outlook, seen.felix_message)


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
