# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the settings of a run; documented in its module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout import settings
from ansible_collections.dataplane.calico_bpf.plugins.plugin_utils.controller_action import (
    ControllerAction,
)


class ActionModule(ControllerAction):
    SPEC: Mapping[str, Any] = {
        "argument_spec": {
            "one_of": {"type": "list", "elements": "str", "default": []},
            "tags": {"type": "list", "elements": "str", "default": []},
        },
    }

    def act(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        here = task_vars["inventory_hostname"]
        hosts = [here, *(h for h in task_vars["ansible_play_hosts_all"] if h != here)]
        raw = {host: _ours(task_vars["hostvars"].raw_get(host)) for host in hosts}
        given = {name: self._templar.template(value) for name, value in raw[here].items()}
        settings.check_tags(task_vars["ansible_run_tags"], options["tags"])
        values = settings.check(given, raw)
        if options["one_of"]:
            settings.required(values, options["one_of"])
        return {"changed": False, "ansible_facts": {"calico_bpf_settings": values}}


def _ours(variables: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in variables.items() if name.startswith(settings.PREFIX)}
