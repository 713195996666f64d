# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Calico release does at an endpoint, by its version: read off every release's tag.

Of its own: nothing here is the product's, which is checked against it.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple


class Behaviour(str, Enum):
    """How a release re-attaches (felix/bpf/tc/attach.go, felix/bpf/libbpf/libbpf_api.h)."""

    #: Adds, the kernel choosing priority and handle; then deletes the old. Its comparison of the
    #: hooks asserts a pointer and gets a value: 3.28.0 and 3.28.1 never compare.
    ADD_WITHOUT_COMPARE = "add_without_compare"
    #: Adds at the old priority, the kernel choosing the handle; then deletes the old.
    ADD_THEN_DELETE = "add_then_delete"
    #: Replaces in place; still demands that the hooks agree.
    REPLACE_AND_COMPARE = "replace_and_compare"
    #: Replaces in place, and demands nothing.
    REPLACE = "replace"
    #: Updates a pinned link.
    TCX = "tcx"

    @property
    def compares_hooks(self) -> bool:
        """felix/dataplane/linux/bpf_ep_mgr.go, doApplyPolicy."""
        return self in (Behaviour.ADD_THEN_DELETE, Behaviour.REPLACE_AND_COMPARE)


#: The first patch release of each behaviour.
_BEHAVIOURS = {
    (3, 28): (
        (0, Behaviour.ADD_WITHOUT_COMPARE),
        (2, Behaviour.ADD_THEN_DELETE),
        (5, Behaviour.REPLACE_AND_COMPARE),
    ),
    (3, 29): ((0, Behaviour.ADD_THEN_DELETE), (5, Behaviour.REPLACE_AND_COMPARE)),
    (3, 30): ((0, Behaviour.ADD_THEN_DELETE), (1, Behaviour.REPLACE_AND_COMPARE)),
}
_CHURNING = {(3, 28, 2), (3, 28, 3), (3, 29, 0), (3, 29, 1), (3, 29, 2), (3, 29, 3)}


class Release(NamedTuple):
    major: int
    minor: int
    patch: int

    @classmethod
    def of(cls, version: str) -> Release:
        """:raises ValueError: where it is not a version such as v3.29.1, or older than v3.28.0."""
        found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version)
        if not found:
            raise ValueError(f"{version!r} is not a Calico version such as v3.29.1")
        release = cls(*map(int, found.groups()))
        if release < (3, 28):
            raise ValueError(f"Calico {version} is older than any that is transcribed (v3.28.0)")
        return release

    def behaviour(self, attach_type: str = "TCX") -> Behaviour:
        """``attach_type``: Felix's BPFAttachType, TCX or TC, of which older ones know nothing."""
        behaviours = _BEHAVIOURS.get((self.major, self.minor))
        if behaviours:
            return [behaviour for first, behaviour in behaviours if first <= self.patch][-1]
        return Behaviour.TCX if attach_type == "TCX" else Behaviour.REPLACE

    @property
    def churns(self) -> bool:
        """Whether every update of its Node makes it re-attach everything (#10143)."""
        return self in _CHURNING
