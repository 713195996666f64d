# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The capabilities of the process, checked before anything is changed."""

from __future__ import annotations

from ..errors import Refusal
from .syscalls import calling

_CAP_NET_ADMIN = 12
_CAP_SYS_ADMIN = 21


def require_for_writing(purpose: str) -> None:
    """:raises Refusal: without CAP_NET_ADMIN (filters) and CAP_SYS_ADMIN (programs by their id)."""
    effective = _effective_capabilities()
    needed = {"CAP_NET_ADMIN": _CAP_NET_ADMIN, "CAP_SYS_ADMIN": _CAP_SYS_ADMIN}
    missing = [name for name, bit in needed.items() if not effective >> bit & 1]
    if missing:
        raise Refusal(
            f"{purpose} needs {' and '.join(missing)}, which this process does not have; "
            "nothing was changed. Run the task as root (become: true)"
        )


def _effective_capabilities() -> int:
    path = "/proc/self/status"
    with calling("read the capabilities of the process"), open(path, encoding="ascii") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    raise Refusal("/proc/self/status shows no CapEff; nothing was changed")
