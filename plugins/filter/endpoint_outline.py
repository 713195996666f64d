# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter that says what is wrong with endpoints, in a readable size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.endpoint_outline import (
    outline,
)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"endpoint_outline": outline}
