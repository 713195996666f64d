# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes that the kernel refuses because a hook's filters are in a shared block. Pure.

A qdisc with ``ingress_block`` or ``egress_block`` shares its filters with other interfaces. The
kernel changes them by the block's index only (net/sched/cls_api.c, __tcf_block_find), since a
change concerns all these interfaces. Neither Felix nor a repair does that.
"""

from __future__ import annotations

import errno

from ..errors import KernelError
from ..model import Action, Endpoint, Hook, Plan, Slot, filter_operation


def refused_write(endpoint: Endpoint, action: Action, hook: Hook, slot: Slot) -> KernelError | None:
    """The error with which the kernel refuses this write; None if the block is not shared."""
    block = endpoint.block(hook)
    if not block:
        return None
    return KernelError(
        filter_operation(action, hook, slot),
        errno.EOPNOTSUPP,
        f"the filters of this hook are in shared block {block}",
        place=f"{endpoint.interface} {hook.value}",
    )


def refused_plan(endpoint: Endpoint, steps: Plan) -> KernelError | None:
    """The error of the first step that the kernel refuses."""
    for step in steps:
        if step.filter is not None:
            error = refused_write(endpoint, step.action, step.hook, step.filter.slot)
            if error is not None:
                return error
    return None
