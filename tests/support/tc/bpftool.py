# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What bpftool says of a program."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import (
    run,
)


def program(*words: str) -> dict[str, Any]:
    """What bpftool says of a program: ``pinned PATH`` or ``id N``."""
    shown: dict[str, Any] = json.loads(run("bpftool", "-j", "prog", "show", *words))
    return shown


def program_id(pin: str) -> int:
    return int(program("pinned", pin)["id"])
