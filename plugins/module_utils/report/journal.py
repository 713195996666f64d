# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of a rollout: one line of JSON for each event, synced to the disk.

Events are only appended. A lock serializes the processes that write, one for each node of a batch.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from io import FileIO
from pathlib import Path

from ..errors import DataplaneError
from .event import Event, event_of, line_of


@dataclass(frozen=True)
class Contents:
    """``unreadable``: the numbers of lines without an event, left by a crash during a write."""

    events: tuple[Event, ...] = ()
    unreadable: tuple[int, ...] = ()


class Journal:
    """An open and locked journal."""

    def __init__(self, file: FileIO) -> None:
        self._file = file

    def append(self, event: Event) -> Event:
        """The event with the time at which it was written, unless it had one.

        :raises OSError: the journal is as before.
        """
        stamped = event if event.at else replace(event, at=now())
        end = self._file.seek(0, os.SEEK_END)
        try:
            left = self._end_of_an_incomplete_line(end) + line_of(stamped).encode() + b"\n"
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError:
            # A full disk may have taken a part of the line.
            self._file.truncate(end)
            raise
        return stamped

    def _end_of_an_incomplete_line(self, end: int) -> bytes:
        if not end:
            return b""
        self._file.seek(end - 1)
        return b"" if self._file.read(1) == b"\n" else b"\n"

    def read(self) -> Contents:
        events: list[Event] = []
        unreadable: list[int] = []
        self._file.seek(0)
        for number, line in enumerate(self._file.read().split(b"\n"), start=1):
            if not line.strip():
                continue
            try:
                events.append(event_of(line.decode()))
            except ValueError:
                unreadable.append(number)
        return Contents(tuple(events), tuple(unreadable))


@contextmanager
def locked(path: Path) -> Iterator[Journal]:
    """The journal at ``path``, locked for the body, and created if it does not exist.

    :raises DataplaneError: the journal, or a file that the body writes, cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        # Unbuffered: closing the file must not write again what a full disk refused.
        with FileIO(path, "a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if is_new:
                _sync_directory(path.parent)
            yield Journal(file)
    except OSError as error:
        raise DataplaneError(
            f"the journal {path} of the rollout cannot be written: {error}. This task changed "
            "nothing in the cluster; earlier events are still in the journal. Free disk space, or "
            "set a directory on the controller that is writable, and run the playbook again"
        ) from error


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
