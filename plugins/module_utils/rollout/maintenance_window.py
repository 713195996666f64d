# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The maintenance window: whether now is inside, and whether there is time enough. Pure.

Moments are compared in UTC, so that an hour that the clocks skip or repeat is counted right.
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

    def holds(self, now: datetime) -> bool:
        return self.opens <= now < self.closes


@dataclass(frozen=True)
class Window:
    """Daily from a time to a time, the next day's if that is not later; or once, by two dates."""

    start: time | datetime
    end: time | datetime
    zone: tzinfo

    def opening(self, now: datetime) -> Opening:
        """The opening that holds ``now``, else the next one, else the last one."""
        openings = sorted(self._openings(now), key=lambda each: each.opens)
        return next((each for each in openings if now < each.closes), openings[-1])

    def _openings(self, now: datetime) -> Iterator[Opening]:
        if isinstance(self.start, datetime) and isinstance(self.end, datetime):
            yield Opening(self._utc(self.start), self._utc(self.end))
            return
        today = now.astimezone(self.zone).date()
        for day in (today - _DAY, today, today + _DAY):
            yield self._daily(day)

    def _daily(self, day: date) -> Opening:
        start, end = (each for each in (self.start, self.end) if isinstance(each, time))
        last = day if end > start else day + _DAY
        return Opening(
            self._utc(datetime.combine(day, start)), self._utc(datetime.combine(last, end))
        )

    def _utc(self, local: datetime) -> datetime:
        return local.replace(tzinfo=self.zone).astimezone(timezone.utc)

    def local(self, moment: datetime) -> str:
        """A moment as the people of the window's zone read it."""
        return moment.astimezone(self.zone).strftime("%Y-%m-%d %H:%M %Z")


def window(start: str, end: str, zone: str) -> Window:
    """Read the options.

    :raises Refusal: a time, the zone, or their order is wrong.
    """
    try:
        where = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise Refusal(
            f"timezone: {zone!r} is no time zone that this machine knows; give an IANA name such "
            "as Europe/Berlin (where none is known, install the operating system's tzdata)"
        ) from error
    first, last = _when("start", start), _when("end", end)
    if isinstance(first, datetime) is not isinstance(last, datetime):
        raise Refusal(
            f"start is {start!r} and end is {end!r}: give both with a date, or both without one"
        )
    made = Window(first, last, where)
    if isinstance(first, datetime):
        once = made.opening(datetime.now(timezone.utc))
        if once.closes <= once.opens:
            raise Refusal(f"end ({end}) is not later than start ({start})")
    elif first == last:
        raise Refusal(f"start and end are both {start}: leave both out for no window at all")
    return made


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
    """Until it closes, 0 outside."""
    return int((opening.closes - now).total_seconds()) if opening.holds(now) else 0


def objection(asked: Window, now: datetime, needed: int) -> str | None:
    """Why nothing may begin now that takes ``needed`` seconds; None if it may."""
    opening = asked.opening(now)
    if now >= opening.closes:
        return (
            f"the maintenance window closed at {asked.local(opening.closes)}, it is "
            f"{asked.local(now)}: nothing was begun; plan another window"
        )
    if not opening.holds(now):
        return (
            f"outside the maintenance window: it is {asked.local(now)}, and the window opens at "
            f"{asked.local(opening.opens)}, in {_span(opening.opens - now)}; nothing was begun"
        )
    left = seconds_left(opening, now)
    if needed > left:
        return (
            f"the maintenance window closes at {asked.local(opening.closes)}, in "
            f"{_span(timedelta(seconds=left))}, and the next step needs "
            f"{_span(timedelta(seconds=needed))}: it was not begun; run again in the next window, "
            "what is done stays done"
        )
    return None


def _span(length: timedelta) -> str:
    """A length as people say it: 3 h 20 min, 12 min, 40 s."""
    seconds = int(length.total_seconds())
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"
