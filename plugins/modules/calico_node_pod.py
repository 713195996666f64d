#!/usr/bin/python
# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The work is done by the action of the same name, on the controller.

from __future__ import annotations

DOCUMENTATION = r"""
module: calico_node_pod
short_description: Replace calico-node's pod on one node, in two steps
version_added: 0.1.0
description:
  - O(state=stopped) deletes the pod of a node and keeps the next one from being made;
    O(state=started) lets that come and waits until it is Ready. It runs on the controller and shows
    what it waits for.
  - Between the two, see to it on the node that the old Felix is gone, since two at once bring the
    hooks of an endpoint out of step. A pod may be gone from the API before its processes are.
  - What keeps the next pod away is the finalizer C(dataplane.calico-bpf/felix-must-be-gone) on the
    deleted one. O(state=started) takes it off, at any later time and in any later run.
options:
  node:
    description: The node.
    type: str
    required: true
  namespace:
    description: The namespace of the DaemonSet; V(calico-system) where the operator installed it.
    type: str
    default: kube-system
  daemonset:
    description: The DaemonSet.
    type: str
    default: calico-node
  state:
    description:
      - V(stopped) leaves a pod of the DaemonSet's newest revision alone, and one that is stopped
        already.
      - V(started) returns when a pod of the newest revision is Ready.
    type: str
    choices: [stopped, started]
    required: true
  replace:
    description: Stop the pod even though it is of the newest revision.
    type: bool
    default: false
  must_be_ready:
    description: V(started) returns when the new pod is Ready, and not already when it is there.
    type: bool
    default: true
  timeout:
    description: Seconds to wait; then the task fails with what is known of the pod.
    type: float
    default: 300
  poll:
    description: Seconds between two looks.
    type: float
    default: 1.0
extends_documentation_fragment:
  - dataplane.calico_bpf.attributes
  - dataplane.calico_bpf.attributes.actiongroup_rollout
  - dataplane.calico_bpf.lease
  - kubernetes.core.k8s_auth_options
attributes:
  check_mode:
    support: full
    details: It does not wait.
  diff_mode:
    support: none
  idempotent:
    support: full
    details: Not with O(replace=true).
requirements:
  - the collection kubernetes.core and the Python library kubernetes, on the controller
seealso:
  - module: dataplane.calico_bpf.node_drain
  - module: dataplane.calico_bpf.rollout_lease
author:
  - The dataplane.calico_bpf contributors (@dataplane)
"""

EXAMPLES = r"""
- name: Stop the old calico-node
  dataplane.calico_bpf.calico_node_pod:
    node: worker-2
    state: stopped
    lease:
      holder: "{{ rollout }}"

- name: Start the new one
  dataplane.calico_bpf.calico_node_pod:
    node: worker-2
    state: started
    timeout: 600
    lease:
      holder: "{{ rollout }}"

# By hand, after a run that ended in between:
#   ansible localhost -m dataplane.calico_bpf.calico_node_pod -a "node=worker-2 state=started"
"""

RETURN = r"""
stopped:
  description: Whether there was something to replace, and its place is kept.
  returned: with O(state=stopped)
  type: bool
  sample: true
pod:
  description: The stopped pod, or the one that started; null where there is none yet.
  returned: when there is one
  type: dict
  contains:
    name:
      description: Its name.
      type: str
    uid:
      description: Its uid.
      type: str
    images:
      description: The image of each container.
      type: dict
    revision:
      description: The hash of the DaemonSet's revision that it was made from.
      type: str
    started_at:
      description: When the kubelet took it on.
      type: str
    ready_at:
      description: Since when it is Ready; null while it is not.
      type: str
  sample:
    name: calico-node-tx5kd
    uid: 2f0f5d4e-8a51-4b43-9f0e-1d4f6f0a7c11
    images: {calico-node: "docker.io/calico/node:v3.29.5"}
    revision: 6d9c8b7f5
    started_at: "2026-11-23T22:04:10Z"
    ready_at: "2026-11-23T22:04:31Z"
phase:
  description: The phase of the pod that is not Ready.
  returned: when it is not Ready in time
  type: str
conditions:
  description: The conditions of the pod that is not Ready, as the API gives them.
  returned: when it is not Ready in time
  type: list
  elements: dict
containers:
  description: What each of its containers does.
  returned: when it is not Ready in time
  type: dict
  sample: {install-cni: "waiting: ImagePullBackOff", calico-node: "waiting: PodInitializing"}
log:
  description: The last 20 lines of calico-node's log.
  returned: when it is not Ready in time
  type: list
  elements: str
"""
