# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option ``lease`` of the actions that change the cluster or wait, and the session it makes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import DataplaneError
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.lease import (
    Lease,
    LeaseOptions,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.session import Session

#: Which Lease, and as whom; the documentation is the fragment ``lease``'s.
LEASE_OPTION: Mapping[str, Any] = {
    "lease": {
        "type": "dict",
        "options": {
            "name": {"type": "str", "default": "calico-bpf-rollout"},
            "namespace": {"type": "str", "default": "kube-system"},
            "holder": {"type": "str", "required": True},
            "duration": {"type": "int", "default": 60},
        },
    }
}


def lease_of(session: Session, options: Mapping[str, Any]) -> Lease:
    """The Lease that the option ``lease`` names."""
    wanted = options["lease"]
    names = (wanted["namespace"], wanted["name"], wanted["holder"], wanted["duration"])
    return Lease(session, LeaseOptions(*names))


def while_run_lasts() -> Callable[[], None]:
    """What raises DataplaneError once the run has ended, if only by a SIGKILL."""
    run = os.getppid()

    def check() -> None:
        if os.getppid() != run:
            raise DataplaneError("the run that this task was part of has ended; so does the task")

    return check


def renewing(session: Session, options: Mapping[str, Any]) -> Callable[[], None]:
    """What renews the Lease of the option ``lease`` when that is due, as long as the run lasts."""
    lease, check_run = lease_of(session, options), while_run_lasts()

    def renew() -> None:
        check_run()
        lease.keep()

    return renew
