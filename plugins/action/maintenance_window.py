# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the maintenance window; documented in its module."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import Refusal
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout import maintenance_window
from ansible_collections.dataplane.calico_bpf.plugins.plugin_utils.controller_action import (
    ControllerAction,
)

_NO_WINDOW = {"inside": True, "opens_at": None, "closes_at": None, "seconds_left": None}


class ActionModule(ControllerAction):
    SPEC: Mapping[str, Any] = {
        "argument_spec": {
            "start": {"type": "str"},
            "end": {"type": "str"},
            "timezone": {"type": "str", "default": "UTC"},
            "needed": {"type": "int", "default": 0},
        },
        "required_together": [("start", "end")],
    }

    def act(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        if not options["start"] and not options["end"]:
            return {"changed": False, "msg": "there is no maintenance window", **_NO_WINDOW}
        window = maintenance_window.parse_window(
            options["start"] or "", options["end"] or "", options["timezone"]
        )
        now = datetime.now(timezone.utc)
        opening = window.opening(now)
        facts = {
            "changed": False,
            "inside": opening.contains(now),
            "opens_at": opening.opens.astimezone(window.zone).isoformat(),
            "closes_at": opening.closes.astimezone(window.zone).isoformat(),
            "seconds_left": maintenance_window.seconds_left(opening, now),
        }
        blocker = maintenance_window.blocker(window, now, options["needed"])
        if blocker and not self.check_mode:
            raise Refusal(blocker, facts)
        if blocker:
            facts["warnings"] = [f"a real run would stop here: {blocker}"]
        return {**facts, "msg": blocker or f"open until {window.local(opening.closes)}"}
