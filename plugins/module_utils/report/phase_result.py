# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The result of a phase, in the records that a report shows; unknown values are kept as they are.

Pure. Keys identify a record, not the phase: several phases repair endpoints.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class FindingRecord:
    code: str
    hook: str
    message: str


@dataclass(frozen=True)
class EndpointRecord:
    """An endpoint that drifted: its findings, its plan, its verdict."""

    interface: str
    verdict: str
    outlook: str
    findings: tuple[FindingRecord, ...]
    #: The findings at the end.
    remaining: tuple[FindingRecord, ...]
    plan: tuple[str, ...]
    notes: tuple[str, ...]
    felix_message: str
    other: Mapping[str, Any]


@dataclass(frozen=True)
class ParityRecord:
    """``looked_at``: all endpoints; ``found``: drifted before; ``left``: drifted after."""

    looked_at: int | None
    found: int
    repaired: int
    left: int
    endpoints: tuple[EndpointRecord, ...]


@dataclass(frozen=True)
class DrainRecord:
    evicted: tuple[str, ...]
    skipped: tuple[str, ...]
    remaining: tuple[str, ...]
    waited_seconds: float
    #: Whether this run cordoned the node; None if the result does not say.
    cordoned: bool | None


@dataclass(frozen=True)
class CheckRecord:
    """``result``: good, bad or not judged."""

    name: str
    result: str
    seen: str
    wanted: str


@dataclass(frozen=True)
class PhaseResult:
    parity: ParityRecord | None = None
    drain: DrainRecord | None = None
    checks: tuple[CheckRecord, ...] = ()
    uncordoned: bool | None = None
    #: Calico's version before and after, if the result has the pods.
    version_before: str = ""
    version_after: str = ""
    #: Packets of a probe.
    sent: int | None = None
    lost: int | None = None
    #: All other values.
    other: Mapping[str, Any] = field(default_factory=dict)


#: An endpoint's attachments: too much for a report, and outdated soon.
_IN_THE_JOURNAL_ONLY = {
    "ifindex", "qdisc", "ingress", "egress", "outlook_by_behaviour", "done",
}  # fmt: skip


class _Fields:
    """The values of a result; a value of the wanted type is moved out of ``rest``."""

    def __init__(self, value: Mapping[str, Any]) -> None:
        self.rest = dict(value)

    def text(self, key: str) -> str:
        value = self.rest.get(key, "")
        if value is not None and not isinstance(value, (str, int, float)):
            return ""
        self.rest.pop(key, None)
        return "" if value is None else one_line(value)

    def number(self, key: str) -> float | None:
        """A number, also one that a template turned into text."""
        value = self.rest.get(key)
        try:
            number = float(value) if isinstance(value, (int, float, str)) else math.nan
        except ValueError:
            return None
        if isinstance(value, bool) or not math.isfinite(number):
            return None
        del self.rest[key]
        return number

    def whole(self, key: str) -> int | None:
        value = self.number(key)
        return None if value is None else int(value)

    def truth(self, key: str) -> bool | None:
        value = self.rest.get(key)
        if not isinstance(value, bool):
            return None
        del self.rest[key]
        return value

    def mapping(self, key: str) -> Mapping[str, Any] | None:
        value = self.rest.get(key)
        return self.rest.pop(key) if isinstance(value, dict) else None

    def mappings(self, key: str) -> tuple[Mapping[str, Any], ...]:
        value = self.rest.get(key)
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            return ()
        return tuple(self.rest.pop(key))

    def lines(self, key: str) -> tuple[str, ...]:
        value = self.rest.get(key)
        return tuple(one_line(one) for one in self.rest.pop(key)) if isinstance(value, list) else ()


def phase_result(result: Mapping[str, Any]) -> PhaseResult:
    fields = _Fields(result)
    pods = (fields.rest.get("former"), fields.rest.get("pod"))
    return PhaseResult(
        parity=_parity(fields) or _nested_parity(fields),
        drain=_drain(fields),
        checks=_checks(fields),
        uncordoned=fields.truth("uncordoned"),
        version_before=version_of(pods[0]),
        version_after=version_of(pods[1]),
        sent=fields.whole("sent"),
        lost=fields.whole("lost"),
        other={k: v for k, v in fields.rest.items() if v not in ({}, [], "", None)},
    )


def _parity(fields: _Fields) -> ParityRecord | None:
    if not isinstance(fields.rest.get("endpoints"), list) or "found" not in fields.rest:
        return None
    # Its other counts follow from the endpoints below.
    summary = _Fields(fields.mapping("summary") or {})
    return ParityRecord(
        looked_at=summary.whole("endpoints"),
        found=fields.whole("found") or 0,
        repaired=fields.whole("repaired") or 0,
        left=fields.whole("left") or 0,
        endpoints=tuple(_endpoint(e) for e in fields.mappings("endpoints")),
    )


def _nested_parity(fields: _Fields) -> ParityRecord | None:
    nested = _Fields(fields.mapping("parity") or {})
    found = _parity(nested)
    fields.rest.update({"parity": nested.rest} if nested.rest else {})
    return found


def _endpoint(value: Mapping[str, Any]) -> EndpointRecord:
    fields = _Fields(value)
    return EndpointRecord(
        interface=fields.text("interface"),
        verdict=fields.text("verdict"),
        outlook=fields.text("outlook"),
        findings=_findings(fields, "findings"),
        remaining=_findings(fields, "remaining"),
        plan=fields.lines("plan"),
        notes=fields.lines("notes"),
        felix_message=fields.text("felix_message"),
        other={k: v for k, v in fields.rest.items() if k not in _IN_THE_JOURNAL_ONLY},
    )


def _findings(fields: _Fields, key: str) -> tuple[FindingRecord, ...]:
    return tuple(
        FindingRecord(f.text("code"), f.text("hook"), f.text("message"))
        for f in map(_Fields, fields.mappings(key))
    )


def _drain(fields: _Fields) -> DrainRecord | None:
    if not isinstance(fields.rest.get("evicted"), list):
        return None
    return DrainRecord(
        evicted=fields.lines("evicted"),
        skipped=fields.lines("skipped"),
        remaining=fields.lines("remaining"),
        waited_seconds=fields.number("waited_seconds") or 0.0,
        cordoned=fields.truth("cordoned"),
    )


def _checks(fields: _Fields) -> tuple[CheckRecord, ...]:
    checks = fields.rest.get("checks")
    if not isinstance(checks, list) or not all(_is_check(c) for c in checks):
        return ()
    return tuple(
        CheckRecord(*(one_line(c.get(key, "")) for key in ("name", "result", "seen", "wanted")))
        for c in fields.mappings("checks")
    )


_CHECK_KEYS = {"name", "result", "seen", "wanted", "required", "passes"}


def _is_check(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and {"name", "result"} <= value.keys() <= _CHECK_KEYS
        and value["result"] in ("good", "bad", "not judged")
    )


def version_of(pod: Any) -> str:
    """The version of a calico-node pod: its ``version``, else the tag of its image."""
    if not isinstance(pod, dict):
        return ""
    if isinstance(pod.get("version"), str):
        return str(pod["version"])
    images = pod.get("images")
    if isinstance(images, list):
        images = dict(enumerate(images))
    if not isinstance(images, dict) or not images:
        return ""
    image = str(images.get("calico-node", next(iter(images.values()))))
    name = image.partition("@")[0].rpartition("/")[2]
    return name.partition(":")[2] or image


def one_line(value: Any) -> str:
    """A value on one line: a step of a plan or a pod in words, else JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and {"action", "hook"} <= value.keys():
        return _step(value)
    if isinstance(value, dict) and {"pod", "why"} == value.keys():
        return f"{one_line(value['pod'])}: {one_line(value['why'])}"
    return json.dumps(value, sort_keys=True)


def _step(step: Mapping[str, Any]) -> str:
    """A step in the format of ``model.Step``, then its other values."""
    words = [one_line(step["action"]), one_line(step["hook"])]
    known = [("name", ""), ("path", ""), ("program_id", "id "), ("priority", "pref ")]
    known += [("handle", "handle "), ("chain", "chain ")]
    words += [f"{word}{one_line(step[key])}" for key, word in known if step.get(key)]
    left = step.keys() - {"action", "hook"} - {key for key, word in known}
    return " ".join(words + [f"{key} {one_line(step[key])}" for key in sorted(left)])


def outline(value: Any, indent: str = "") -> str:
    """Any value as indented lines."""
    if isinstance(value, dict) and value:
        return "\n".join(_entry(f"{indent}{key}:", one, indent) for key, one in value.items())
    if isinstance(value, list) and value:
        return "\n".join(_entry(f"{indent}-", one, indent) for one in value)
    return indent + one_line(value).replace("\n", f"\n{indent}")


def _entry(label: str, value: Any, indent: str) -> str:
    simple = not (isinstance(value, (dict, list)) and value) and "\n" not in one_line(value)
    return f"{label} {one_line(value)}" if simple else f"{label}\n{outline(value, indent + '  ')}"
