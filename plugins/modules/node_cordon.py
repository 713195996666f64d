#!/usr/bin/python
# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_cordon
short_description: Cordon a node, and uncordon one that a rollout cordoned
version_added: 0.1.0
description:
  - Marks a node unschedulable and records in an annotation which run did so, or marks it schedulable again.
  - A node that is already cordoned gets no annotation, and a node without the annotation is never
    uncordoned. So a node that an administrator cordoned stays cordoned.
options:
  node:
    description: The node.
    type: str
    required: true
  state:
    description: V(cordoned) or V(uncordoned).
    type: str
    choices: [cordoned, uncordoned]
    required: true
  run:
    description: The run that cordons the node; required with O(state=cordoned).
    type: str
  verified_revision:
    description:
      - With O(state=uncordoned), the revision hash of the calico-node pod that was verified there. It
        is recorded on the node together with the time. If empty, nothing is recorded.
    type: str
    default: ""
extends_documentation_fragment:
  - dataplane.calico_bpf.attributes
  - dataplane.calico_bpf.attributes.actiongroup_rollout
  - dataplane.calico_bpf.lease
  - kubernetes.core.k8s_auth_options
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
seealso:
  - module: dataplane.calico_bpf.node_drain
  - module: dataplane.calico_bpf.calico_daemonset
author:
  - The dataplane.calico_bpf contributors (@dataplane)
"""

EXAMPLES = r"""
- name: Cordon the node
  dataplane.calico_bpf.node_cordon:
    node: worker-2
    state: cordoned
    run: anna@bastion 2026-11-23T22:00Z

- name: Uncordon it, and record the verified revision
  dataplane.calico_bpf.node_cordon:
    node: worker-2
    state: uncordoned
    verified_revision: 5d8f9c6b7
"""

RETURN = r"""
uncordoned:
  description: Whether the node was uncordoned.
  returned: with O(state=uncordoned)
  type: bool
"""
