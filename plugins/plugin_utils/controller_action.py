# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base class of the actions that run on the controller.

They run inside Ansible: no interpreter is searched, nothing is copied, and progress is shown while
they wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import DataplaneError
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.connection import connect
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.session import Session
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.visible import (
    all_visible,
    visible,
)

from .end_with_run import end_with_run
from .lease_option import lease_of


class ControllerAction(ActionBase):  # type: ignore[misc]  # ansible has no types
    """An action whose ``act`` does the work; ``SPEC`` holds the keywords of its argument spec."""

    _supports_check_mode = True
    _supports_async = False
    SPEC: Mapping[str, Any] = {}

    def act(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """The result of the task, with ``changed``.

        :raises DataplaneError: the task fails with this message and these ``facts``.
        """
        raise NotImplementedError

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        end_with_run()
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validated, options = self.validate_argument_spec(**self.SPEC)
        try:
            result.update(all_visible(self.act(options, task_vars or {})))
        except DataplaneError as error:
            result.update(all_visible(error.facts), failed=True, msg=visible(str(error)))
        return result

    def session(self, options: Mapping[str, Any]) -> Session:
        """The API that the options name, with the Lease of the option ``lease`` if it is set.

        In check mode the Lease is not renewed: it was not taken, and nothing is changed.
        """
        session = Session(connect(options, self.show), self.show)
        if self.check_mode or not options.get("lease"):
            return session
        return replace(session, renew_lease=lease_of(session, options).keep)

    @property
    def check_mode(self) -> bool:
        return bool(self._task.check_mode)

    def show(self, text: str) -> None:
        """Show a line of progress at once, with any callback plugin."""
        Display().display(visible(text), color="bright blue")
