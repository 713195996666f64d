#!/usr/bin/python
# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The work is done by the action of the same name, on the controller.

from __future__ import annotations

DOCUMENTATION = r"""
module: node_drain
short_description: Drain a node as its pods' disruption budgets allow
version_added: 0.1.0
description:
  - Evicts the pods of a node and waits until they are gone, as C(kubectl drain --ignore-daemonsets)
    does. It runs on the controller and shows what it waits for.
  - An eviction that a budget refuses is retried every 5 seconds, while other pods are evicted.
  - Pods of DaemonSets and static pods stay.
  - With O(cordoned_by) it cordons the node, as M(dataplane.calico_bpf.node_cordon) does, when a dry run
    shows that a first pod can be evicted. Until then, and if the task fails before any eviction, the
    node stays schedulable, so that the nodes of a batch leave room for each other's pods.
  - Without O(cordoned_by), cordon the node first, or its pods may be scheduled there again.
options:
  node:
    description: The node.
    type: str
    required: true
  timeout:
    description: Seconds until the node must be empty. If it is not, the task fails with what is left.
    type: float
    default: 600
  poll:
    description: Seconds between two reads of the pods.
    type: float
    default: 1.0
  grace_period:
    description: The grace period in seconds for each pod. By default that of the pod itself.
    type: int
  force:
    description: Also evict pods without a controller, which are not recreated.
    type: bool
    default: false
  delete_emptydir_data:
    description: Also evict pods with emptyDir volumes, whose data is lost.
    type: bool
    default: false
  disable_eviction:
    description: Delete the pods instead of evicting them, which bypasses their budgets.
    type: bool
    default: false
  cordoned_by:
    description: >-
      The run that cordons the node before the first eviction. Its name is saved in an annotation of the
      node.
    type: str
extends_documentation_fragment:
  - dataplane.calico_bpf.attributes
  - dataplane.calico_bpf.attributes.actiongroup_rollout
  - dataplane.calico_bpf.lease
  - kubernetes.core.k8s_auth_options
attributes:
  check_mode:
    support: full
    details: It does not wait; it says which pods would be evicted, and which budgets refuse that now.
  diff_mode:
    support: none
  idempotent:
    support: full
seealso:
  - module: dataplane.calico_bpf.rollout_lease
  - module: kubernetes.core.k8s_drain
author:
  - The dataplane.calico_bpf contributors (@dataplane)
"""

EXAMPLES = r"""
- name: Drain the node before its calico-node is replaced
  dataplane.calico_bpf.node_drain:
    node: worker-2
    delete_emptydir_data: true
    timeout: 900
    lease:
      holder: "{{ rollout }}"

# What would happen, and which budgets block it:
#   ansible localhost -C -m dataplane.calico_bpf.node_drain -a node=worker-2
"""

RETURN = r"""
cordoned:
  description: Whether this task cordoned the node and left it cordoned, or would.
  returned: unless refused
  type: bool
evicted:
  description: The pods that were evicted, or would be, as namespace/name.
  returned: unless refused
  type: list
  elements: str
  sample: [shop/cart-7d4b9c5f6-x2x7k]
kept:
  description: The pods that the drain keeps.
  returned: unless refused
  type: list
  elements: dict
  contains:
    pod:
      description: The pod, as namespace/name.
      type: str
    why:
      description: Why it is kept.
      type: str
  sample: [{pod: kube-system/calico-node-tx5kd, why: of the DaemonSet calico-node}]
remaining:
  description: The pods that should be gone and are not.
  returned: always
  type: list
  elements: dict
  contains:
    pod:
      description: The pod, as namespace/name.
      type: str
    why:
      description: What blocks its removal, or which option it needs.
      type: str
  sample: []
budgets:
  description: The budgets that do not allow the eviction of these pods now.
  returned: in check mode
  type: list
  elements: dict
  contains:
    budget:
      description: The PodDisruptionBudget, as namespace/name.
      type: str
    pods:
      description: The pods of the node that it covers.
      type: list
      elements: str
    never:
      description: Whether the budget never allows it, so that waiting does not help.
      type: bool
    text:
      description: What the budget requires, and what to do.
      type: str
  sample: []
waited_seconds:
  description: How long the drain took.
  returned: unless refused
  type: float
  sample: 41.3
msg:
  description: What was done, or which pods are left and why.
  returned: always
  type: str
  sample: "worker-2 is drained: 14 pods evicted in 41 s"
"""
