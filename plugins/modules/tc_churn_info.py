#!/usr/bin/python
# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tc_churn_info
short_description: Count how often programs are attached and detached, and by which processes
version_added: 0.1.0
description:
  - Listens for a O(window) to the kernel's notifications about filters and TCX programs, and counts
    them by interface. It changes nothing.
  - An idle Felix changes nothing. A Felix that re-attaches everything every few seconds (Calico issue
    10143), or that fails to program an endpoint, is visible here at once.
  - For programs attached as TCX (Calico 3.31 or later, Linux 6.6 or later) the kernel only counts the
    changes. All of them are reported as attached, by V(unknown).
options:
  window:
    description: Seconds to listen. Felix retries every 10 s, so listen for longer.
    type: float
    default: 12
  interfaces:
    description: Names or shell globs of the interfaces whose changes are counted.
    type: list
    elements: str
    default: [cali*]
  exclude:
    description: Names or shell globs of interfaces to leave out.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - dataplane.calico_bpf.attributes
  - dataplane.calico_bpf.attributes.actiongroup
  - dataplane.calico_bpf.netns
attributes:
  check_mode:
    support: full
    details: It changes nothing.
  diff_mode:
    support: N/A
    details: It changes nothing.
  idempotent:
    support: N/A
    details: It changes nothing.
seealso:
  - module: dataplane.calico_bpf.felix_info
  - name: Calico issue 10143
    description: The field report of a Felix that re-attaches at every heartbeat.
    link: https://github.com/projectcalico/calico/issues/10143
author:
  - The dataplane.calico_bpf contributors (@dataplane)
"""

EXAMPLES = r"""
- name: See whether anything re-attaches all the time
  dataplane.calico_bpf.tc_churn_info:
    window: 30
  become: true
  register: watched

- name: Name the busiest interface
  ansible.builtin.debug:
    msg: "{{ watched.churn.interfaces | sort(attribute='attached') | last | default('none') }}"
"""

RETURN = r"""
churn:
  description: The changes over the window.
  returned: always
  type: dict
  contains:
    seconds:
      description: How long was listened.
      type: float
    changes:
      description: What was attached and detached. What is replaced in place is attached.
      type: int
    per_minute:
      description: The same, a minute.
      type: float
    interfaces:
      description: The interfaces where something changed.
      type: list
      elements: dict
      contains:
        interface:
          description: The interface.
          type: str
        attached:
          description: How often something was attached, or replaced in place.
          type: int
        detached:
          description: How often something was detached.
          type: int
        by:
          description: >-
            The names of the processes that did it. V(gone) is a process that ended before it was
            identified. V(unknown) used a second netlink socket, whose port id does not identify the
            process, as libbpf in Felix does. Two names joined by "or" have the same process id in
            two containers.
          type: list
          elements: str
    overrun:
      description: >-
        Whether the kernel dropped notifications because too many arrived at once, so that changes
        are missing from the counts.
      type: bool
  sample:
    seconds: 30.0
    changes: 12
    per_minute: 24.0
    interfaces:
      - {interface: cali0123456789a, attached: 6, detached: 6, by: [gone, tc, unknown]}
    overrun: false
tc:
  description: C(tc) processes that were seen in that time.
  returned: always
  type: dict
  contains:
    now:
      description: How many there are at the end.
      type: int
    most:
      description: The most that were seen at a time. Processes are listed every 20 ms; shorter ones are missed.
      type: int
    oldest_seconds:
      description: The greatest age that any was seen at.
      type: float
    pids:
      description: Those that are there at the end.
      type: list
      elements: int
  sample: {now: 0, most: 2, oldest_seconds: 0.0, pids: []}
elapsed_ms:
  description: Milliseconds that all took.
  returned: always
  type: float
  sample: 12010.4
"""

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.felix import commands
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.module import NETNS, run_info


def main() -> None:
    run_info(
        commands.tc_churn_info,
        argument_spec={
            **NETNS,
            "window": {"type": "float", "default": 12},
            "interfaces": {"type": "list", "elements": "str", "default": ["cali*"]},
            "exclude": {"type": "list", "elements": "str", "default": []},
        },
    )


if __name__ == "__main__":
    main()
