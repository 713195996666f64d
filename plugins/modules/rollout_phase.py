#!/usr/bin/python
# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_phase
short_description: End one phase of a node in a rollout and begin the next
version_added: 0.1.0
description:
  - Records the end of the last phase, renews the Lease of the rollout, and records the beginning of
    the next phase. If another run now holds the Lease, the task fails and the phase does not begin.
  - Shows a line of progress for each event.
options:
  phase:
    description: The phase that begins. Without it, only O(finished) is recorded.
    type: str
  finished:
    description: The phase that ended.
    type: dict
    suboptions:
      phase:
        description: Its name.
        type: str
        required: true
      result:
        description: What it returned. Its C(would) is shown and recorded in check mode only.
        type: dict
        default: {}
  directory:
    description: Where the journal and the reports go. Without it, only progress is shown.
    type: path
  run:
    description: The id of the run; the same for all its events.
    type: str
    required: true
  node:
    description: The node.
    type: str
    required: true
  position:
    description: The number of the node in the run, counted from 1.
    type: int
    default: 0
  total:
    description: How many nodes the run has.
    type: int
    default: 0
extends_documentation_fragment:
  - dataplane.calico_bpf.attributes
  - dataplane.calico_bpf.attributes.actiongroup_rollout
  - dataplane.calico_bpf.lease
  - kubernetes.core.k8s_auth_options
attributes:
  check_mode:
    support: full
    details: The Lease is not renewed.
  diff_mode:
    support: none
  idempotent:
    support: full
seealso:
  - module: dataplane.calico_bpf.rollout_record
  - module: dataplane.calico_bpf.rollout_lease
author:
  - The dataplane.calico_bpf contributors (@dataplane)
"""

EXAMPLES = r"""
- name: Begin the verification
  dataplane.calico_bpf.rollout_phase:
    run: "{{ rollout }}"
    node: worker-2
    phase: verify
    finished:
      phase: reattach
      result: "{{ reattach_result }}"
    directory: calico-bpf-report
    lease:
      holder: "{{ rollout }}"
"""

RETURN = r"""
phase:
  description: The phase that begins, also when the task fails because the Lease is lost.
  returned: always
  type: str
began_at:
  description: When it began, in UTC.
  returned: success
  type: str
  sample: "2026-11-23T22:10:04Z"
progress:
  description: The lines that were shown.
  returned: success
  type: list
  elements: str
"""
