# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A hook that another process leaves bare during the settle time gets its program back."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.audit import (
    AuditMode,
    AuditOptions,
    audit,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.repair import Outcome
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.watchdog import Watchdog
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import KernelError
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.netlink import TcSocket
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.snapshot import Reader
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import Verdict
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab

CALI = "cali0123456789a"


def repaired_while(lab: Lab, others_do: Callable[[], object], put_back_refused: int = 0) -> Outcome:
    """Repair a mismatch, egress at 2, while others do something after the last write.

    :param put_back_refused: the errno with which every later add is refused.
    """
    with entered(lab.netns), TcSocket() as tc, pytest.MonkeyPatch.context() as patch:
        reader = Reader(tc)
        with Watchdog(tc, reader) as watchdog:
            did: list[bool] = []

            def refuse(*_what: object, **_how: object) -> None:
                raise KernelError("add filter", put_back_refused)

            def sleep(seconds: float) -> None:
                if tc.writes and seconds and not did:
                    did.append(True)
                    others_do()
                    if put_back_refused:
                        patch.setattr(tc, "add_filter", refuse)
                watchdog.sleep(min(seconds, 0.1))

            order = AuditOptions((CALI,), mode=AuditMode.REPAIR)
            return audit(order, tc, reader, sleep, watchdog).outcomes[0]


@pytest.fixture
def egress(lab: Lab) -> int:
    """A mismatched endpoint; the program at its egress."""
    lab.endpoint(CALI)
    lab.attach(CALI, "ingress", 1)
    lab.attach(CALI, "egress", 2)
    return lab.program_ids(CALI, "egress")[0]


def test_undisturbed(lab: Lab, egress: int) -> None:
    outcome = repaired_while(lab, lambda: None)
    assert (outcome.verdict, outcome.notes) == (Verdict.REPAIRED, ())
    assert lab.program_ids(CALI, "egress") == [egress]


def test_the_last_program_is_deleted(lab: Lab, egress: int) -> None:
    """As a Felix does that listed handles 1 and 2 between our add and our delete."""
    outcome = repaired_while(lab, lambda: lab.detach(CALI, "egress", 1))
    assert outcome.verdict is Verdict.CONTENDED
    assert "put back at once" in outcome.notes[-1]
    assert lab.program_ids(CALI, "egress") == [egress]
    assert lab.slots(CALI) == ([(49152, 1)], [(49152, 1)])


def test_it_cannot_be_put_back(lab: Lab, egress: int) -> None:
    """The hook is open; the result still has the steps done and what to do next."""
    detach = partial(lab.detach, CALI, "egress", 1)
    outcome = repaired_while(lab, detach, put_back_refused=errno.ENOMEM)
    assert lab.filters(CALI, "egress") == []
    assert outcome.verdict is Verdict.CONTENDED
    assert [step.action.value for step in outcome.done] == ["add", "delete"]
    note = next(note for note in outcome.notes if "NO POLICY IS ENFORCED" in note)
    assert "egress" in note
    assert f"id {egress}" in note
    assert "ENOMEM" in note
    assert "calico-node" in note


def test_felix_deletes_its_own_new_filter(lab: Lab, egress: int) -> None:
    """As a Felix does that listed handle 2 before our add and attaches after our delete."""

    def attach_at_2_and_delete_2() -> None:
        lab.attach(CALI, "egress", 2, variant="newer")
        lab.detach(CALI, "egress", 2)

    outcome = repaired_while(lab, attach_at_2_and_delete_2)
    assert outcome.verdict is Verdict.CONTENDED
    assert "was deleted again" in outcome.notes[-1]
    assert lab.program_ids(CALI, "egress") == [egress]


def test_felix_attaches_a_newer_one_and_deletes_ours(lab: Lab, egress: int) -> None:
    """Nothing to restore: Felix wins, and the result shows the mismatch that it left."""

    def reattach() -> None:
        lab.attach(CALI, "egress", 2, variant="newer")
        lab.detach(CALI, "egress", 1)

    outcome = repaired_while(lab, reattach)
    assert outcome.verdict is Verdict.CONTENDED
    assert lab.slots(CALI) == ([(49152, 1)], [(49152, 2)])
    assert lab.program_ids(CALI, "egress") != [egress]


def test_the_interface_goes(lab: Lab, egress: int) -> None:
    outcome = repaired_while(lab, lambda: lab.ip("link", "del", CALI))
    assert egress
    assert outcome.verdict is Verdict.VANISHED
