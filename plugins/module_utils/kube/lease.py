# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Lease that allows one rollout at a time on a cluster.

Expiry is determined as in client-go's leader election: by how long this process has seen no
renewal, measured on its own monotonic clock. The times in a Lease come from its holder's clock and
are only shown, so clocks may differ. The cost: the Lease of a dead run is watched for its whole
duration.
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
    """The contents of a Lease; without a holder it is free. Times are UTC."""

    holder: str = ""
    acquired: datetime | None = None
    renewed: datetime | None = None
    #: Seconds.
    duration: float = 0.0
    transitions: int = 0

    @property
    def expires(self) -> datetime | None:
        """By the holder's clock: only to be shown."""
        return self.renewed and self.renewed + timedelta(seconds=self.duration)

    def __str__(self) -> str:
        return (
            f"{self.holder}, since {_shown(self.acquired)}, last renewed {_shown(self.renewed)}"
            f" for {self.duration:.0f} s"
        )


class LeaseLost(DataplaneError):
    """The Lease that this run held is free or has another holder."""


@dataclass(frozen=True)
class LeaseResult:
    """The Lease after an operation; ``changed`` if the holder changed."""

    changed: bool
    record: Record
    previous: Record


def read_record(lease: Mapping[str, Any] | None) -> Record:
    """The contents of a Lease object; one that does not exist is free."""
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
    """Which Lease, and for which holder; ``duration`` in whole seconds."""

    namespace: str
    name: str
    holder: str
    duration: int


class Lease:
    """One Lease, used in the name of one holder."""

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

    def take(self, check: bool = False) -> LeaseResult:
        """Take the Lease, or renew it if it is ours; with ``check`` only predict the result.

        :raises Refusal: another holder renews it.
        """
        while True:
            lease, record = self._takeable()
            if result := self._predicted(record) if check else self._write(lease, record):
                if self._held_by_other(record):
                    self._session.log(f"{self} was taken over from {record.holder}")
                return result

    def renew(self, check: bool = False) -> LeaseResult:
        """Renew the Lease; with ``check`` only check that it is still ours.

        :raises LeaseLost: it is not.
        """
        while True:
            lease, record = self._read()
            self._require_ours(record)
            if result := self._predicted(record) if check else self._write(lease, record):
                return result

    def release(self, check: bool = False) -> LeaseResult:
        """Release the Lease if it is ours; with ``check`` only predict the result."""
        while True:
            lease, record = self._read()
            if lease is None or record.holder != self._holder:
                return LeaseResult(False, record, record)
            free = Record(transitions=record.transitions)
            if check:
                return LeaseResult(True, free, record)
            if result := self._put(lease, free, record):
                return result

    def keep(self) -> None:
        """Renew the Lease if a renewal is due; called while an operation waits.

        :raises LeaseLost: it is no longer ours.
        """
        due = self._renewed_at is None or (
            self._clock.now() - self._renewed_at >= self._duration * _RENEWED_AFTER
        )
        if due:
            self.renew()

    def hold(self, seconds: float) -> LeaseResult:
        """Keep the Lease for so long, and renew it at the end."""
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
        """The Lease when it is free, ours, or was not renewed for its whole duration.

        :raises Refusal: another holder renews it.
        """
        lease, record = self._read()
        watched, since, progress = record, self._clock.now(), self._session.progress()
        duration = record.duration or self._duration
        while self._held_by_other(record):
            if record != watched:
                raise self._refusal(record)
            left = duration - (self._clock.now() - since)
            if left <= 0:
                break
            progress.show(
                f"{self} is held by {record}; waiting to see whether it is renewed: it is taken"
                f" over after {duration:.0f} s without a renewal"
            )
            self._clock.sleep(min(1.0, left))
            lease, record = self._read()
        return lease, record

    def _held_by_other(self, record: Record) -> bool:
        return record.holder not in ("", self._holder)

    def _wanted(self, record: Record) -> Record:
        """The Lease after we have taken or renewed it."""
        now = self._clock.utc()
        ours = replace(record, renewed=now, duration=float(self._duration))
        if record.holder == self._holder:
            return ours
        return replace(ours, holder=self._holder, acquired=now, transitions=record.transitions + 1)

    def _predicted(self, record: Record) -> LeaseResult:
        return LeaseResult(record.holder != self._holder, self._wanted(record), record)

    def _write(self, lease: Object | None, record: Record) -> LeaseResult | None:
        """Take or renew the Lease; None if it was changed after it was read."""
        started = self._clock.now()
        result = self._put(lease, self._wanted(record), record)
        if result:
            self._renewed_at = started
        return result

    def _put(self, lease: Object | None, wanted: Record, previous: Record) -> LeaseResult | None:
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
        return LeaseResult(previous.holder != wanted.holder, wanted, previous)

    def _require_ours(self, record: Record) -> None:
        if record.holder == self._holder:
            return
        now = f"is now held by {record}" if record.holder else "now has no holder"
        raise LeaseLost(
            f"lost the {self} before the next change: {self._holder} held it, and it {now};"
            " nothing more was changed. Make sure that no other rollout works on this cluster, then"
            " rerun: the run resumes where it stopped",
            {"holder": record.holder},
        )

    def _refusal(self, record: Record) -> Refusal:
        return Refusal(
            f"another rollout works on this cluster: {self} is held by {record}; nothing was"
            " changed. Wait until it ends, or stop it: its Lease is then released or expires",
            {"holder": record.holder},
        )


def _spec(record: Record) -> Object:
    spec: Object = {"leaseTransitions": record.transitions}
    if record.holder:
        spec |= {"holderIdentity": record.holder, "leaseDurationSeconds": int(record.duration)}
        spec |= {"acquireTime": _written(record.acquired), "renewTime": _written(record.renewed)}
    return spec


def _written(time: datetime | None) -> str | None:
    """In the API's format of a MicroTime."""
    return time.strftime(_TIME) if time else None


def _parsed(text: str | None) -> datetime | None:
    if not text:
        return None
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc)


def _shown(time: datetime | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ") if time else "an unknown time"
