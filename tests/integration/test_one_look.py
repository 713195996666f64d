# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An audit whose first look falls between the two hooks of a Felix pass, on the running kernel.

tc does what a Felix that adds, then deletes, does: a new program at the free handle, then the old
filter goes. The hooks are at 1 and 2, so after each hook alone they look equal.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.audit import (
    Audit,
    AuditMode,
    AuditOptions,
    audit,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.netlink import TcSocket
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.snapshot import Reader
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import Outlook, Verdict
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab

CALI = "cali0123456789a"
SETTLE = 0.5


@pytest.fixture
def out_of_step(lab: Lab) -> Lab:
    """Hooks at 1 and 2, with programs that were loaded some time ago."""
    lab.endpoint(CALI)
    lab.attach(CALI, "ingress", 1)
    lab.attach(CALI, "egress", 2)
    time.sleep(SETTLE)
    return lab


def reattach(lab: Lab, hook: str, old: int, new: int) -> None:
    lab.attach(CALI, hook, new)
    lab.detach(CALI, hook, old)


def look(lab: Lab, mode: AuditMode, while_waiting: Callable[[], None]) -> Audit:
    waits = [while_waiting]

    def sleep(seconds: float) -> None:
        if seconds and waits:
            waits.pop()()
        time.sleep(seconds)

    with entered(lab.netns), TcSocket() as tc:
        return audit(AuditOptions((CALI,), mode=mode, settle=SETTLE), tc, Reader(tc), sleep)


def test_an_endpoint_between_the_hooks_of_a_pass_is_not_healthy(out_of_step: Lab) -> None:
    lab = out_of_step
    reattach(lab, "ingress", 1, 2)
    assert lab.slots(CALI) == ([(49152, 2)], [(49152, 2)])
    seen = look(lab, AuditMode.AUDIT, lambda: reattach(lab, "egress", 2, 1))
    (outcome,) = seen.outcomes
    assert (outcome.verdict, outcome.found.outlook) == (Verdict.DRIFTED, Outlook.STUCK)
    assert lab.slots(CALI) == ([(49152, 2)], [(49152, 1)])


def test_a_repair_waits_for_the_other_hook(out_of_step: Lab) -> None:
    lab = out_of_step
    reattach(lab, "ingress", 1, 2)
    seen = look(lab, AuditMode.REPAIR, lambda: reattach(lab, "egress", 2, 1))
    assert [o.verdict for o in seen.outcomes] == [Verdict.REPAIRED]
    ingress, egress = lab.slots(CALI)
    assert ingress == egress


def test_half_a_pass_over_a_healthy_endpoint_is_not_drift(out_of_step: Lab) -> None:
    lab = out_of_step
    reattach(lab, "egress", 2, 1)
    time.sleep(SETTLE)
    reattach(lab, "ingress", 1, 2)
    seen = look(lab, AuditMode.AUDIT, lambda: reattach(lab, "egress", 1, 2))
    assert [o.verdict for o in seen.outcomes] == [Verdict.CONSISTENT]


def test_a_healthy_endpoint_at_rest_is_read_once(out_of_step: Lab) -> None:
    lab = out_of_step
    reattach(lab, "egress", 2, 1)
    time.sleep(SETTLE)
    seen = look(lab, AuditMode.AUDIT, lambda: pytest.fail("it waited"))
    assert [o.verdict for o in seen.outcomes] == [Verdict.CONSISTENT]
