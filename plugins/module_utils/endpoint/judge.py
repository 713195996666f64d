# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judgement of an endpoint from one snapshot. Pure.

Findings and plan cannot disagree: a finding is repairable exactly if, by the kernel's own rules,
the endpoint no longer has it after the plan.
"""

from __future__ import annotations

from dataclasses import replace as with_changes

from ..model import Endpoint, Judgement, Policy
from .findings import assess
from .plan import plan


def judge(endpoint: Endpoint, policy: Policy) -> Judgement:
    """Findings, plan and outlook of ``endpoint``."""
    seen = assess(endpoint, policy)
    if not seen.drifted:
        return seen
    steps, end = plan(endpoint, policy, seen)
    if not steps:
        return seen
    remaining = {(f.code, f.hook) for f in assess(end, policy).findings}
    marked = tuple(
        f if (f.code, f.hook) in remaining else with_changes(f, repairable=True)
        for f in seen.findings
    )
    return Judgement(marked, steps, seen.outlook, seen.felix_message)
