#!/usr/bin/python
# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: calico_daemonset
short_description: Stage a new template in calico-node's DaemonSet without replacing a pod
version_added: 0.1.0
description:
  - With O(state=staged), saves the update strategy and the current revision of the DaemonSet in its
    annotations, switches it to OnDelete, then applies O(patch). This replaces no pod.
  - With O(state=restored), restores the saved update strategy once every pod has the newest
    revision. Until then the DaemonSet stays at OnDelete.
options:
  namespace:
    description: Namespace of the DaemonSet.
    type: str
    default: kube-system
  name:
    description: Name of the DaemonSet.
    type: str
    default: calico-node
  state:
    description: V(staged) or V(restored).
    type: str
    choices: [staged, restored]
    required: true
  patch:
    description:
      - With O(state=staged), a strategic merge patch of the DaemonSet, such as the C(target.patch) that
        M(dataplane.calico_bpf.rollout_info) returns.
    type: dict
    default: {}
  manifest:
    description:
      - With O(state=staged), Calico's manifest as a list of objects. They are not applied. They are
        returned as RV(objects), with the DaemonSet at OnDelete, for M(kubernetes.core.k8s).
    type: list
    elements: dict
    default: []
  former_revision:
    description: With O(state=staged), the name of the ControllerRevision that a rollback restores.
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
    details: The changes are sent to the API as a dry run.
  diff_mode:
    support: none
  idempotent:
    support: full
seealso:
  - module: dataplane.calico_bpf.rollout_info
  - module: dataplane.calico_bpf.calico_node_pod
author:
  - The dataplane.calico_bpf contributors (@dataplane)
"""

EXAMPLES = r"""
- name: Put the new version into the DaemonSet
  dataplane.calico_bpf.calico_daemonset:
    state: staged
    patch: "{{ rollout.target.patch }}"
    former_revision: "{{ rollout.former_revision }}"

- name: Restore its update strategy after the last node
  dataplane.calico_bpf.calico_daemonset:
    state: restored
"""

RETURN = r"""
on_delete:
  description: Whether the DaemonSet is at OnDelete. Absent after a failure if that is unknown.
  returned: with O(state=staged)
  type: bool
objects:
  description: The objects of O(manifest), with Lists expanded, and the DaemonSet last and at OnDelete.
  returned: with O(state=staged)
  type: list
  elements: dict
left:
  description: How many pods have an older revision. If there are any, the update strategy is not restored.
  returned: with O(state=restored)
  type: int
"""
