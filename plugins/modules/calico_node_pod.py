#!/usr/bin/python
# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The work is done by the action of the same name, on the controller.

from __future__ import annotations

DOCUMENTATION = r"""
module: calico_node_pod
short_description: Replace calico-node's pod on one node, and wait until it is Ready
version_added: 0.1.0
description:
  - O(state=replaced) deletes the pod of an older revision and waits for its successor, so that two
    Felix processes never run on the node. It runs on the controller and shows what it waits for.
  - calico-node has a grace period of 0. A pod that is deleted as it is leaves the API at once, and
    the new Felix starts while the old one still runs. So the module first adds the finalizer
    C(dataplane.calico-bpf/felix-must-be-gone), which keeps the deleted pod in the API. When the kubelet
    has reported that its containers ended, the module removes the finalizer.
  - The kubelet guarantees that the containers have ended; the DaemonSet controller guarantees that
    the successor is not created earlier. From Kubernetes 1.27 on, the controller creates it when the
    pod is reported as C(Succeeded) or C(Failed), whether the finalizer is removed by then or not;
    before 1.27, when the finalizer is removed.
  - A container runtime that loses track of a process reports its end too early. After the task, use
    M(dataplane.calico_bpf.felix_info) with the uid of RV(former) to see what really runs.
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
      - V(replaced) leaves a pod of the DaemonSet's newest revision alone. It completes a replacement
        that was interrupted, at any later time and in any later run.
      - V(ready) waits until the pod of the newest revision is Ready, and changes nothing.
    type: str
    choices: [replaced, ready]
    required: true
  replace:
    description: Replace the pod even though it is of the newest revision.
    type: bool
    default: false
  timeout:
    description:
      - Seconds to wait; then the task fails with what is known of the pod.
      - With O(state=replaced) for each of two steps, until the old containers have ended and until
        the successor is created.
    type: float
    default: 300
  poll:
    description: Seconds between two reads of the pod.
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
seealso:
  - module: dataplane.calico_bpf.node_drain
  - module: dataplane.calico_bpf.rollout_lease
author:
  - The dataplane.calico_bpf contributors (@dataplane)
"""

EXAMPLES = r"""
- name: Replace the old calico-node pod
  dataplane.calico_bpf.calico_node_pod:
    node: worker-2
    state: replaced
    lease:
      holder: "{{ rollout }}"

- name: Wait until the new one is Ready
  dataplane.calico_bpf.calico_node_pod:
    node: worker-2
    state: ready
    timeout: 600
    lease:
      holder: "{{ rollout }}"

# By hand, after a run that was killed:
#   ansible localhost -m dataplane.calico_bpf.calico_node_pod -a "node=worker-2 state=replaced"
"""

RETURN = r"""
replaced:
  description: Whether a pod was replaced, by this task or by an interrupted one that it completed.
  returned: with O(state=replaced)
  type: bool
  sample: true
former:
  description: The pod that was replaced; null where none was. Its keys are those of RV(pod).
  returned: with O(state=replaced)
  type: dict
former_ended:
  description: V(false) when the kubelet did not report in time that the containers of RV(former) ended.
  returned: on that failure
  type: bool
pod:
  description:
    - The pod of the newest revision, not necessarily Ready with O(state=replaced).
    - Null in check mode where it would be created.
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
networked_pods:
  description:
    - The running pods of the node with a network of their own, as namespace/name.
    - Null in check mode.
  returned: with O(state=ready)
  type: list
  elements: str
  sample: [demo/web-7d4b9c6f5-x2x8z]
timed_out:
  description: V(true) when the pod exists but is not Ready in time.
  returned: when it is not Ready in time
  type: bool
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
  returned: when the pod is not Ready in time, or has not ended in time
  type: dict
  sample: {install-cni: "waiting: ImagePullBackOff", calico-node: "waiting: PodInitializing"}
log:
  description: The last 20 lines of calico-node's log.
  returned: when it is not Ready in time
  type: list
  elements: str
"""
