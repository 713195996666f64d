# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cordons a node, or uncordons it; documented in its module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.connection import AUTH
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.cordon import (
    cordon,
    uncordon,
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
            "node": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["cordoned", "uncordoned"], "required": True},
            "run": {"type": "str"},
            "verified_revision": {"type": "str", "default": ""},
        },
        "required_if": [("state", "cordoned", ("run",))],
    }

    def act(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        session, node = self.session(options), options["node"]
        session.renew_lease()
        if options["state"] == "cordoned":
            return {"changed": cordon(session, node, options["run"], self.check_mode)}
        revision = options["verified_revision"]
        changed, uncordoned = uncordon(session, node, revision, self.check_mode)
        return {"changed": changed, "uncordoned": uncordoned}
