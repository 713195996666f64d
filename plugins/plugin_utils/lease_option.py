# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option ``lease`` of the actions that wait, and what they do with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import DataplaneError
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.api import Kube
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.lease import Lease, not_held

#: Which Lease, and as whom; the documentation is the fragment ``lease``'s.
LEASE_SPEC: Mapping[str, Any] = {
    "name": {"type": "str", "default": "calico-bpf-rollout"},
    "namespace": {"type": "str", "default": "kube-system"},
    "holder": {"type": "str", "required": True},
    "duration": {"type": "int", "default": 60},
}
LEASE_OPTION: Mapping[str, Any] = {"lease": {"type": "dict", "options": LEASE_SPEC}}


def lease_of(kube: Kube, options: Mapping[str, Any], tell: Callable[[str], None]) -> Lease:
    """The Lease that options of ``LEASE_SPEC`` name."""
    return Lease(
        kube,
        options["namespace"],
        options["name"],
        options["holder"],
        options["duration"],
        tell,
    )


def lasting() -> Callable[[], None]:
    """What raises DataplaneError once the run has ended, if only by a SIGKILL."""
    run = os.getppid()

    def last() -> None:
        if os.getppid() != run:
            raise DataplaneError("the run that this task was part of has ended; so does the task")

    return last


def keeper(
    kube: Kube, options: Mapping[str, Any], tell: Callable[[str], None], check_mode: bool
) -> Callable[[], object]:
    """What keeps the Lease of the option ``lease``, if one is given, as long as the run lasts.

    In check mode nothing does: nobody took it, and nothing is done under it.
    """
    if check_mode or not options["lease"]:
        return not_held
    lease, last = lease_of(kube, options["lease"], tell), lasting()

    def keep() -> None:
        last()
        lease.keep()

    return keep
