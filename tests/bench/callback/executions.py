# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes down each task that a playbook ran: for the bench, as lines of JSON."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: executions
type: aggregate
short_description: Write down each task that ran, and how long it took
description: Appends lines of JSON to the file that the variable EXECUTIONS names.
author: the dataplane.calico_bpf contributors
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]  # ansible has no types
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "executions"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._begun: dict[tuple[str, str], float] = {}

    def v2_playbook_on_play_start(self, play: Any) -> None:
        _write(play=play.get_name(), at=time.monotonic())

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self._begun[host.get_name(), task._uuid] = time.monotonic()

    def v2_runner_on_ok(self, result: Any) -> None:
        self._ran(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._ran(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        _write(play="", at=time.monotonic())

    def _ran(self, result: Any) -> None:
        task, host = result._task, result._host.get_name()
        _write(
            host=host,
            action=task.resolved_action or task.action,
            at=self._begun[host, task._uuid],
            end=time.monotonic(),
        )


def _write(**line: Any) -> None:
    with open(os.environ["EXECUTIONS"], "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
