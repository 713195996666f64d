# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup that refuses a pattern without hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
name: hosts
author: The dataplane.calico_bpf contributors (@dataplane)
version_added: 0.1.0
short_description: Returns a pattern of hosts, or fails if no host of the inventory matches it
description:
  - Ansible skips a play whose pattern matches no host, and ends successfully.
options:
  _terms:
    description: The pattern; an empty text stands for V(all).
    required: true
"""

EXAMPLES = r"""
- name: Audit
  hosts: "{{ lookup('dataplane.calico_bpf.hosts', calico_bpf_hosts | default('')) }}"
"""

RETURN = r"""
_raw:
  description: The pattern.
  type: list
  elements: str
"""

from typing import Any

from ansible import context
from ansible.errors import AnsibleError
from ansible.plugins.loader import lookup_loader
from ansible.plugins.lookup import LookupBase

#: Options of ansible-playbook that only look at the playbook, perhaps without an inventory.
_RUNS_NOTHING = ("syntax", "listtasks", "listtags", "listhosts")


class LookupModule(LookupBase):  # type: ignore[misc]  # ansible has no types
    def run(
        self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[str]:
        pattern = str(terms[0]).strip() or "all"
        if any(context.CLIARGS.get(option) for option in _RUNS_NOTHING):
            return [pattern]
        hostnames = lookup_loader.get(
            "ansible.builtin.inventory_hostnames", loader=self._loader, templar=self._templar
        )
        if not hostnames.run([pattern], variables):
            raise AnsibleError(
                f"no host of the inventory matches {pattern!r} (calico_bpf_hosts). Nothing was "
                "started"
            )
        return [pattern]
