# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes, keeps and releases the Lease of a rollout; documented in its module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.connection import (
    AUTH,
    connect,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.lease import LeaseResult
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.session import Session
from ansible_collections.dataplane.calico_bpf.plugins.plugin_utils.controller_action import (
    ControllerAction,
)
from ansible_collections.dataplane.calico_bpf.plugins.plugin_utils.lease_option import (
    LEASE_OPTION,
    lease_of,
)
from ansible_collections.dataplane.calico_bpf.plugins.plugin_utils.limits import check_least


class ActionModule(ControllerAction):
    SPEC: Mapping[str, Any] = {
        "argument_spec": {
            **AUTH,
            **LEASE_OPTION,
            "state": {"type": "str", "choices": ["held", "released"], "default": "held"},
            "must_hold": {"type": "bool", "default": False},
            "keep_for": {"type": "float", "default": 0},
        },
        # Not required=True: a group's module_defaults give it.
        "required_one_of": [("lease",)],
    }

    def act(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        check_least(options, keep_for=0)
        check_least(options["lease"], duration=3)
        lease = lease_of(Session(connect(options, self.show), self.show), options)
        if options["state"] == "released":
            return _result(lease.release(self.check_mode))
        operation = lease.renew if options["must_hold"] else lease.take
        result = operation(self.check_mode)
        if options["keep_for"] and not self.check_mode:
            kept = lease.hold(options["keep_for"])
            result = replace(result, record=kept.record)
        return _result(result)


def _result(result: LeaseResult) -> dict[str, Any]:
    record = result.record
    return {
        "changed": result.changed,
        "holder": record.holder or None,
        "acquired_at": _shown(record.acquired),
        "renewed_at": _shown(record.renewed),
        "expires_at": _shown(record.expires),
        "previous_holder": result.previous.holder or None,
    }


def _shown(time: datetime | None) -> str | None:
    return time.isoformat(timespec="seconds") if time else None
