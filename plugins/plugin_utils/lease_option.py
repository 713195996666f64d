# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option ``lease`` of the actions that change the cluster or wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.lease import (
    Lease,
    LeaseOptions,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.session import Session

#: Which Lease, and for which holder; documented in the fragment ``lease``.
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
    return Lease(session, LeaseOptions(**options["lease"]))
