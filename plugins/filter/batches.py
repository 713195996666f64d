# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter that reads the sizes of batches, for the keyword serial of a play."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import Refusal
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.settings import check


def batches(value: Any) -> list[int | str]:
    try:
        found: list[int | str] = check({"calico_bpf_batches": value}, {})["batches"]
    except Refusal as refusal:
        raise AnsibleFilterError(str(refusal)) from None
    return found


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"batches": batches}
