# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The maintenance window, across midnight and across changes of the clocks."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import Refusal
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout import (
    maintenance_window as windows,
)

BERLIN = "Europe/Berlin"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("now", "opens", "closes", "left"),
    [
        # In winter, Berlin is an hour ahead.
        ("2026-11-23 20:59", "2026-11-23 21:00", "2026-11-24 03:00", 0),
        ("2026-11-23 21:00", "2026-11-23 21:00", "2026-11-24 03:00", 6 * 3600),
        ("2026-11-24 02:59", "2026-11-23 21:00", "2026-11-24 03:00", 60),
        ("2026-11-24 03:00", "2026-11-24 21:00", "2026-11-25 03:00", 0),
        # The clocks go back on 25 October 2026 at 03:00: that night is an hour longer...
        ("2026-10-24 20:00", "2026-10-24 20:00", "2026-10-25 03:00", 7 * 3600),
        # ... and on 28 March 2027 forward: that one is an hour shorter.
        ("2027-03-27 21:00", "2027-03-27 21:00", "2027-03-28 02:00", 5 * 3600),
    ],
)
def test_a_nightly_window_in_berlin(now: str, opens: str, closes: str, left: int) -> None:
    window = windows.parse_window("22:00", "04:00", BERLIN)
    opening = window.opening(utc(now))
    assert (opening.opens, opening.closes) == (utc(opens), utc(closes))
    assert windows.seconds_left(opening, utc(now)) == left


def test_a_window_by_day_does_not_pass_midnight() -> None:
    window = windows.parse_window("09:00", "17:00", "UTC")
    assert windows.blocker(window, utc("2026-11-23 08:59"), 0) is not None
    assert windows.blocker(window, utc("2026-11-23 16:59"), 60) is None
    assert windows.blocker(window, utc("2026-11-23 17:00"), 0) is not None


def test_a_closed_window_reports_when_it_opens() -> None:
    message = windows.blocker(
        windows.parse_window("22:00", "04:00", BERLIN), utc("2026-11-23 17:40"), 0
    )
    assert message is not None
    assert "it is 2026-11-23 18:40 CET" in message
    assert "opens at 2026-11-23 22:00 CET, in 3 h 20 min" in message


def test_a_step_needs_enough_time_before_the_end() -> None:
    window, now = windows.parse_window("22:00", "04:00", BERLIN), utc("2026-11-24 02:50")
    assert windows.blocker(window, now, 600) is None
    message = windows.blocker(window, now, 601)
    assert message is not None
    assert "closes at 2026-11-24 04:00 CET, in 10 min 0 s" in message
    assert "needs 10 min 1 s" in message
    assert "; it was not started. Rerun in the next window" in message


def test_a_window_with_dates_opens_once() -> None:
    window = windows.parse_window("2026-11-28 23:00", "2026-11-29 05:00", "America/New_York")
    assert windows.blocker(window, utc("2026-11-29 04:00"), 3600) is None
    before = windows.blocker(window, utc("2026-11-28 12:00"), 0)
    assert before is not None
    assert "opens at 2026-11-28 23:00 EST" in before
    after = windows.blocker(window, utc("2026-11-30 04:30"), 0)
    assert after is not None
    assert "closed at 2026-11-29 05:00 EST" in after


@pytest.mark.parametrize(
    ("start", "end", "zone", "message"),
    [
        ("22:00", "04:00", "Europe/Berlyn", "'Europe/Berlyn' is not a time zone"),
        ("22:00", "04:00", "../etc/passwd", "is not a time zone known on this machine"),
        ("79200", "04:00", "UTC", "start: '79200' is neither"),  # 22:00 unquoted, as YAML 1.1 reads
        ("22:00", "4 am", "UTC", "end: '4 am' is neither"),
        ("22:00", "24:00", "UTC", "end: '24:00' is neither"),
        ("2026-11-28 23:00", "05:00", "UTC", "both with a date, or both without"),
        ("2026-11-28 23:00", "2026-11-28 22:00", "UTC", "is not later than start"),
        ("22:00", "22:00", "UTC", "leave both out"),
    ],
)
def test_contradictory_options_are_refused(start: str, end: str, zone: str, message: str) -> None:
    with pytest.raises(Refusal, match=message):
        windows.parse_window(start, end, zone)
