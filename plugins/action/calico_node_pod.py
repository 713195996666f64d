# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replaces calico-node's pod on one node; documented in its module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import DataplaneError
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.connection import AUTH
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.calico_node_pod import (
    CalicoNodePod,
    PodOptions,
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
            "namespace": {"type": "str", "default": "kube-system"},
            "daemonset": {"type": "str", "default": "calico-node"},
            "state": {"type": "str", "choices": ["replaced", "ready"], "required": True},
            "replace": {"type": "bool", "default": False},
            "timeout": {"type": "float", "default": 300},
            "poll": {"type": "float", "default": 1.0},
        }
    }

    def act(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        check_least(options, timeout=0, poll=0.1)
        wanted = PodOptions(
            node=options["node"],
            namespace=options["namespace"],
            daemonset=options["daemonset"],
            timeout=options["timeout"],
            poll=options["poll"],
            replace=options["replace"],
        )
        pod = CalicoNodePod(self.session(options), wanted)
        operation = pod.replace if options["state"] == "replaced" else pod.wait_ready
        try:
            return operation(self.check_mode)
        except DataplaneError as error:
            error.facts.setdefault("changed", pod.changed)
            raise
