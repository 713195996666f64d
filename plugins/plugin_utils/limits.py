# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lower limits of options, which an argument spec can't express."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import Refusal


def check_least(options: Mapping[str, Any], **least: float) -> None:
    """:raises Refusal: an option is below its limit."""
    for name, limit in least.items():
        value = options.get(name)
        if value is not None and value < limit:
            raise Refusal(f"{name} is {value}; it must be at least {limit:g}; nothing was changed")
