# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stages calico-node's DaemonSet or restores its strategy; documented in its module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.connection import AUTH
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.cluster import on_delete
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.daemonset import (
    RolloutDaemonSet,
)
from ansible_collections.dataplane.calico_bpf.plugins.plugin_utils.controller_action import (
    ControllerAction,
)
from ansible_collections.dataplane.calico_bpf.plugins.plugin_utils.lease_option import LEASE_OPTION


class ActionModule(ControllerAction):
    SPEC: Mapping[str, Any] = {
        "argument_spec": {
            **AUTH,
            **LEASE_OPTION,
            "namespace": {"type": "str", "default": "kube-system"},
            "name": {"type": "str", "default": "calico-node"},
            "state": {"type": "str", "choices": ["staged", "restored"], "required": True},
            "patch": {"type": "dict", "default": {}},
            "manifest": {"type": "list", "elements": "dict", "default": []},
            "former_revision": {"type": "str", "default": ""},
        }
    }

    def act(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        namespace, name = options["namespace"], options["name"]
        daemonset = RolloutDaemonSet(self.session(options), namespace, name, self.check_mode)
        if options["state"] == "restored":
            return daemonset.restore()
        staged = daemonset.stage(options["patch"], options["former_revision"])
        return {**staged, "objects": on_delete(options["manifest"], namespace, name)}
