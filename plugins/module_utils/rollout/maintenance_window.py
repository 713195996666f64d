# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The maintenance window: whether it is open, and whether enough time is left. Pure.

Times are compared in UTC, so that an hour that the clocks skip or repeat is counted correctly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..errors import Refusal

_DAILY, _ONCE = "%H:%M", "%Y-%m-%d %H:%M"
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Opening:
    """One time that the window is open; both ends in UTC."""

    opens: datetime
    closes: datetime

    def contains(self, now: datetime) -> bool:
        return self.opens <= now < self.closes


@dataclass(frozen=True)
class Window:
    """Daily between two times, past midnight if the end is not later; or once, with dates."""

    start: time | datetime
    end: time | datetime
    zone: tzinfo

    def opening(self, now: datetime) -> Opening:
        """The opening that contains ``now``, else the next one, else the last one."""
        openings = sorted(self._openings(now), key=lambda opening: opening.opens)
        return next((opening for opening in openings if now < opening.closes), openings[-1])

    def _openings(self, now: datetime) -> Iterator[Opening]:
        if isinstance(self.start, datetime) and isinstance(self.end, datetime):
            yield Opening(self._utc(self.start), self._utc(self.end))
            return
        today = now.astimezone(self.zone).date()
        for day in (today - _DAY, today, today + _DAY):
            yield self._daily(day)

    def _daily(self, day: date) -> Opening:
        start, end = (limit for limit in (self.start, self.end) if isinstance(limit, time))
        last = day if end > start else day + _DAY
        return Opening(
            self._utc(datetime.combine(day, start)), self._utc(datetime.combine(last, end))
        )

    def _utc(self, local: datetime) -> datetime:
        return local.replace(tzinfo=self.zone).astimezone(timezone.utc)

    def local(self, moment: datetime) -> str:
        """The moment in the window's time zone."""
        return moment.astimezone(self.zone).strftime("%Y-%m-%d %H:%M %Z")


def parse_window(start: str, end: str, zone: str) -> Window:
    """The window that the options describe.

    :raises Refusal: a time, the zone, or their order is wrong.
    """
    try:
        known_zone = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise Refusal(
            f"timezone: {zone!r} is not a time zone known on this machine; use an IANA name such "
            "as Europe/Berlin (if every name is unknown, install the package tzdata)"
        ) from error
    first, last = _when("start", start), _when("end", end)
    if isinstance(first, datetime) is not isinstance(last, datetime):
        raise Refusal(
            f"start is {start!r} and end is {end!r}: give both with a date, or both without one"
        )
    window = Window(first, last, known_zone)
    if isinstance(first, datetime):
        once = window.opening(datetime.now(timezone.utc))
        if once.closes <= once.opens:
            raise Refusal(f"end ({end}) is not later than start ({start})")
    elif first == last:
        raise Refusal(f"start and end are both {start}: leave both out to run without a window")
    return window


def _when(option: str, text: str) -> time | datetime:
    try:
        return datetime.strptime(text.strip(), _DAILY).time()
    except ValueError:
        pass
    try:
        return datetime.strptime(text.strip(), _ONCE)
    except ValueError as error:
        raise Refusal(
            f"{option}: {text!r} is neither HH:MM nor YYYY-MM-DD HH:MM (in YAML, put it in quotes)"
        ) from error


def seconds_left(opening: Opening, now: datetime) -> int:
    """Seconds until it closes; 0 while it is closed."""
    return int((opening.closes - now).total_seconds()) if opening.contains(now) else 0


def blocker(window: Window, now: datetime, needed: int) -> str | None:
    """Why a step of ``needed`` seconds may not start now; None if it may."""
    opening = window.opening(now)
    if now >= opening.closes:
        return (
            f"the maintenance window closed at {window.local(opening.closes)}, and it is now "
            f"{window.local(now)}; nothing was started. Set another window"
        )
    if not opening.contains(now):
        return (
            f"outside the maintenance window: it is {window.local(now)}, and the window opens at "
            f"{window.local(opening.opens)}, in {_span(opening.opens - now)}; nothing was started"
        )
    left = seconds_left(opening, now)
    if needed > left:
        return (
            f"the maintenance window closes at {window.local(opening.closes)}, in "
            f"{_span(timedelta(seconds=left))}, and the next step needs "
            f"{_span(timedelta(seconds=needed))}; it was not started. Rerun in the next window: "
            "finished nodes are skipped"
        )
    return None


def _span(length: timedelta) -> str:
    """A length for readers: 3 h 20 min, 12 min 0 s, 40 s."""
    seconds = int(length.total_seconds())
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"
