# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Known faults of an upgrade from one Calico release to another. Pure.

The data is in ``advisory_data.py``; ``select`` judges an upgrade path by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from .advisory_data import ADVISORY_ROWS, AdvisoryRow
from .versions import Release, Releases, releases


class AdvisorySeverity(str, Enum):
    """``refuse``: known to break, so the run is refused. ``warn``: may break. ``info``: to know."""

    REFUSE = "refuse"
    WARN = "warn"
    INFO = "info"


@dataclass(frozen=True)
class UpgradePath:
    """An upgrade path, of a node or of a query. None: not known."""

    origin: Release | None
    target: Release | None
    kernel: tuple[int, int] | None = None
    #: vxlan, ipip or none.
    encapsulation: str | None = None
    #: tc or tcx: how a release that knows TCX attaches, or would attach, on this path.
    attach_type: str | None = None


@dataclass(frozen=True)
class Advisory:
    """A known fault. All given conditions must hold; ``kernel``: this version or newer."""

    code: str
    severity: AdvisorySeverity
    text: str
    #: What to do about it.
    advice: str
    fixed_in: tuple[str, ...] = ()
    refs: tuple[str, ...] = ()
    origin: Releases | None = None
    target: Releases | None = None
    kernel: tuple[int, int] | None = None
    encapsulation: str | None = None
    attach_type: str | None = None
    downgrade: bool = False
    another_minor: bool = False

    def __str__(self) -> str:
        fixed = f" Fixed in {', '.join(self.fixed_in)}." if self.fixed_in else ""
        refs = f" ({', '.join(self.refs)})" if self.refs else ""
        return f"{self.text}{fixed} {self.advice}{refs}"


#: Not selected by ranges: for a release that is not known.
UNKNOWN_VERSION = Advisory(
    code="unknown_version",
    severity=AdvisorySeverity.REFUSE,
    text="{target} is not a release of Calico 3.24 to 3.32: it is not known how it attaches.",
    advice="Name a release by its tag, such as v3.31.7, also where the image is pinned by digest "
    "(image:tag@digest).",
)
UNKNOWN_ORIGIN = Advisory(
    code="unknown_origin",
    severity=AdvisorySeverity.WARN,
    text="The running version is not a known release of Calico, so advisories about an upgrade "
    "from it cannot be selected.",
    advice="Check its version (calico-node -v in the pod).",
)


def _advisory(row: AdvisoryRow) -> Advisory:
    fields: dict[str, Any] = {**row, "severity": AdvisorySeverity(row["severity"])}
    for name in {"origin", "target"} & fields.keys():
        fields[name] = releases(fields[name])
    return Advisory(**fields)


ADVISORIES = tuple(_advisory(row) for row in ADVISORY_ROWS)
CODES = frozenset(advisory.code for advisory in (*ADVISORIES, UNKNOWN_VERSION, UNKNOWN_ORIGIN))


def select(path: UpgradePath) -> list[Advisory]:
    """The advisories for ``path``, the gravest first.

    An advisory that depends on an unknown value is included, but never as ``refuse``.
    """
    if path.target is None or not path.target.known:
        return [unknown_version(str(path.target or "the target"))]
    if path.origin is not None and path.origin == path.target:
        return []
    found = [] if path.origin is not None and path.origin.known else [UNKNOWN_ORIGIN]
    for advisory in ADVISORIES:
        doubts = _doubts(advisory, path)
        if doubts is not None:
            found.append(_doubted(advisory, doubts) if doubts else advisory)
    return gravest_first(found)


def unknown_version(target: str) -> Advisory:
    return replace(UNKNOWN_VERSION, text=UNKNOWN_VERSION.text.format(target=target))


def gravest_first(advisories: Sequence[Advisory]) -> list[Advisory]:
    return sorted(advisories, key=lambda a: list(AdvisorySeverity).index(a.severity))


def _doubts(advisory: Advisory, path: UpgradePath) -> list[str] | None:
    """The unknown values that it depends on; None if it does not apply."""
    doubts = []
    for name, holds in _conditions(advisory, path):
        if holds is None:
            doubts.append(name)
        elif not holds:
            return None
    return doubts


def _conditions(advisory: Advisory, path: UpgradePath) -> Iterator[tuple[str, bool | None]]:
    """Each condition: the name of its value, and whether it holds; None if that is not known."""
    origin, target = path.origin, path.target
    if advisory.origin is not None:
        yield "the running release", None if origin is None else origin in advisory.origin
    if advisory.target is not None:
        yield "the target", None if target is None else target in advisory.target
    if advisory.downgrade:
        yield "the running release", None if origin is None or target is None else target < origin
    if advisory.another_minor:
        alike = None if origin is None or target is None else origin.same_minor(target)
        yield "the running release", None if alike is None else not alike
    if advisory.kernel is not None:
        yield "the kernel", None if path.kernel is None else path.kernel >= advisory.kernel
    if advisory.encapsulation is not None:
        word = path.encapsulation
        yield "the encapsulation", None if word is None else word == advisory.encapsulation
    if advisory.attach_type is not None:
        word = path.attach_type
        yield "the attach type", None if word is None else word == advisory.attach_type


def _doubted(advisory: Advisory, doubts: Sequence[str]) -> Advisory:
    refused = advisory.severity is AdvisorySeverity.REFUSE
    severity = AdvisorySeverity.WARN if refused else advisory.severity
    words = " and ".join(dict.fromkeys(doubts))
    return replace(
        advisory, severity=severity, text=f"May apply (unknown: {words}): {advisory.text}"
    )
