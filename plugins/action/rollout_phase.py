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
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.journal import now
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
        events = list(self._ended(options))
        try:
            if options["phase"]:
                self._renew_lease(options)
                events.append(self._event(options, phase=options["phase"], status=Status.BEGUN))
        finally:
            # Together: each recording writes the reports again.
            lines, _recorded = show_and_record(options["directory"], events, self.show)
        return {
            "changed": False,
            "progress": lines,
            "phase": options["phase"],
            "began_at": CLOCK.stamp(),
        }

    def _ended(self, options: Mapping[str, Any]) -> Iterator[Event]:
        """The end of the last phase, now."""
        if done := options["finished"]:
            result = plain(done["result"])
            would = str(result.pop("would", ""))
            message = would if self.check_mode else ""
            event = self._event(options, phase=done["phase"], status=Status.DONE)
            yield replace(event, message=message, result=result, at=now())

    def _event(self, options: Mapping[str, Any], phase: str, status: Status) -> Event:
        return Event(
            run=options["run"],
            status=status,
            node=options["node"],
            phase=phase,
            position=options["position"],
            total=options["total"],
            check=self.check_mode,
        )

    def _renew_lease(self, options: Mapping[str, Any]) -> None:
        """:raises DataplaneError: the Lease was lost."""
        try:
            self.session(options).renew_lease()
        except DataplaneError as error:
            error.facts["phase"] = options["phase"]
            raise
