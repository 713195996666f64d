# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The objects, and the log of their changes.

An object in the store is never changed in place: a change replaces it. So it can be read without a
lock, and must be copied before it is changed.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, NamedTuple

Object = dict[str, Any]


class Key(NamedTuple):
    """The key of an object: ``collection`` is the same for all versions of its kind."""

    collection: str
    namespace: str
    name: str


def place(key: Key) -> str:
    """The sort key of an object in its kind, as in etcd."""
    return f"{key.namespace}/{key.name}"


@dataclass(frozen=True)
class Change:
    """One entry of the log; ``before`` is None for a new object."""

    revision: int
    key: Key
    type: str
    object: Object
    before: Object | None


class Store:
    """All objects of one API. Hold ``lock`` for operations that must be atomic."""

    def __init__(self) -> None:
        self.lock = threading.Condition(threading.RLock())
        self.revision = 0
        self.closed = False
        self._objects: dict[Key, Object] = {}
        self._log: list[Change] = []
        self._forgotten = 0

    def get(self, key: Key) -> Object | None:
        with self.lock:
            return self._objects.get(key)

    def items(
        self, collection: str, namespace: str = "", revision: int | None = None
    ) -> list[tuple[Key, Object]]:
        """The objects of one kind in etcd's order; of one namespace, if it is given.

        ``revision``: as they were then.

        :raises LookupError: when that part of the log was forgotten.
        """
        with self.lock:
            objects = self._objects if revision is None else self._objects_at(revision)
            found = [(k, o) for k, o in objects.items() if k.collection == collection]
        return sorted(
            ((k, o) for k, o in found if namespace in ("", k.namespace)),
            key=lambda item: place(item[0]),
        )

    def _objects_at(self, revision: int) -> dict[Key, Object]:
        objects = dict(self._objects)
        for change in reversed(self._since(revision)):
            if change.before is None:
                objects.pop(change.key, None)
            else:
                objects[change.key] = change.before
        return objects

    def everything(self) -> list[tuple[Key, Object]]:
        with self.lock:
            return list(self._objects.items())

    def put(self, key: Key, wanted: Object) -> Object:
        """Store an object if it has changed; the stored object, with its resourceVersion."""
        with self.lock:
            before = self._objects.get(key)
            if before is not None and _same(before, wanted):
                return before
            stored = self._stamped(wanted)
            self._objects[key] = stored
            self._record(key, "ADDED" if before is None else "MODIFIED", stored, before)
            return stored

    def remove(self, key: Key) -> Object:
        with self.lock:
            before = self._objects.pop(key)
            last = self._stamped(before)
            self._record(key, "DELETED", last, before)
            return last

    def wait(self, after: int, timeout: float | None = None) -> None:
        """Wait for a change after a revision, the end, or ``timeout`` seconds."""
        with self.lock:
            self.lock.wait_for(lambda: self.closed or self.revision > after, timeout)

    def changes(self, after: int, timeout: float) -> list[Change]:
        """The changes after a revision; waits for the first one, empty after ``timeout``.

        :raises LookupError: when that part of the log was forgotten.
        """
        with self.lock:
            self.wait(after, timeout)
            return self._since(after)

    def _since(self, revision: int) -> list[Change]:
        if revision < self._forgotten:
            raise LookupError(f"too old resource version: {revision} ({self._forgotten})")
        first = bisect_right(self._log, revision, key=lambda change: change.revision)
        return self._log[first:]

    def forget(self) -> None:
        """Drop the log like etcd's compaction: a watch from before now is answered 410."""
        with self.lock:
            self._log.clear()
            self._forgotten = self.revision

    def close(self) -> None:
        """Wake and end all waiting threads."""
        with self.lock:
            self.closed = True
            self.lock.notify_all()

    def _stamped(self, wanted: Object) -> Object:
        self.revision += 1
        version = {"resourceVersion": str(self.revision)}
        return {**wanted, "metadata": {**wanted["metadata"], **version}}

    def _record(self, key: Key, kind: str, stored: Object, before: Object | None) -> None:
        self._log.append(Change(self.revision, key, kind, stored, before))
        self.lock.notify_all()


def _same(one: Object, other: Object) -> bool:
    version = {"resourceVersion": None}
    return {**one, "metadata": {**one["metadata"], **version}} == {
        **other,
        "metadata": {**other["metadata"], **version},
    }
