# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases of Calico: parsed from image tags, compared, and how each one attaches. Pure.

Every range here was checked in projectcalico/calico at each release tag from v3.24.0 to v3.32.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ..model import Behaviour

#: v3.29.5, 3.29.5, v3.29.5-amd64, v3.31.0-rc1, v3.33.0-0.dev-482-g0123abcd
_TAG = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:[-+._](.+))?")
_PRERELEASE = re.compile(r"(^|[-.\d])(dev|alpha|beta|rc|pre)([-.\d]|$)")
_KERNEL = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, order=True)
class Release:
    """A release of Calico. A pre-release sorts before its release.

    ``suffix`` follows the three numbers. It distinguishes variants of one release (``amd64``,
    ``fips``) and has no other meaning, unless it names a pre-release.
    """

    major: int
    minor: int
    patch: int
    final: bool = True
    suffix: str = field(default="", compare=False)

    def __str__(self) -> str:
        numbers = f"v{self.major}.{self.minor}.{self.patch}"
        return f"{numbers}-{self.suffix}" if self.suffix else numbers

    @property
    def known(self) -> bool:
        """Whether its source was checked: it is final, and from 3.24 to 3.32."""
        return self.final and self in _KNOWN

    def same_minor(self, other: Release) -> bool:
        return (self.major, self.minor) == (other.major, other.minor)


def parse(text: str) -> Release | None:
    """The release that an image tag or a version names; None for other text, such as ``latest``."""
    found = _TAG.fullmatch(text.strip())
    if found is None:
        return None
    major, minor, patch = (int(number) for number in found.groups()[:3])
    suffix = found.group(4) or ""
    return Release(
        major=major, minor=minor, patch=patch, final=not _PRERELEASE.search(suffix), suffix=suffix
    )


def parse_kernel(text: str) -> tuple[int, int] | None:
    """(6, 12) for ``6.12.57+deb13-amd64``, as a Node's ``status.nodeInfo.kernelVersion`` is."""
    found = _KERNEL.match(text.strip())
    return (int(found.group(1)), int(found.group(2))) if found else None


@dataclass(frozen=True)
class Releases:
    """A set of releases: spans from first to last, inclusive; None leaves an end open."""

    spans: tuple[tuple[Release | None, Release | None], ...]

    def __contains__(self, release: Release) -> bool:
        return any(
            (first is None or first <= release) and (last is None or release <= last)
            for first, last in self.spans
        )


def releases(text: str) -> Releases:
    """Spans written as ``3.28.2-3.28.3 3.29.0-``; an open first end includes pre-releases.

    :raises ValueError: ``text`` has another format.
    """
    return Releases(tuple(_span(span) for span in text.split()))


def _span(text: str) -> tuple[Release | None, Release | None]:
    first, dash, last = text.partition("-")
    if not dash:
        last = first
    return _end(first), _end(last)


def _end(text: str) -> Release | None:
    if not text:
        return None
    release = parse(text)
    if release is None:
        raise ValueError(f"not a release: {text}")
    return release


#: The releases whose source was checked, for messages.
KNOWN = "v3.24.0 to v3.32"
_KNOWN = releases("3.24.0-3.32.9999")
#: felix/bpf/tc/attach.go passes a priority and adds before it deletes.
#: felix/dataplane/linux/bpf_ep_mgr.go compares the hooks, also in 3.27 (message with "qdist").
#: In 3.28.0 and 3.28.1 that check asserts a pointer but gets a value, so it never matches.
_BEHAVIOURS = {
    Behaviour.ADD_WITHOUT_COMPARE: releases("3.28.0-3.28.1"),
    Behaviour.ADD_THEN_DELETE: releases("3.27.5 3.28.2-3.28.4 3.29.0-3.29.4 3.30.0"),
    Behaviour.REPLACE_AND_COMPARE: releases("3.28.5-3.28.9999 3.29.5-3.29.9999 3.30.1-3.30.9999"),
    Behaviour.REPLACE: releases("3.31.0-3.32.9999"),
}
#: Every heartbeat of the kubelet re-attaches all programs: updateHostIP in bpf_ep_mgr.go marks all
#: interfaces as not ready without comparing the address.
_CHURNS = releases("3.27.5 3.28.2-3.28.3 3.29.0-3.29.3")
#: felix/config/config_params.go: bpfAttachType, oneof(TCX,TC), default TCX.
_KNOWS_TCX = releases("3.31.0-")
_TCX_KERNEL = (6, 6)


def behaviour(release: Release | None) -> Behaviour | None:
    """How it re-attaches; None for an unknown release, and before 3.27.5."""
    if release is None:
        return None
    return next((which for which, members in _BEHAVIOURS.items() if release in members), None)


def calico_version(release: Release | None) -> str:
    """The value of the modules' option ``calico_version``: ``auto`` for an unknown release."""
    return str(release) if release is not None and release.known else "auto"


def churns(release: Release | None) -> bool:
    """Whether it re-attaches every endpoint whenever the Node object is updated."""
    return release is not None and release in _CHURNS


def knows_tcx(release: Release | None) -> bool:
    return release is not None and release in _KNOWS_TCX


def attach_type(configured: str | None, kernel: tuple[int, int] | None) -> str | None:
    """``tc`` or ``tcx``: how a release that knows TCX attaches.

    None if that depends on the kernel, which is not known. ``configured`` is Felix's
    ``bpfAttachType``; without support in the kernel, Felix uses TC.
    """
    if configured is not None and configured.lower() == "tc":
        return "tc"
    if kernel is None:
        return None
    return "tcx" if kernel >= _TCX_KERNEL else "tc"
