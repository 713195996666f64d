# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One event: as a line of JSON and back, and as a line of progress."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import Refusal
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.event import (
    Event,
    Status,
    duration,
    event_of,
    line_of,
    plain,
    progress,
    seconds_between,
)

AT = "2026-11-23T22:00:00.123Z"
FULL = Event(
    run="r",
    status=Status.DONE,
    node="worker-2",
    phase="drain",
    message="why",
    position=2,
    total=5,
    result={"a": [1, None]},
    begin={"title": "t"},
    check=True,
    at=AT,
)


def test_an_event_comes_back_from_its_line() -> None:
    assert event_of(line_of(FULL)) == FULL
    assert "\n" not in line_of(FULL)


def test_empty_values_are_not_written() -> None:
    line = line_of(Event("r", Status.FINISHED, at=AT))
    assert json.loads(line) == {"at": AT, "run": "r", "status": "finished"}


def test_odd_text_survives() -> None:
    odd = Event("r", Status.NOTE, message="\udc80 \u202e \x1b[2J ü\n", at=AT)
    assert line_of(odd).isascii()
    assert event_of(line_of(odd)) == odd


@pytest.mark.parametrize(
    "line",
    [
        '{"run": "r", "sta',
        "[]",
        '{"run": "r", "status": "done"}',
        '{"run": "r", "status": "exploded", "at": "2026-11-23T22:00:00.123Z"}',
        '{"run": "r", "status": "done", "at": "yesterday"}',
        '{"run": "r", "status": "done", "at": "2026-11-23T22:00:00+01:00"}',
        '{"run": 5, "status": "done", "at": "2026-11-23T22:00:00.123Z"}',
        '{"run": "r", "status": "done", "result": 1, "at": "2026-11-23T22:00:00.123Z"}',
    ],
)
def test_a_line_that_is_not_an_event_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        event_of(line)


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (Event(" ", Status.BEGUN), "run is empty"),
        (Event("r", Status.DONE), "a node or a phase"),
        (Event("r", Status.FAILED), "a node or a phase"),
        (Event("r", Status.UNREACHABLE, phase="drain"), "needs the node"),
        (Event("r", Status.NOTE, "worker-1"), "a message or a result"),
    ],
)
def test_nonsense_is_refused(event: Event, why: str) -> None:
    with pytest.raises(Refusal, match=why):
        event.refuse_nonsense()


@pytest.mark.parametrize(
    "event",
    [
        Event("r", Status.BEGUN),
        Event("r", Status.DONE, phase="preflight"),
        Event("r", Status.SKIPPED, "worker-1"),
        Event("r", Status.NOTE, result={"lost": 1}),
        Event(run="r", status=Status.STOPPED, node="worker-1", phase="drain"),
    ],
)
def test_a_valid_event_is_accepted(event: Event) -> None:
    event.refuse_nonsense()


def test_values_become_json_without_the_tasks_options() -> None:
    value = {
        1: {"invocation": {"module_args": {"api_key": "hush"}}, "b": b"\xff"},
        "t": (1, {2}),
        "n": math.nan,
        "invocation": "hush",
        "o": Status,
        "x": [True, None, 1.5, Status.DONE],
    }
    made = plain(value)
    assert "hush" not in json.dumps(made, allow_nan=False)
    assert made["1"] == {"b": "\\xff"}
    assert made["t"] == [1, [2]]
    assert made["n"] == "nan"
    assert made["x"] == [True, None, 1.5, "done"]


@pytest.mark.parametrize(
    ("event", "seconds", "line"),
    [
        ({"status": Status.BEGUN, "node": "worker-2", "phase": "drain", "position": 2, "total": 5},
         None, "[node 2/5 worker-2] drain: begun"),
        ({"status": Status.DONE, "node": "worker-2", "phase": "drain", "position": 2, "total": 5},
         41.2, "[node 2/5 worker-2] drain: done in 41 s"),
        ({"status": Status.FAILED, "node": "w", "phase": "verify", "message": "a\n b"},
         65, "[node w] verify: FAILED after 1 min 05 s: a b"),
        ({"status": Status.SKIPPED, "node": "w", "check": True},
         None, "[node w] skipped (check mode)"),
        ({"status": Status.FINISHED}, None, "[rollout] finished"),
        ({"status": Status.STOPPED, "message": "see \x1b[2J"}, None,
         "[rollout] STOPPED: see \\x1b[2J"),
        ({"status": Status.DONE, "phase": "preflight"}, 1.0, "[rollout] preflight: done in 1.0 s"),
    ],
)  # fmt: skip
def test_progress(event: dict[str, Any], seconds: float | None, line: str) -> None:
    assert progress(Event("r", **event), seconds) == line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 00 s"),
     (185, "3 min 05 s"), (3599.6, "1 h 00 min"), (3725, "1 h 02 min")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_clock_put_back_makes_no_negative_time() -> None:
    assert seconds_between(AT, "2026-11-23T22:00:01Z") == pytest.approx(0.877)
    assert seconds_between(AT, "2026-11-23T21:00:00.000Z") == 0.0
