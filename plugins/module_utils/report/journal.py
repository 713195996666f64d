# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout's journal: one line of JSON for each event, which is on the disk before it counts.

It is only ever appended to. Processes that write at once, one for each node of a batch, wait for
each other.
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
    """``unreadable``: the numbers of lines that hold no event, torn by a crash while written."""

    events: tuple[Event, ...] = ()
    unreadable: tuple[int, ...] = ()


class Journal:
    """A journal that is open, and locked."""

    def __init__(self, file: FileIO) -> None:
        self._file = file

    def append(self, event: Event) -> Event:
        """The event with the time at which it was written, unless it had one.

        :raises OSError: nothing of it is left in the journal.
        """
        stamped = event if event.at else replace(event, at=now())
        end = self._file.seek(0, os.SEEK_END)
        try:
            left = self._end_of_a_torn_line(end) + line_of(stamped).encode() + b"\n"
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError:
            # Or what a full disk took of it would be torn for good.
            self._file.truncate(end)
            raise
        return stamped

    def _end_of_a_torn_line(self, end: int) -> bytes:
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
    """The journal at ``path``, made if it is not there; nobody else has it meanwhile.

    :raises DataplaneError: it, or what is written beside it meanwhile, cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        # Unbuffered: what a full disk did not take must not be tried again at the end.
        with FileIO(path, "a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if is_new:
                _sync_directory(path.parent)
            yield Journal(file)
    except OSError as error:
        raise DataplaneError(
            f"the rollout's journal {path} is not written: {error}. This task touched nothing in "
            "the cluster; what was recorded before is still in the journal. Make room, or give a "
            "directory on the controller that you may write to, and run again"
        ) from error


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
