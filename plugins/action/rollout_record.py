# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows the progress of a rollout, and keeps its journal and report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.event import (
    Event,
    Status,
    plain,
)
from ansible_collections.dataplane.calico_bpf.plugins.plugin_utils.controller_action import (
    ControllerAction,
)
from ansible_collections.dataplane.calico_bpf.plugins.plugin_utils.recorder import (
    show_and_record,
)


class ActionModule(ControllerAction):
    SPEC: Mapping[str, Any] = {
        "argument_spec": {
            "directory": {"type": "path"},
            "run": {"type": "str", "required": True},
            "status": {"type": "str", "required": True, "choices": [s.value for s in Status]},
            "node": {"type": "str"},
            "phase": {"type": "str"},
            "message": {"type": "str"},
            "position": {"type": "int"},
            "total": {"type": "int"},
            "result": {"type": "dict"},
            "begin": {"type": "dict"},
        }
    }

    def act(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        event = Event(
            run=options["run"],
            status=Status(options["status"]),
            node=options["node"] or "",
            phase=options["phase"] or "",
            message=options["message"] or "",
            position=options["position"] or 0,
            total=options["total"] or 0,
            result=plain(options["result"] or {}),
            begin=plain(options["begin"] or {}),
            check=self.check_mode,
        )
        event.refuse_nonsense()
        [line], recorded = show_and_record(options["directory"], [event], self.show)
        result = {"changed": False, "progress": line}
        if recorded is None:
            return result
        return {
            **result,
            "verdict": recorded.report.verdict.value,
            "directory": str(recorded.journal.parent),
            "journal": str(recorded.journal),
            "report_json": str(recorded.report_json),
            "report_html": str(recorded.report_html),
        }
