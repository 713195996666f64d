# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Lease that lets one rollout at a time work on a cluster.

Expiry is judged as client-go's leader election judges it: by how long this process has seen no
renewal on its own monotonic clock. The times in a Lease are its holder's and are only shown, so
clocks that differ do no harm. The price: the Lease of a dead run is watched for its whole duration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from ..errors import ApiError, DataplaneError, Refusal
from .api import Object
from .session import Session

_API_VERSION = "coordination.k8s.io/v1"
#: A Lease is renewed after this part of its duration, so that two renewals may be missed.
_RENEWED_AFTER = 1 / 3
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(frozen=True)
class Record:
    """What a Lease says; without a holder it is free. Times are UTC."""

    holder: str = ""
    acquired: datetime | None = None
    renewed: datetime | None = None
    #: Seconds.
    duration: float = 0.0
    transitions: int = 0

    @property
    def expires(self) -> datetime | None:
        """By its holder's clock: to show, not to judge by."""
        return self.renewed and self.renewed + timedelta(seconds=self.duration)

    def __str__(self) -> str:
        return (
            f"{self.holder}, since {_shown(self.acquired)}, last renewed {_shown(self.renewed)}"
            f" for {self.duration:.0f} s"
        )


class LeaseLost(DataplaneError):
    """The Lease that we held is another's, or nobody's."""


@dataclass(frozen=True)
class Held:
    """The Lease after an operation: ``changed`` where its holder did."""

    changed: bool
    record: Record
    previous: Record


def read_record(lease: Mapping[str, Any] | None) -> Record:
    """What a Lease object says; one that is not there is free."""
    spec = (lease or {}).get("spec") or {}
    return Record(
        spec.get("holderIdentity") or "",
        _parsed(spec.get("acquireTime")),
        _parsed(spec.get("renewTime")),
        float(spec.get("leaseDurationSeconds") or 0),
        int(spec.get("leaseTransitions") or 0),
    )


@dataclass(frozen=True)
class LeaseOptions:
    """Which Lease, and as whom; ``duration`` in whole seconds."""

    namespace: str
    name: str
    holder: str
    duration: int


class Lease:
    """One Lease, as its holder sees it."""

    def __init__(self, session: Session, options: LeaseOptions) -> None:
        self._session = session
        self._kube = session.kube
        self._clock = session.clock
        self._name, self._namespace = options.name, options.namespace
        self._list = f"/apis/{_API_VERSION}/namespaces/{options.namespace}/leases"
        self._holder = options.holder
        self._duration = options.duration
        self._renewed_at: float | None = None

    def __str__(self) -> str:
        return f"Lease {self._namespace}/{self._name}"

    # --- operations -----------------------------------------------------------------------------

    def take(self, check: bool = False) -> Held:
        """Take it, or renew it where it is ours; with ``check`` only say what that would do.

        :raises Refusal: another renews it.
        """
        while True:
            lease, record = self._takeable()
            if held := self._predicted(record) if check else self._write(lease, record):
                if self._is_anothers(record):
                    self._session.log(f"{self} is taken over from {record.holder}")
                return held

    def renew(self, check: bool = False) -> Held:
        """Renew it, which we hold; with ``check`` only see whether we do.

        :raises LeaseLost: we don't.
        """
        while True:
            lease, record = self._read()
            self._check_ours(record)
            if held := self._predicted(record) if check else self._write(lease, record):
                return held

    def release(self, check: bool = False) -> Held:
        """Give it up, if it is ours; with ``check`` only say what that would do."""
        while True:
            lease, record = self._read()
            if lease is None or record.holder != self._holder:
                return Held(False, record, record)
            free = Record(transitions=record.transitions)
            if check:
                return Held(True, free, record)
            if held := self._put(lease, free, record):
                return held

    def keep(self) -> None:
        """Renew it when that is due: for whoever waits for long.

        :raises LeaseLost: it is no longer ours.
        """
        due = self._renewed_at is None or (
            self._clock.now() - self._renewed_at >= self._duration * _RENEWED_AFTER
        )
        if due:
            self.renew()

    def hold(self, seconds: float) -> Held:
        """Keep it for so long; it is fresh then."""
        progress = self._session.progress()
        until = self._clock.now() + seconds
        while (left := until - self._clock.now()) > 0:
            self.keep()
            progress.show(f"{self} is kept for {seconds:.0f} s")
            self._clock.sleep(min(1.0, left))
        return self.renew()

    # --- steps ----------------------------------------------------------------------------------

    def _read(self) -> tuple[Object | None, Record]:
        lease = self._kube.find(f"{self._list}/{self._name}")
        return lease, read_record(lease)

    def _takeable(self) -> tuple[Object | None, Record]:
        """The Lease once it is free, ours, or was not renewed for its whole duration.

        :raises Refusal: another renews it.
        """
        lease, record = self._read()
        watched, since, progress = record, self._clock.now(), self._session.progress()
        duration = record.duration or self._duration
        while self._is_anothers(record):
            if record != watched:
                raise self._refusal(record)
            left = duration - (self._clock.now() - since)
            if left <= 0:
                break
            progress.show(
                f"{self} is held by {record}: watching whether that is alive; it is taken over"
                f" after {duration:.0f} s without a renewal"
            )
            self._clock.sleep(min(1.0, left))
            lease, record = self._read()
        return lease, record

    def _is_anothers(self, record: Record) -> bool:
        return record.holder not in ("", self._holder)

    def _wanted(self, record: Record) -> Record:
        """The Lease once we took or renewed it."""
        now = self._clock.utc()
        ours = replace(record, renewed=now, duration=float(self._duration))
        if record.holder == self._holder:
            return ours
        return replace(ours, holder=self._holder, acquired=now, transitions=record.transitions + 1)

    def _predicted(self, record: Record) -> Held:
        return Held(record.holder != self._holder, self._wanted(record), record)

    def _write(self, lease: Object | None, record: Record) -> Held | None:
        """Take or renew it as it was read; None where somebody wrote it meanwhile."""
        begun = self._clock.now()
        held = self._put(lease, self._wanted(record), record)
        if held:
            self._renewed_at = begun
        return held

    def _put(self, lease: Object | None, wanted: Record, previous: Record) -> Held | None:
        metadata = {"name": self._name, "namespace": self._namespace}
        body = {
            "apiVersion": _API_VERSION,
            "kind": "Lease",
            "metadata": lease["metadata"] if lease else metadata,
            "spec": _spec(wanted),
        }
        try:
            if lease is None:
                self._kube.create(self._list, body)
            else:
                self._kube.replace(f"{self._list}/{self._name}", body)
        except ApiError as error:
            if error.status == 409 or (lease and error.status == 404):
                return None
            raise
        return Held(previous.holder != wanted.holder, wanted, previous)

    def _check_ours(self, record: Record) -> None:
        if record.holder == self._holder:
            return
        now = f"now held by {record}" if record.holder else "now held by nobody"
        raise LeaseLost(
            f"lost the {self} before the next change: it was {self._holder}'s and is {now};"
            " nothing more was changed. Make sure that no other rollout works on this cluster, then"
            " start this one again: it goes on where it stopped",
            {"holder": record.holder},
        )

    def _refusal(self, record: Record) -> Refusal:
        return Refusal(
            f"another rollout works on this cluster: {self} is held by {record}; nothing was"
            " changed. Wait until it ends, or stop it: its Lease is then free, or expires",
            {"holder": record.holder},
        )


def _spec(record: Record) -> Object:
    spec: Object = {"leaseTransitions": record.transitions}
    if record.holder:
        spec |= {"holderIdentity": record.holder, "leaseDurationSeconds": int(record.duration)}
        spec |= {"acquireTime": _written(record.acquired), "renewTime": _written(record.renewed)}
    return spec


def _written(time: datetime | None) -> str | None:
    """As the API writes a MicroTime."""
    return time.strftime(_TIME) if time else None


def _parsed(text: str | None) -> datetime | None:
    if not text:
        return None
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc)


def _shown(time: datetime | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ") if time else "an unknown time"
