# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends one phase of a node and begins the next; documented in its module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import DataplaneError
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.clock import CLOCK
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.connection import AUTH
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.event import (
    Event,
    Status,
    plain,
)
from ansible_collections.dataplane.calico_bpf.plugins.plugin_utils.controller_action import (
    ControllerAction,
)
from ansible_collections.dataplane.calico_bpf.plugins.plugin_utils.lease_option import LEASE_OPTION
from ansible_collections.dataplane.calico_bpf.plugins.plugin_utils.recorder import (
    show_and_record,
)


class ActionModule(ControllerAction):
    SPEC: Mapping[str, Any] = {
        "argument_spec": {
            **AUTH,
            **LEASE_OPTION,
            "phase": {"type": "str"},
            "finished": {
                "type": "dict",
                "options": {
                    "phase": {"type": "str", "required": True},
                    "result": {"type": "dict", "default": {}},
                },
            },
            "directory": {"type": "path"},
            "run": {"type": "str", "required": True},
            "node": {"type": "str", "required": True},
            "position": {"type": "int", "default": 0},
            "total": {"type": "int", "default": 0},
        },
        "required_one_of": [("phase", "finished")],
    }

    def act(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        lines = [
            show_and_record(options["directory"], event, self.show)[0]
            for event in self._events(options)
        ]
        return {
            "changed": False,
            "progress": lines,
            "phase": options["phase"],
            "began_at": CLOCK.stamp(),
        }

    def _events(self, options: Mapping[str, Any]) -> Iterator[Event]:
        """The end of the last phase; then, if the Lease is still held, the beginning of the next.

        :raises DataplaneError: the Lease was lost.
        """
        event = Event(
            run=options["run"],
            status=Status.DONE,
            node=options["node"],
            position=options["position"],
            total=options["total"],
            check=self.check_mode,
        )
        if done := options["finished"]:
            result = plain(done["result"])
            would = str(result.pop("would", ""))
            message = would if self.check_mode else ""
            yield replace(event, phase=done["phase"], message=message, result=result)
        if not options["phase"]:
            return
        try:
            self.session(options).renew_lease()
        except DataplaneError as error:
            error.facts["phase"] = options["phase"]
            raise
        yield replace(event, status=Status.BEGUN, phase=options["phase"])
