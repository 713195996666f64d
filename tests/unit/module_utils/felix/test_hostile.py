# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logs, health and metrics that another process of the node made up."""

from __future__ import annotations

import os
import random
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import DataplaneError
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.felix import (
    health,
    log,
    logfiles,
    metrics,
)

FELIX = (
    "2026-11-28T10:00:00.1Z stderr F 2026-11-28 10:00:00.123 [WARNING][60] felix/bpf_ep_mgr.go 1: "
    "Failed to apply policy to endpoint, leaving it dirty error=a\n b\n "
    'name="cali1" wepID=types.WorkloadEndpointID{workloadId:"demo/a"}\n'
)
DOCKER = (
    '{"log":"2026-11-28 10:00:00.1 [INFO][9] felix/x.go 1: Felix starting up version=\\"v1\\"\\n",'
    '"time":"2026-11-28T10:00:00Z"}\n'
)
LIBBPF = "libbpf: prog 'x': BPF program load failed: Invalid argument\n"
TABLE = """\
+-----------+---------+----------+-----------+--------+
| COMPONENT | TIMEOUT | LIVENESS | READINESS | DETAIL |
+-----------+---------+----------+-----------+--------+
| a         | 30s     | -        | timed out | x | y  |
"""
METRICS = """\
# TYPE felix_bpf_dataplane_endpoints gauge
felix_bpf_dataplane_endpoints 3
felix_bpf_dirty_dataplane_endpoints 1
felix_bpf_happy_dataplane_endpoints{x="y"} 2e0
"""


# --- files ----------------------------------------------------------------------------------------


def test_a_fifo_and_a_device_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "link"):
        with pytest.raises(DataplaneError, match=f"cannot read .*/{name}: it is not a regular"):
            logfiles.read([str(tmp_path / name)])
    with pytest.raises(DataplaneError, match=r"cannot read .*/folder: Is a directory"):
        logfiles.read([str(tmp_path / "folder")])


def test_of_a_large_file_the_end_is_read(tmp_path: Path) -> None:
    """From the beginning of a line. A sparse file of 4 GiB costs no more than its end."""
    path = tmp_path / "0.log"
    with path.open("wb") as file:
        file.truncate(4 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast but one\nlast\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert logfiles.read([str(path)]) == "last but one\nlast\n"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_a_small_file_is_read_whole(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(b"one\xff\n")
    assert logfiles.read([str(tmp_path / "a"), str(tmp_path / "b")]) == "one\ufffd\n" * 2


# --- content --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        FELIX.replace("error=a", "error=" + "a" * 2_000_000),
        FELIX.replace("error=a", "error=" + ' name="' * 300_000),
        FELIX.replace("error=a", "error=" + "a\n" * 100_000),
        FELIX.replace("felix/bpf_ep_mgr.go", "felix/" + "/" * 1_000_000),
        '{"log":' + "[" * 100_000,
        FELIX.replace("2026-11-28T10:00:00.1Z", "2026-99-99T99:99:99.1Z"),
        FELIX.replace("2026-11-28T10:00:00.1Z", "0001-01-01T00:00:00.1+23:59"),
        FELIX.replace("2026-11-28 10", "9999-99-99 99").replace("2026-11-28T10:00:00.1Z", "x"),
        LIBBPF.replace("'x'", "'" + "x" * 1_000_000 + "'") + FELIX,
    ],
    ids=range(9),
)
def test_a_log_that_is_made_up(text: str) -> None:
    start = time.monotonic()
    found = log.read(text)
    assert time.monotonic() - start < 2
    assert all(len(dirty.message) < 20_000 for dirty in found.dirty)


def test_a_long_line_hides_none_that_follows() -> None:
    (dirty,) = log.read(FELIX.replace("error=a", "error=" + "a" * 2_000_000)).dirty
    assert (dirty.interface, dirty.workload) == ("cali1", "demo/a")


@pytest.mark.parametrize("value", ["NaN", "+Inf", "1e999", "-Inf"])
def test_a_count_that_is_no_number(value: str) -> None:
    with pytest.raises(DataplaneError, match="are not numbers"):
        metrics.read(METRICS.replace("endpoints 3", f"endpoints {value}"))


def test_one_metric_of_many_megabytes() -> None:
    start = time.monotonic()
    with pytest.raises(DataplaneError):
        metrics.read("felix_bpf_dataplane_endpoints{" + 'a="b",' * 1_000_000 + "} 1\n")
    with pytest.raises(DataplaneError):
        metrics.read('felix_bpf_dataplane_endpoints{a="b"} 1\n' * 300_000)
    assert time.monotonic() - start < 4


# --- mutated --------------------------------------------------------------------------------------


def mutated(text: str, chance: random.Random) -> str:
    """``text`` with some pieces removed, repeated, swapped or overwritten."""
    for _change in range(chance.randint(1, 4)):
        at, to = sorted(chance.randrange(len(text) + 1) for _end in "ab")
        piece = text[at:to]
        text = text[:at] + chance.choice(
            ["", piece * 2, piece[::-1], chance.choice('\0"|{}[]:+-9\n\u2028\ud800'), "9" * 40]
        ) + text[to:]  # fmt: skip
        text = text[:100_000] or "x"
    return text


READERS: dict[str, tuple[str, Callable[[str], object]]] = {
    "log": (FELIX + DOCKER + LIBBPF + FELIX, log.read),
    "health": (TABLE, health.reporters),
    "metrics": (METRICS, metrics.read),
}
#: ``MUTATED`` in the environment asks for more of each.
COUNT = int(os.environ.get("MUTATED", "3000"))


@pytest.mark.parametrize("name", READERS)
@pytest.mark.timeout(3600)
def test_mutated_input_is_read_or_refused(name: str) -> None:
    text, read = READERS[name]
    chance = random.Random(1)
    for number in range(COUNT):
        mutant = mutated(text, chance)
        start = time.monotonic()
        with suppress(DataplaneError):
            read(mutant)
        assert time.monotonic() - start < 1, (number, mutant)
