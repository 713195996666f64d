# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drains a node; documented in its module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.connection import AUTH
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.drain import (
    Drain,
    DrainSpec,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.drain_filters import (
    RemovalOptions,
)
from ansible_collections.dataplane.calico_bpf.plugins.plugin_utils.controller_action import (
    ControllerAction,
)
from ansible_collections.dataplane.calico_bpf.plugins.plugin_utils.lease_option import (
    LEASE_OPTION,
)
from ansible_collections.dataplane.calico_bpf.plugins.plugin_utils.limits import check_least


class ActionModule(ControllerAction):
    SPEC: Mapping[str, Any] = {
        "argument_spec": {
            **AUTH,
            **LEASE_OPTION,
            "node": {"type": "str", "required": True},
            "timeout": {"type": "float", "default": 600},
            "poll": {"type": "float", "default": 1.0},
            "grace_period": {"type": "int"},
            "force": {"type": "bool", "default": False},
            "delete_emptydir_data": {"type": "bool", "default": False},
            "disable_eviction": {"type": "bool", "default": False},
            "cordoned_by": {"type": "str"},
        }
    }

    def act(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        check_least(options, timeout=0, poll=0.1, grace_period=0)
        spec = DrainSpec(
            node=options["node"],
            timeout=options["timeout"],
            poll=options["poll"],
            grace_period=options["grace_period"],
            removal=RemovalOptions(options["force"], options["delete_emptydir_data"]),
            disable_eviction=options["disable_eviction"],
            cordoned_by=options["cordoned_by"],
        )
        drain = Drain(self.session(options), spec)
        return drain.predict() if self.check_mode else drain.run()
