# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of values that settings have, and the texts that an AWX survey answers for them. Pure.

A survey answers in text. So each kind also takes the text that a person writes for it; everything
else is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from ..errors import Refusal
from .maintenance_window import parse_window

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")
#: A year; what is longer is a mistake.
_MOST_SECONDS = 366 * 24 * 3600
_MOST_NODES = 100_000
_MOST_COUNT = 1_000_000
_WINDOW_KEYS = ("start", "end", "timezone")


class Kind(Enum):
    """The value says what is accepted, for the person who gave something else."""

    TEXT = "a text"
    VERSION = "a version in quotes, such as v3.29.7"
    BOOL = "true or false"
    COUNT = "a number from 0 to 1000000"
    SECONDS = 'seconds, such as 90, or a duration, such as "90s", "2m" or "1h30m"'
    BATCHES = 'numbers of nodes or percentages, such as [1, "10%", "25%"] or "1,10%,25%"'
    WINDOW = (
        '{"start": "22:00", "end": "02:00", "timezone": "Europe/Berlin"} or '
        '"22:00-02:00 Europe/Berlin"; with dates "2026-11-28 22:00-2026-11-29 02:00"'
    )
    CODES = 'codes, such as ["node_not_ready"] or "node_not_ready,no_room"'


class Wrong(ValueError):
    """A value is not of its kind. The text, which may be empty, says more than the kind does."""


def parse(kind: Kind, value: Any) -> Any:
    """The value in the form that the playbooks use.

    :raises Wrong: it is not of this kind.
    """
    return _PARSERS[kind](value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Wrong
    return value.strip()


def _version(value: Any) -> str:
    """A number has lost its zeros: 3.30 would be 3.3."""
    text = _text(value)
    if re.search(r"\s", text):
        raise Wrong
    return text


def _bool(value: Any) -> bool:
    word = str(value).strip().lower()
    if word not in _TRUE + _FALSE:
        raise Wrong
    return word in _TRUE


def _count(value: Any) -> int:
    text = str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,7}", text) or int(text) > _MOST_COUNT:
        raise Wrong
    return int(text)


def _seconds(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise Wrong
    match = _DURATION.fullmatch(str(value).replace(" ", ""))
    if not match or not any(match.groups()):
        raise Wrong
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    total = hours * 3600 + minutes * 60 + seconds
    if total > _MOST_SECONDS:
        raise Wrong("it is longer than a year")
    return total


def _listed(value: Any) -> list[Any]:
    """A list, or the text of one: as JSON, or with commas."""
    if isinstance(value, list):
        return value
    if not isinstance(value, str):
        return [value]
    if value.lstrip().startswith("["):
        found = _json(value)
        return found if isinstance(found, list) else [found]
    return [word.strip() for word in value.split(",")]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Wrong("it is not valid JSON") from None


def _batches(value: Any) -> list[int | str]:
    sizes = [_batch(size) for size in _listed(value)]
    if not sizes:
        raise Wrong("it is empty")
    return sizes


def _batch(size: Any) -> int | str:
    match = re.fullmatch(r"(\d{1,6})(%?)", str(size).strip())
    if isinstance(size, bool) or not match:
        raise Wrong
    number, percent = int(match[1]), match[2]
    if not 1 <= number <= (100 if percent else _MOST_NODES):
        raise Wrong(f"{size} is not from 1 to {'100%' if percent else _MOST_NODES}")
    return f"{number}%" if percent else number


def _window(value: Any) -> dict[str, str]:
    """The keys of maintenance_window's options."""
    if isinstance(value, str):
        value = _json(value) if value.lstrip().startswith("{") else _window_of(value)
    if not isinstance(value, Mapping):
        raise Wrong
    if not value:
        return {}
    unknown = [key for key in value if key not in _WINDOW_KEYS]
    if unknown:
        raise Wrong(f"{unknown[0]!r} is not one of {', '.join(_WINDOW_KEYS)}")
    if any(not isinstance(word, str) for word in value.values()):
        raise Wrong("put each time in quotes")
    if not value.get("start") or not value.get("end"):
        raise Wrong("it has no start, or no end")
    window = {key: value[key].strip() for key in _WINDOW_KEYS if value.get(key)}
    try:
        parse_window(window["start"], window["end"], window.get("timezone", "UTC"))
    except Refusal as refusal:
        raise Wrong(str(refusal)) from None
    return window


def _window_of(text: str) -> Mapping[str, str]:
    for match in re.finditer(r"-", text):
        start, rest = text[: match.start()].strip(), text[match.end() :].strip()
        words = rest.split()
        end = " ".join(word for word in words if word[0].isdigit())
        zone = " ".join(word for word in words if not word[0].isdigit())
        if re.search(r"\d:\d\d$", start) and re.search(r"\d:\d\d$", end):
            return {"start": start, "end": end, "timezone": zone}
    raise Wrong


def _codes(value: Any) -> list[str]:
    codes = _listed(value)
    if any(not isinstance(code, str) or not re.fullmatch(r"\w+", code) for code in codes):
        raise Wrong
    return codes


_PARSERS: dict[Kind, Callable[[Any], Any]] = {
    Kind.TEXT: _text,
    Kind.VERSION: _version,
    Kind.BOOL: _bool,
    Kind.COUNT: _count,
    Kind.SECONDS: _seconds,
    Kind.BATCHES: _batches,
    Kind.WINDOW: _window,
    Kind.CODES: _codes,
}
