#!/usr/bin/python
# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: calico_advisory_info
short_description: What is known to go wrong between two Calico releases
version_added: 0.1.0
description:
  - Returns the known faults of an upgrade from one release of Calico's eBPF dataplane to another, the
    releases that fix them, and what to do about them. It makes no requests; the advisories are part of
    the collection.
  - An advisory that depends on an option that is not given is returned too, but never as V(refuse).
  - M(dataplane.calico_bpf.rollout_info) does the same for each node of a cluster.
options:
  from_version:
    description: The release that runs now, as its image tag is, such as V(v3.28.1).
    type: str
  to_version:
    description: The release to go to.
    type: str
    required: true
  kernel:
    description: The nodes' kernel, such as V(6.12.57), as C(uname -r) prints it.
    type: str
  encapsulation:
    description: What the IP pools are encapsulated with.
    type: str
    choices: [vxlan, ipip, none]
  attach_type:
    description:
      - How a Felix that knows TCX (3.31 and later) attaches.
      - By default what it does by itself, which depends on O(kernel).
    type: str
    choices: [tc, tcx]
extends_documentation_fragment:
  - dataplane.calico_bpf.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
seealso:
  - module: dataplane.calico_bpf.rollout_info
author:
  - The dataplane.calico_bpf contributors (@dataplane)
"""

EXAMPLES = r"""
- name: See what is between us and 3.31
  dataplane.calico_bpf.calico_advisory_info:
    from_version: v3.30.4
    to_version: v3.31.7
    kernel: "{{ ansible_facts['kernel'] }}"
    encapsulation: vxlan
  register: known

- name: Go no way that is known to break
  ansible.builtin.assert:
    that: known.severity != 'refuse'
    fail_msg: "{{ known.advisories | map(attribute='text') | join(' ') }}"
"""

RETURN = r"""
advisories:
  description: The gravest first.
  returned: always
  type: list
  elements: dict
  contains:
    code:
      description: A short name, by which O(dataplane.calico_bpf.rollout_info#module:overrides) accepts it.
      type: str
    severity:
      description: V(refuse) is known to break, V(warn) may bite, V(info) is good to know.
      type: str
    text:
      description: What happens.
      type: str
    advice:
      description: What to do about it.
      type: str
    fixed_in:
      description: The first release of each branch that has the fix.
      type: list
      elements: str
    refs:
      description: Issues, pull requests and commits of projectcalico/calico.
      type: list
      elements: str
    accepted:
      description: Always false here.
      type: bool
  sample:
    - code: vxlan_mixed_releases
      severity: refuse
      text: >-
        While some nodes run 3.30.6 or older and others 3.31 or newer under VXLAN, nodes that are
        not upgraded yet drop traffic from host-networked pods to services.
      advice: Upgrade all nodes to 3.30.7 first.
      fixed_in: [3.30.7]
      refs: ["#11910", 25cb2c376e]
      accepted: false
severity:
  description: The gravest of them, or V(none).
  returned: always
  type: str
  sample: refuse
from_behaviour:
  description:
    - How the running release re-attaches, V(add_without_compare), V(add_then_delete), V(replace_and_compare) or V(replace);
      null for an unknown release and for those before 3.27.5 and 3.28.2.
  returned: always
  type: str
  sample: replace_and_compare
to_behaviour:
  description: How the target release re-attaches.
  returned: always
  type: str
  sample: replace
attach_type:
  description: How a Felix that knows TCX attaches there; null where the kernel is not known.
  returned: always
  type: str
  sample: tcx
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.calico.advisories import (
    UpgradePath,
    select,
    unknown_version,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.calico.versions import (
    attach_type,
    parse,
    parse_kernel,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.module import run_info
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout import serialize


def calico_advisory_info(given: Mapping[str, Any]) -> Mapping[str, Any]:
    kernel = parse_kernel(given["kernel"] or "")
    path = UpgradePath(
        origin=parse(given["from_version"] or ""),
        target=parse(given["to_version"]),
        kernel=kernel,
        encapsulation=given["encapsulation"],
        attach_type=given["attach_type"] or attach_type(None, kernel),
    )
    chosen = select(path) if path.target else [unknown_version(given["to_version"])]
    return {"changed": False, **serialize.advised(path, chosen)}


def main() -> None:
    run_info(
        calico_advisory_info,
        argument_spec={
            "from_version": {"type": "str"},
            "to_version": {"type": "str", "required": True},
            "kernel": {"type": "str"},
            "encapsulation": {"type": "str", "choices": ["vxlan", "ipip", "none"]},
            "attach_type": {"type": "str", "choices": ["tc", "tcx"]},
        },
    )


if __name__ == "__main__":
    main()
