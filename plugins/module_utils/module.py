# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The entry point of the modules that run on a node: AnsibleModule, command, result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from .errors import DataplaneError
from .model import ModuleResult
from .visible import all_visible, visible

Params = Mapping[str, Any]
#: The option of every module that reads a node; documented in the fragment ``netns``.
NETNS: Mapping[str, Any] = {"netns": {"type": "str"}}


def run(command: Callable[[Params, bool, bool], ModuleResult], **spec: Any) -> None:
    """Run ``command`` with parameters, check mode and diff mode; ``spec`` is AnsibleModule's."""
    module = AnsibleModule(supports_check_mode=True, **spec)
    try:
        done = command(module.params, module.check_mode, module._diff)
    except DataplaneError as error:
        module.fail_json(msg=visible(str(error)), **all_visible(error.facts))
    for warning in done.warnings:
        module.warn(visible(warning))
    values = all_visible(done.values)
    if done.failure:
        module.fail_json(msg=visible(done.failure), **values)
    module.exit_json(**values)


def run_info(read: Callable[[Params], Mapping[str, Any]], **spec: Any) -> None:
    """Run ``read``, which changes nothing in any mode."""
    run(lambda params, _check_mode, _diff: ModuleResult(read(params)), **spec)
