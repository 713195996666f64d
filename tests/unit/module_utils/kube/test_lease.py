# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which run gets the Lease if the clocks of the runs differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import ApiError, Refusal
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.api import Kube
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.clock import Clock
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.lease import (
    Lease,
    LeaseLost,
    LeaseOptions,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.session import Session

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
#: By how much a clock is fast, in seconds; or slow.
OFFSETS = (-86400, -180, 0, 125, 86400)
DURATION = 60


@dataclass
class World:
    """One Lease, and the time; ``events`` happen in the first second that is slept after theirs."""

    lease: dict[str, Any] | None = None
    now: float = 0.0
    written: int = 0
    events: list[tuple[float, Callable[[], object]]] = field(default_factory=list)

    def send(
        self, method: str, path: str, query: Mapping[str, Any], content_type: str, body: Any
    ) -> bytes:
        if method != "GET":
            self.written += 1
            self.lease = json.loads(json.dumps(body))
        if self.lease is None:
            raise ApiError(f"{method} {path}", 404, "NotFound", "")
        return json.dumps(self.lease).encode()

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        while self.events and self.events[0][0] <= self.now:
            self.events.pop(0)[1]()


@dataclass
class Run:
    """A run whose clock of the day is wrong by ``offset``."""

    world: World
    name: str
    offset: float = 0.0
    logged: list[str] = field(default_factory=list)

    @property
    def lease(self) -> Lease:
        """A new one each time, as in each task."""
        world = self.world
        clock = Clock(
            lambda: world.now,
            world.sleep,
            lambda: NOON + timedelta(seconds=world.now + self.offset),
        )
        kube = Kube(world.send, 0, clock=clock)
        options = LeaseOptions("kube-system", "run", self.name, DURATION)
        return Lease(Session(kube, self.logged.append, clock=clock), options)


@pytest.mark.parametrize("holder_is_fast", OFFSETS)
@pytest.mark.parametrize("we_are_fast", OFFSETS)
def test_a_renewed_lease_is_never_taken_over(holder_is_fast: float, we_are_fast: float) -> None:
    world = World()
    anna, ben = Run(world, "anna", holder_is_fast), Run(world, "ben", we_are_fast)
    anna.lease.take()
    world.now = DURATION / 3  # the renewal is late, but not too late
    world.events = [(world.now + DURATION - 1, anna.lease.renew)]
    with pytest.raises(Refusal, match="held by anna"):
        ben.lease.take()
    anna.lease.renew()


@pytest.mark.parametrize("holder_is_fast", OFFSETS)
@pytest.mark.parametrize("we_are_fast", OFFSETS)
def test_a_dead_run_is_watched_for_the_whole_duration(
    holder_is_fast: float, we_are_fast: float
) -> None:
    world = World()
    anna, ben = Run(world, "anna", holder_is_fast), Run(world, "ben", we_are_fast)
    anna.lease.take()
    world.now = began = 10_000.0
    taken = ben.lease.take()
    assert (taken.changed, taken.previous.holder) == (True, "anna")
    assert DURATION <= world.now - began < DURATION + 2
    assert ben.logged[0].startswith("Lease kube-system/run is held by anna, since ")
    assert (
        " for 60 s; waiting to see whether it is renewed: it is taken over after 60 s without a"
        " renewal (0 s)"
    ) in ben.logged[0]
    assert ben.logged[-1] == "Lease kube-system/run was taken over from anna"
    with pytest.raises(LeaseLost, match="anna held it, and it is now held by ben"):
        anna.lease.renew()


def test_a_lease_without_a_duration_is_watched_for_our_duration() -> None:
    world = World()
    Run(world, "anna").lease.take()
    assert world.lease
    del world.lease["spec"]["leaseDurationSeconds"]
    Run(world, "ben").lease.take()
    assert world.now >= DURATION


def test_a_released_lease_is_taken_at_once() -> None:
    world = World()
    anna, ben = Run(world, "anna", 86400), Run(world, "ben")
    anna.lease.take()
    anna.lease.release()
    assert ben.lease.take().changed
    assert (world.now, ben.logged) == (0, [])


def test_a_lease_that_another_run_takes_while_we_wait_is_refused() -> None:
    world = World()
    Run(world, "anna").lease.take()
    cleo = Run(world, "cleo", -180)

    def take_over() -> None:
        assert world.lease
        world.lease["spec"]["holderIdentity"] = ""
        cleo.lease.take()

    world.events = [(30, take_over)]
    with pytest.raises(Refusal, match="held by cleo"):
        Run(world, "ben").lease.take()
    assert world.now < DURATION


@pytest.mark.parametrize("we_are_fast", OFFSETS)
def test_check_mode_watches_too_and_writes_nothing(we_are_fast: float) -> None:
    world = World()
    anna, ben = Run(world, "anna"), Run(world, "ben", we_are_fast)
    anna.lease.take()
    world.events = [(30, anna.lease.renew)]
    with pytest.raises(Refusal, match="held by anna"):
        ben.lease.take(check=True)
    written, began = world.written, world.now
    predicted = ben.lease.take(check=True)
    assert (predicted.changed, predicted.record.holder) == (True, "ben")
    assert world.now - began >= DURATION
    assert world.written == written
