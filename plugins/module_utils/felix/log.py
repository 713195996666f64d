# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read Felix's log: endpoints that it left dirty, its start, and its version. Pure.

A line, by libcalico-go/lib/logutils/logutils.go: ``DATE TIME [LEVEL][pid] felix/FILE LINE: MESSAGE
key=value ...``, keys sorted, strings quoted, errors raw, so that an error of ``tc`` takes several
lines. The container runtime adds a prefix (CRI), or wraps the line in JSON (Docker). The files of a
container also contain the lines of calico-node's other processes.

The messages, equal from v3.28.1 to v3.31.0, are in felix/dataplane/linux/bpf_ep_mgr.go and
felix/daemon/daemon.go. Only the start-up line has the version. It is logged only if the environment
sets FELIX_LOGSEVERITYSCREEN to Info: before it reads its configuration, Felix logs only errors
(felix/logutils/logutils.go).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from ..errors import beginning_of

_FELIX = "] felix/"
_STARTS = "Felix starting up"
#: In libbpf's own lines, which have no prefix of Felix (libbpf 1.x, src/libbpf.c and src/elf.c).
_LIBBPF = "libbpf: "
_LOAD_FAILURE = re.compile(r"load failed|failed to (?:load|open|create)")
#: The most different load failures that are returned.
_MOST_FAILURES = 20
#: A hook's slot in a message if the program for it could not be loaded.
_NOT_ATTACHED = "({false 0 0})"
_DIRTY = ("leaving it dirty", "Failed to apply policy to interface, will retry")
#: The most lines of one message that are read.
_LONGEST = 30
#: The most characters of a line and of a message that are read; an error of tc has a few hundred.
_MOST_LINE = 1 << 14

_CRI = re.compile(r"(\d{4}-\d\d-\d\dT\S+) std(?:out|err) ([FP])\S* ")
_PREFIX = re.compile(
    r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)\.\d{3} \[[A-Z]+\]\[\d+\] [\w./-]+ \S+: (.*)", re.DOTALL
)
_FIELDS = re.compile(r'(.*) (?:name="([^"]*)" wepID=(.*)|iface="([^"]*)"\s*)$', re.DOTALL)
_WORKLOAD = re.compile(r'[Ww]orkload_?[Ii]d:\s*"([^"]+)"')
_VERSION = re.compile(r' version="([^"]*)"')
_ZONE = re.compile(r"([+-])(\d\d):(\d\d)$")


@dataclass(frozen=True)
class Dirty:
    """An interface that Felix left dirty ``count`` times; ``message`` is the last one.

    ``interface`` is ``?`` if the line was cut off. ``load_failed``: the programs of one direction
    failed to load, which only libbpf's lines explain; the slots of the two hooks do not differ.
    Times are ISO, UTC.
    """

    interface: str
    workload: str | None
    count: int
    first_at: str | None
    last_at: str | None
    message: str
    load_failed: bool = False


@dataclass(frozen=True)
class LoadFailure:
    """A line of libbpf about a program that could not be loaded. Times are ISO, UTC."""

    message: str
    count: int
    last_at: str | None


@dataclass(frozen=True)
class Log:
    """The log of the newest Felix process, from ``since`` to ``newest_at`` (ISO, UTC)."""

    since: str | None
    newest_at: str | None
    version: str | None
    dirty: tuple[Dirty, ...]
    load_failures: tuple[LoadFailure, ...] = ()


class _Entry(NamedTuple):
    at: str | None
    message: str


def read(text: str) -> Log:
    """:param text: the files of one container, oldest first."""
    newest = text.rfind(_FELIX)
    if newest < 0:
        return Log(None, None, None, ())
    # A Felix that restarts inside its container is another process.
    process = text[text.rfind("[", 0, newest) : newest + len(_FELIX)]
    start = text.find(process)
    return Log(
        since=_entry(text, start).at,
        newest_at=_entry(text, newest).at,
        version=_version(text, start),
        dirty=_dirty(text, start),
        load_failures=_load_failures(text, start),
    )


def _version(text: str, start: int) -> str | None:
    at = text.find(_STARTS, start)
    found = _VERSION.search(_entry(text, at).message) if at >= 0 else None
    return found[1] if found else None


def _dirty(text: str, start: int) -> tuple[Dirty, ...]:
    found: dict[str, Dirty] = {}
    for at in sorted(at for sentence in _DIRTY for at in _occurrences(text, sentence, start)):
        new = _dirty_in(_entry(text, at))
        old = found.get(new.interface)
        if old is not None:
            new = replace(new, count=old.count + 1, first_at=old.first_at)
        found[new.interface] = new
    return tuple(found[interface] for interface in sorted(found))


def _load_failures(text: str, start: int) -> tuple[LoadFailure, ...]:
    found: dict[str, LoadFailure] = {}
    for at in _occurrences(text, _LIBBPF, start):
        begin = text.rfind("\n", 0, at) + 1
        stamp, line = _unwrapped(text, begin)
        message = beginning_of(line[line.find(_LIBBPF) :].strip())
        if not _LOAD_FAILURE.search(message):
            continue
        count = found[message].count if message in found else 0
        if count or len(found) < _MOST_FAILURES:
            found[message] = LoadFailure(message, count + 1, _utc(stamp))
    return tuple(found.values())


def _dirty_in(entry: _Entry) -> Dirty:
    fields = _FIELDS.match(entry.message)
    if fields is None:
        return Dirty(
            interface="?",
            workload=None,
            count=1,
            first_at=entry.at,
            last_at=entry.at,
            message=beginning_of(entry.message),
        )
    workload = _WORKLOAD.search(fields[3] or "")
    name = fields[2] or fields[4]
    return Dirty(
        interface=name,
        workload=workload[1] if workload else None,
        count=1,
        first_at=entry.at,
        last_at=entry.at,
        message=beginning_of(fields[1]),
        load_failed=_NOT_ATTACHED in fields[1],
    )


def _occurrences(text: str, sentence: str, start: int) -> Iterator[int]:
    at = text.find(sentence, start)
    while at >= 0:
        yield at
        at = text.find(sentence, at + 1)


def _entry(text: str, at: int) -> _Entry:
    """The message around ``at``, with its continuation lines."""
    begin = text.rfind("\n", 0, at) + 1
    stamp, words = _unwrapped(text, begin)
    first = _PREFIX.match(words)
    if first is None:
        return _Entry(_utc(stamp), words.strip())
    message = first[3]
    for line_at in _lines_after(text, begin):
        more = _unwrapped(text, line_at)[1]
        if _PREFIX.match(more):
            break
        message += more
    return _Entry(_utc(stamp or f"{first[1]}T{first[2]}Z"), message[:_MOST_LINE].strip())


def _lines_after(text: str, at: int) -> Iterator[int]:
    for _line in range(_LONGEST):
        at = text.find("\n", at) + 1
        if at == 0 or at == len(text):
            return
        yield at


def _unwrapped(text: str, at: int) -> tuple[str | None, str]:
    """(the runtime's timestamp, the line without the runtime's additions)

    With a newline at its end, unless the runtime marks the line as partial.
    """
    end = text.find("\n", at)
    line = text[at : min(end if end >= 0 else len(text), at + _MOST_LINE)]
    if line.startswith('{"'):
        try:
            entry = json.loads(line)
            return str(entry["time"]), str(entry["log"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return None, line + "\n"  # cut off, or of another program
    cri = _CRI.match(line)
    if cri is None:
        return None, line + "\n"
    return cri[1], line[cri.end() :] + ("\n" if cri[2] == "F" else "")


def _utc(stamp: str | None) -> str | None:
    """``stamp``, of any zone and precision, to the second; without a zone it is read as UTC.

    None if it is not a time.
    """
    if stamp is None:
        return None
    zone = _ZONE.search(stamp, 19)
    try:
        moment = datetime.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S")
        if zone:
            offset = timedelta(hours=int(zone[2]), minutes=int(zone[3]))
            moment += -offset if zone[1] == "+" else offset
    except (ValueError, OverflowError):  # not a time, or before year 1
        return None
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
