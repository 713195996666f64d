# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who gets the Lease, asked of the embedded API and the real one."""

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
    told: list[str]

    def of(self, holder: str, duration: int = 60) -> Lease:
        options = LeaseOptions(self.namespace, "run", holder, duration)
        return Lease(Session(self.kube, self.told.append), options)


@pytest.fixture
def leases(kube: Kube, space: str, told: list[str]) -> Leases:
    return Leases(kube, space, told)


def held_by(raw: Client, namespace: str) -> str | None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/run"
    holder: str | None = raw.do("GET", path)["spec"].get("holderIdentity")
    return holder


def test_a_free_lease_is_taken_renewed_and_given_up(leases: Leases, raw: Client) -> None:
    lease = leases.of("anna")
    taken = lease.take()
    assert taken.changed
    assert held_by(raw, leases.namespace) == "anna"
    again = leases.of("anna").take()  # as the next task does
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


def test_another_that_is_alive_is_refused_and_named(leases: Leases, raw: Client) -> None:
    anna = leases.of("anna on bastion", 30)
    anna.take()
    renewing = threading.Timer(1.0, anna.renew)
    renewing.start()
    begun = time.monotonic()
    with pytest.raises(Refusal, match=r"held by anna on bastion, since .*, last renewed"):
        leases.of("ben").take()
    renewing.join()
    assert time.monotonic() - begun < 10
    assert any("anna on bastion" in line for line in leases.told)
    assert held_by(raw, leases.namespace) == "anna on bastion"
    assert not leases.of("ben").release().changed
    assert held_by(raw, leases.namespace) == "anna on bastion"


def test_an_abandoned_lease_is_taken_over_once_its_time_passed_under_our_eyes(
    leases: Leases, raw: Client
) -> None:
    anna = leases.of("anna", 2)
    anna.take()
    begun = time.monotonic()
    taken = leases.of("ben").take()
    assert 1.9 < time.monotonic() - begun < 20
    assert taken.previous.holder == "anna"
    assert held_by(raw, leases.namespace) == "ben"
    with pytest.raises(LeaseLost, match=r"lost the Lease .* before the next change.*held by ben"):
        anna.renew()
    with pytest.raises(LeaseLost):
        anna.renew(check=True)


@pytest.mark.parametrize("fast", [-86400, 86400])
def test_a_wrong_clock_of_the_day_changes_nothing(leases: Leases, raw: Client, fast: int) -> None:
    """Ours or the holder's: the age of a renewal by the clock of the day is not judged."""
    leases.of("anna", 3).take()
    path = f"/apis/coordination.k8s.io/v1/namespaces/{leases.namespace}/leases/run"
    renewed = datetime.now(timezone.utc) + timedelta(seconds=fast)
    spec = {"renewTime": renewed.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
    raw.do("PATCH", path, {"spec": spec})
    began = time.monotonic()
    assert leases.of("ben").take().changed
    assert 2.9 < time.monotonic() - began < 20
    assert "watching whether that is alive; it is taken over after 3 s" in leases.told[0]
    assert leases.told[-1].endswith("is taken over from anna")


def test_a_lease_given_up_under_our_eyes_is_taken(leases: Leases) -> None:
    anna = leases.of("anna")
    anna.take()
    giving_up = threading.Timer(0.5, anna.release)
    giving_up.start()
    assert leases.of("ben").take().previous.holder == ""
    giving_up.join()


def test_one_of_many_gets_it(leases: Leases, raw: Client) -> None:
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
        for _turn in range(30):  # alive until the others have seen it
            time.sleep(0.1)
            lease.renew()

    threads = [threading.Thread(target=compete, args=(f"run {n}",)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert winners == [held_by(raw, leases.namespace)]


def test_check_mode_only_looks(leases: Leases, raw: Client) -> None:
    anna, ben = leases.of("anna"), leases.of("ben")
    path = f"/apis/coordination.k8s.io/v1/namespaces/{leases.namespace}/leases"
    assert anna.take(check=True).changed
    assert not raw.do("GET", path)["items"]
    with pytest.raises(LeaseLost, match="held by nobody"):
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


def test_check_mode_predicts_that_an_abandoned_lease_is_taken(leases: Leases, raw: Client) -> None:
    leases.of("anna", 2).take()
    predicted = leases.of("ben").take(check=True)
    assert (predicted.changed, predicted.record.holder) == (True, "ben")
    assert held_by(raw, leases.namespace) == "anna"


def test_a_lease_is_held_for_a_while(leases: Leases) -> None:
    anna = leases.of("anna", 3)
    taken = anna.take()
    kept = anna.hold(2.5)
    assert taken.record.renewed is not None
    assert kept.record.renewed is not None
    assert (kept.record.renewed - taken.record.renewed).total_seconds() > 2.4
    assert any("is kept for" in line for line in leases.told)


def test_a_lost_lease_ends_the_holding(leases: Leases, raw: Client) -> None:
    anna = leases.of("anna", 3)
    anna.take()
    path = f"/apis/coordination.k8s.io/v1/namespaces/{leases.namespace}/leases/run"
    raw.do("PATCH", path, {"spec": {"holderIdentity": "ben"}})
    with pytest.raises(LeaseLost, match="ben"):
        anna.hold(30)


def test_an_api_that_fails_for_a_while(leases: Leases, faulty: EmbeddedApi) -> None:
    faulty.faults.refuse("GET", "leases/run", 500, 2)
    faulty.faults.refuse("POST", "leases", 429, 2)
    assert leases.of("anna").take().changed
    assert sum("tried again" in line for line in leases.told) == 2
