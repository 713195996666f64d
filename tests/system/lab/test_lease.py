# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which run gets the Lease, with the embedded API and the real one."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import Refusal
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.api import Kube
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.lease import (
    Lease,
    LeaseLost,
    LeaseOptions,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.session import Session
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.embedded import EmbeddedApi


@dataclass
class Leases:
    kube: Kube
    namespace: str
    logged: list[str]

    def of(self, holder: str, duration: int = 60) -> Lease:
        options = LeaseOptions(self.namespace, "run", holder, duration)
        return Lease(Session(self.kube, self.logged.append), options)


@pytest.fixture
def leases(kube: Kube, space: str, logged: list[str]) -> Leases:
    return Leases(kube, space, logged)


def held_by(raw: Client, namespace: str) -> str | None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/run"
    holder: str | None = raw.do("GET", path)["spec"].get("holderIdentity")
    return holder


def test_a_free_lease_is_taken_renewed_and_released(leases: Leases, raw: Client) -> None:
    lease = leases.of("anna")
    taken = lease.take()
    assert taken.changed
    assert held_by(raw, leases.namespace) == "anna"
    again = leases.of("anna").take()  # like the next task of the run
    assert not again.changed
    assert again.record.acquired == taken.record.acquired
    assert again.record.renewed is not None
    assert taken.record.renewed is not None
    assert again.record.renewed > taken.record.renewed
    assert not lease.renew().changed
    assert lease.release().changed
    assert held_by(raw, leases.namespace) is None
    assert not lease.release().changed
    other = leases.of("ben").take()
    assert other.changed
    assert other.record.transitions == 2


def test_a_second_run_is_refused_and_shows_the_holder(leases: Leases, raw: Client) -> None:
    anna = leases.of("anna on bastion", 30)
    anna.take()
    renewing = threading.Timer(1.0, anna.renew)
    renewing.start()
    started = time.monotonic()
    with pytest.raises(Refusal, match=r"held by anna on bastion, since .*, last renewed"):
        leases.of("ben").take()
    renewing.join()
    assert time.monotonic() - started < 10
    assert any("anna on bastion" in line for line in leases.logged)
    assert held_by(raw, leases.namespace) == "anna on bastion"
    assert not leases.of("ben").release().changed
    assert held_by(raw, leases.namespace) == "anna on bastion"


def test_an_abandoned_lease_is_taken_over_after_its_duration(leases: Leases, raw: Client) -> None:
    anna = leases.of("anna", 2)
    anna.take()
    started = time.monotonic()
    taken = leases.of("ben").take()
    assert 1.9 < time.monotonic() - started < 20
    assert taken.previous.holder == "anna"
    assert held_by(raw, leases.namespace) == "ben"
    with pytest.raises(
        LeaseLost, match=r"lost the Lease .* before the next change: anna held it.*held by ben"
    ):
        anna.renew()
    with pytest.raises(LeaseLost):
        anna.renew(check=True)


@pytest.mark.parametrize("fast", [-86400, 86400])
def test_the_time_of_day_is_not_used_for_expiry(leases: Leases, raw: Client, fast: int) -> None:
    """Whether our clock or the holder's is wrong makes no difference."""
    leases.of("anna", 3).take()
    path = f"/apis/coordination.k8s.io/v1/namespaces/{leases.namespace}/leases/run"
    renewed = datetime.now(timezone.utc) + timedelta(seconds=fast)
    spec = {"renewTime": renewed.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
    raw.do("PATCH", path, {"spec": spec})
    began = time.monotonic()
    assert leases.of("ben").take().changed
    assert 2.9 < time.monotonic() - began < 20
    assert (
        "waiting to see whether it is renewed: it is taken over after 3 s without a renewal"
    ) in leases.logged[0]
    assert leases.logged[-1].endswith("was taken over from anna")


def test_a_lease_that_is_released_while_we_wait_is_taken(leases: Leases) -> None:
    anna = leases.of("anna")
    anna.take()
    releasing = threading.Timer(0.5, anna.release)
    releasing.start()
    assert leases.of("ben").take().previous.holder == ""
    releasing.join()


def test_one_of_several_runs_gets_the_lease(leases: Leases, raw: Client) -> None:
    winners: list[str] = []
    start = threading.Barrier(5)

    def compete(name: str) -> None:
        lease = leases.of(name, 30)
        start.wait()
        try:
            lease.take()
        except Refusal:
            return
        winners.append(name)
        for _turn in range(30):  # until the others have seen a renewal
            time.sleep(0.1)
            lease.renew()

    threads = [threading.Thread(target=compete, args=(f"run {n}",)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert winners == [held_by(raw, leases.namespace)]


def test_check_mode_writes_nothing(leases: Leases, raw: Client) -> None:
    anna, ben = leases.of("anna"), leases.of("ben")
    path = f"/apis/coordination.k8s.io/v1/namespaces/{leases.namespace}/leases"
    assert anna.take(check=True).changed
    assert not raw.do("GET", path)["items"]
    with pytest.raises(
        LeaseLost, match="anna held it, and it now has no holder; nothing more was changed"
    ):
        anna.renew(check=True)
    anna.take()
    before = raw.do("GET", path)["items"]
    assert not anna.renew(check=True).changed
    assert anna.release(check=True).changed
    assert raw.do("GET", path)["items"] == before
    renewing = threading.Timer(1.0, anna.renew)
    renewing.start()
    with pytest.raises(Refusal, match="anna"):
        ben.take(check=True)
    renewing.join()
    assert held_by(raw, leases.namespace) == "anna"


def test_check_mode_predicts_the_takeover_of_an_abandoned_lease(
    leases: Leases, raw: Client
) -> None:
    leases.of("anna", 2).take()
    predicted = leases.of("ben").take(check=True)
    assert (predicted.changed, predicted.record.holder) == (True, "ben")
    assert held_by(raw, leases.namespace) == "anna"


def test_a_lease_is_kept_for_a_while(leases: Leases) -> None:
    anna = leases.of("anna", 3)
    taken = anna.take()
    kept = anna.hold(2.5)
    assert taken.record.renewed is not None
    assert kept.record.renewed is not None
    assert (kept.record.renewed - taken.record.renewed).total_seconds() > 2.4
    assert any("is kept for" in line for line in leases.logged)


def test_keeping_a_lost_lease_fails(leases: Leases, raw: Client) -> None:
    anna = leases.of("anna", 3)
    anna.take()
    path = f"/apis/coordination.k8s.io/v1/namespaces/{leases.namespace}/leases/run"
    raw.do("PATCH", path, {"spec": {"holderIdentity": "ben"}})
    with pytest.raises(LeaseLost, match="ben"):
        anna.hold(30)


def test_temporary_failures_of_the_api_are_retried(leases: Leases, faulty: EmbeddedApi) -> None:
    faulty.faults.refuse("GET", "leases/run", 500, 2)
    faulty.faults.refuse("POST", "leases", 429, 2)
    assert leases.of("anna").take().changed
    assert sum("; retried for 20 s" in line for line in leases.logged) == 2
