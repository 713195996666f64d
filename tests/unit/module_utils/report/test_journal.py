# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal on a real file system: locked, on the disk, and whole again after a crash."""

from __future__ import annotations

import os
import resource
import signal
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import DataplaneError
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.event import (
    Event,
    Status,
    line_of,
    seconds_between,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.journal import (
    Contents,
    locked,
    now,
)

NOTE = Event("r", Status.NOTE, message="m")


def contents(path: Path) -> Contents:
    with locked(path) as journal:
        return journal.read()


def test_appended_events_are_read_in_order_with_their_times(tmp_path: Path) -> None:
    path = tmp_path / "made" / "too" / "journal.jsonl"
    before = now()
    with locked(path) as journal:
        first = journal.append(NOTE)
        second = journal.append(replace(NOTE, message="two", at=before))
    assert contents(path) == Contents((first, second))
    assert seconds_between(before, first.at) < 60
    assert second.at == before


def test_a_torn_last_line_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    whole = line_of(replace(NOTE, at=now()))
    path.write_text(f"{whole}\n{whole[:30]}")
    assert contents(path).unreadable == (2,)
    with locked(path) as journal:
        journal.append(NOTE)
    read = contents(path)
    assert (len(read.events), read.unreadable) == (2, (2,))


def test_a_last_line_without_its_end_is_an_event_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(line_of(replace(NOTE, at=now())))
    with locked(path) as journal:
        journal.append(NOTE)
    read = contents(path)
    assert (len(read.events), read.unreadable) == (2, ())


def test_zeros_and_bytes_of_a_crashed_disk_are_unreadable_lines(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(
        b"\x00\x00\x00\n\xff\xfe\n" + line_of(replace(NOTE, at=now())).encode() + b"\n"
    )
    read = contents(path)
    assert (len(read.events), read.unreadable) == (1, (1, 2))


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    """RLIMIT_FSIZE takes a part of the line and then refuses, as a full disk does."""
    path = tmp_path / "journal.jsonl"
    with locked(path) as journal:
        journal.append(NOTE)
    before = path.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limit[1]))
    try:
        with pytest.raises(DataplaneError, match="still in the journal"), locked(path) as journal:
            journal.append(NOTE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before


def test_a_journal_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(
            DataplaneError, match=r"file/journal\.jsonl of the rollout cannot be written: .+file"
        ),
        locked(tmp_path / "file" / "journal.jsonl"),
    ):
        pytest.fail("it was opened")


def test_a_line_is_on_the_disk_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.jsonl"
    synced: list[bytes] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        synced.append(path.read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    with locked(path) as journal:
        event = journal.append(NOTE)
    # Once for the directory, which holds the new name, and once for the line.
    assert synced == [b"", line_of(event).encode() + b"\n"]


def write(path: Path, who: int) -> None:
    for number in range(25):
        with locked(path) as journal:
            text = f"{who}/{number} " + "x" * 9000
            journal.append(Event("r", Status.NOTE, message=text))


def test_processes_that_write_at_once_lose_and_mix_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with ProcessPoolExecutor(6, get_context("fork")) as pool:
        jobs: list[Any] = [pool.submit(write, path, who) for who in range(6)]
        for job in jobs:
            job.result()
    read = contents(path)
    written = [e.message.split()[0] for e in read.events]
    assert not read.unreadable
    assert sorted(written) == sorted(f"{who}/{n}" for who in range(6) for n in range(25))
    for who in range(6):
        own = [m for m in written if m.startswith(f"{who}/")]
        assert own == [f"{who}/{n}" for n in range(25)]
    assert [e.at for e in read.events] == sorted(e.at for e in read.events)
