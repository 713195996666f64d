#!/usr/bin/python
# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_info
short_description: Judge whether calico-node can be upgraded, or rolled back, node by node
version_added: 0.1.0
description:
  - Reads the cluster and says where a rollout of calico-node stands, what the DaemonSet is to
    become, what is known to go wrong on the way, and every reason not to begin. It changes nothing.
  - It does not fail where there are blockers; they are all returned at once, each with what to do
    about it. It fails where the API does not answer, or where the options make no sense.
  - Nodes at different versions, as a run that stopped leaves them, are no reason to refuse. They
    are distinguished by RV(nodes[].state), and the run resumes where it stopped.
options:
  namespace:
    description: The DaemonSet's namespace.
    type: str
    default: kube-system
  daemonset:
    description: The DaemonSet's name.
    type: str
    default: calico-node
  mode:
    description:
      - V(upgrade) judges the way to O(version) or O(manifest).
      - V(rollback) judges the way back to the former revision, for the nodes that were changed, the
        newest first. Only what makes it impossible or dangerous is a blocker; the rest are warnings.
    type: str
    choices: [upgrade, rollback]
    default: upgrade
  version:
    description:
      - The release to go to, as its image tag is, such as V(v3.29.5). The images of Calico's
        containers in the DaemonSet are changed, and nothing else of it.
      - An upgrade needs this or O(manifest).
    type: str
  manifest:
    description:
      - All objects of the manifest to go to, parsed. The DaemonSet among them gives the new pod
        template, and its image of calico-node the version.
    type: list
    elements: dict
  image_repository:
    description: With O(version), where to take Calico's images from, up to the last slash.
    type: str
  nodes:
    description:
      - Names of the nodes of this run. By default, all that have a pod of the DaemonSet, or
        that an earlier run left cordoned.
    type: list
    elements: str
    default: []
  overrides:
    description:
      - Codes of blockers and advisories that are accepted; they become RV(problems.warnings).
      - V(known_bad_path) accepts every advisory that refuses. Better name the one.
      - V(api_permission), V(no_daemonset), V(no_former_revision) and V(node_unknown) can't be accepted.
    type: list
    elements: str
    default: []
  node_duration:
    description: Seconds that one node is expected to take, for RV(estimated_seconds).
    type: int
    default: 0
  lease_namespace:
    description: Namespace of the rollout's Lease, for the permissions that are asked for.
    type: str
    default: kube-system
  batches:
    description:
      - How many nodes are drained at once, as in C(serial) of a play, numbers or percentages. A batch
        that leaves its pods no other node to go to is a blocker if their disruption budgets then
        can't be met. By default one node after the other, and always so for a rollback.
    type: list
    elements: raw
    default: []
extends_documentation_fragment:
  - dataplane.calico_bpf.attributes
  - dataplane.calico_bpf.attributes.actiongroup_rollout
  - kubernetes.core.k8s_auth_options
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
notes:
  - FelixConfigurations, IPPools and Installations are read where they are there. Where they may not
    be read, that is reported, and what depends on them warns and never blocks.
  - Whether the DaemonSet is O(manifest)'s already is judged by what the manifest says. A setting
    that is only left out of it does not count.
seealso:
  - module: dataplane.calico_bpf.calico_advisory_info
  - module: dataplane.calico_bpf.maintenance_window
  - module: dataplane.calico_bpf.qdisc_consistency
author:
  - The dataplane.calico_bpf contributors (@dataplane)
"""

EXAMPLES = r"""
- name: Judge the way to 3.29.5
  dataplane.calico_bpf.rollout_info:
    version: v3.29.5
    nodes: "{{ groups['workers'] }}"
  register: rollout

- name: Begin only where nothing speaks against it
  ansible.builtin.assert:
    that: rollout.problems.blockers | length == 0
    fail_msg: "{{ rollout.problems.blockers | map(attribute='message') | join('\n') }}"

- name: Judge a manifest, and accept one thing that is known
  dataplane.calico_bpf.rollout_info:
    manifest: "{{ lookup('ansible.builtin.file', 'calico-bpf.yaml') | from_yaml_all | select | list }}"
    overrides: [ctlb_kernel]

- name: Judge the way back
  dataplane.calico_bpf.rollout_info:
    mode: rollback
"""

RETURN = r"""
install:
  description: What manages the DaemonSet, V(manifest) or V(operator); V(none) if it does not exist.
  returned: always
  type: str
  sample: manifest
daemonset:
  description: The DaemonSet as it is; null where it is not there.
  returned: always
  type: dict
  contains:
    namespace:
      description: Its namespace.
      type: str
    name:
      description: Its name.
      type: str
    version:
      description: The tag of the image of calico-node in its template.
      type: str
    images:
      description: The image of each of Calico's containers, by the container's name.
      type: dict
    update_strategy:
      description: Its update strategy now.
      type: dict
    former_update_strategy:
      description: The one noted before a run changed it, or null.
      type: dict
    revision:
      description: Name of its newest ControllerRevision.
      type: str
    revision_hash:
      description: That revision's hash, as its pods are labelled.
      type: str
target:
  description: What it is to become; null where there is no DaemonSet, or nothing to go back to.
  returned: always
  type: dict
  contains:
    version:
      description: The tag of the image of calico-node; null for a digest alone.
      type: str
    calico_version:
      description: That release for the option C(calico_version) of other modules; V(auto) if it is unknown.
      type: str
    images:
      description: The image of each of Calico's containers, by the container's name.
      type: dict
    patch:
      description: A strategic merge patch that makes the DaemonSet so.
      type: dict
    revision:
      description: Name of the ControllerRevision of it, null while the DaemonSet is not yet so.
      type: str
    revision_hash:
      description: That revision's hash.
      type: str
former_revision:
  description: Name of the ControllerRevision that a rollback goes back to, or null.
  returned: always
  type: str
  sample: calico-node-7c9d5b6f4
nodes:
  description: The nodes of this run in its order; in a rollback those that were changed, the newest first.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the node.
      type: str
    ready:
      description: Whether the node is Ready.
      type: bool
    unschedulable:
      description: Whether it is cordoned.
      type: bool
    kernel:
      description: Its kernel's version.
      type: str
    pod:
      description: Name of its pod of the DaemonSet, or null.
      type: str
    pod_ready:
      description: Whether that pod is Ready.
      type: bool
    version:
      description: The tag that this pod runs.
      type: str
    revision:
      description: The hash of the revision that the pod was made from.
      type: str
    calico_version:
      description: The running release for the option C(calico_version) of other modules; V(auto) if it is unknown.
      type: str
    state:
      description:
        - V(done) is verified at the target, V(interrupted) was left half way by an earlier run,
          V(todo) is any other.
      type: str
    cordoned_by:
      description: The run that cordoned the node, or null.
      type: str
    verified:
      description: The hash of the revision that was last verified there, or null.
      type: str
    upgraded_at:
      description: When it was last changed, or null.
      type: str
    problems:
      description: What speaks against the run on this node, in the form of RV(problems).
      type: dict
versions:
  description: How many pods run each version.
  returned: always
  type: dict
  sample: {v3.28.1: 3, v3.29.5: 2}
advisories:
  description: What is known of the ways of all nodes, as M(dataplane.calico_bpf.calico_advisory_info) returns it, with the nodes it is about.
  returned: always
  type: list
  elements: dict
  contains:
    code:
      description: A short name, by which O(overrides) accepts it.
      type: str
    severity:
      description: V(refuse), V(warn) or V(info).
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
      description: Whether O(overrides) accepts it.
      type: bool
    nodes:
      description: Names of the nodes whose way it is about.
      type: list
      elements: str
problems:
  description: What speaks against the run, each with what to do.
  returned: always
  type: dict
  contains:
    blockers:
      description: Every reason not to begin. Empty if the run may begin.
      type: list
      elements: dict
      contains:
        code:
          description:
            - One of V(api_permission), V(no_daemonset), V(no_former_revision), V(operator_install),
              V(not_bpf), V(node_unknown), V(node_not_ready), V(no_pod), V(budget_never_met),
              V(no_room), V(unknown_version), V(known_bad_path).
          type: str
        node:
          description: The node concerned, or null.
          type: str
        advisory:
          description: The code of the advisory behind a V(known_bad_path), or null.
          type: str
        message:
          description: Why, and what to do.
          type: str
    warnings:
      description:
        - What does not prevent the run, in the form of RV(problems.blockers). What was accepted, and
          also V(node_cordoned_by_another) and V(pod_not_ready).
        - What could not be judged is here too, and never counts as good. V(unread) is what may not be
          read, V(budget_not_judged) a disruption budget without a current status, V(not_bpf) a mode
          that is not known, V(no_former_revision) an upgrade without a way back.
      type: list
      elements: dict
permissions:
  description: What the API does not permit, in words. If anything is missing nothing else was read.
  returned: always
  type: list
  elements: str
encapsulation:
  description: What the pods' traffic is encapsulated with, V(vxlan), V(ipip) or V(none); null where that is not known.
  returned: always
  type: str
api:
  description: The API that was read, without credentials.
  returned: always
  type: dict
  contains:
    server:
      description: The address of the API server.
      type: str
    cluster:
      description: The cluster's name in the kubeconfig; empty where that is not known.
      type: str
  sample: {server: "https://api.prod.example:6443", cluster: prod}
estimated_seconds:
  description: O(node_duration) for each node that is not done.
  returned: always
  type: int
"""
