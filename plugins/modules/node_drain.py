#!/usr/bin/python
# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The work is done by the action of the same name, on the controller.

from __future__ import annotations

DOCUMENTATION = r"""
module: node_drain
short_description: Empty a node of its pods, with respect for their disruption budgets
version_added: 0.1.0
description:
  - Evicts the pods of a node and waits until they are gone, as C(kubectl drain --ignore-daemonsets)
    does. It runs on the controller and shows what it waits for.
  - A pod that its budget does not let go is asked again every 5 seconds, while the others go on.
  - Pods of DaemonSets and static pods stay.
  - With O(cordoned_by) it cordons the node, as M(dataplane.calico_bpf.node_cordon) does, as soon as its
    first pod may go, which it finds out by a dry run of the eviction. Until then, and if nothing was
    evicted when the task fails, the node takes pods, so that the nodes of a batch leave room for each
    other's pods.
  - Without O(cordoned_by), cordon the node before, or the pods come back.
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
    description: Seconds between two looks.
    type: float
    default: 1.0
  grace_period:
    description: Seconds that each pod has to end. By default what the pod itself says.
    type: int
  force:
    description: Evict also pods without a controller, which nothing makes again.
    type: bool
    default: false
  delete_emptydir_data:
    description: Evict also pods with emptyDir volumes, whose data is lost.
    type: bool
    default: false
  disable_eviction:
    description: Delete the pods instead of evicting them, whatever their budgets say.
    type: bool
    default: false
  cordoned_by:
    description: The run that cordons the node before the first eviction. It is noted on the node.
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
- name: Empty the node before its calico-node is replaced
  dataplane.calico_bpf.node_drain:
    node: worker-2
    delete_emptydir_data: true
    timeout: 900
    lease:
      holder: "{{ rollout }}"

# What would happen, and which budgets are in the way:
#   ansible localhost -C -m dataplane.calico_bpf.node_drain -a node=worker-2
"""

RETURN = r"""
cordoned:
  description: Whether this task cordoned the node and left it so, or would.
  returned: unless refused
  type: bool
evicted:
  description: The pods that were evicted, or would be, as namespace/name.
  returned: unless refused
  type: list
  elements: str
  sample: [shop/cart-7d4b9c5f6-x2x7k]
kept:
  description: The pods that stay.
  returned: unless refused
  type: list
  elements: dict
  contains:
    pod:
      description: The pod, as namespace/name.
      type: str
    why:
      description: Why it stays.
      type: str
  sample: [{pod: kube-system/calico-node-tx5kd, why: of the DaemonSet calico-node}]
remaining:
  description: The pods that should go and did not.
  returned: always
  type: list
  elements: dict
  contains:
    pod:
      description: The pod, as namespace/name.
      type: str
    why:
      description: What it waits for, or what the caller has to decide.
      type: str
  sample: []
budgets:
  description: The budgets that would not let these pods go now.
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
      description: Waiting does not help.
      type: bool
    text:
      description: What it asks for, and what to do.
      type: str
  sample: []
waited_seconds:
  description: How long it took.
  returned: unless refused
  type: float
  sample: 41.3
msg:
  description: What was done, or what is still there and why.
  returned: always
  type: str
  sample: "worker-2 is drained: 14 pods evicted in 41 s"
"""
