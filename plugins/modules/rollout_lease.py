#!/usr/bin/python
# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The work is done by the action of the same name, on the controller.

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_lease
short_description: Hold the Lease that allows one rollout at a time on a cluster
version_added: 0.1.0
description:
  - Takes, renews or releases a Kubernetes Lease. It runs on the controller and shows what it waits for.
  - The Lease of another run is watched. The task fails as soon as it is renewed, and takes it over
    when it was not renewed for its whole duration, measured on the controller's own monotonic clock.
    The times in the Lease are not used for this, so clocks may differ. A released Lease is taken at
    once.
  - Nothing renews it between tasks. Set O(lease.duration) longer than the longest task that does not
    renew it, or let the actions that wait renew it by their option C(lease).
options:
  state:
    description: >-
      V(held) takes the Lease, or renews it if the run holds it already. V(released) releases it if the
      run holds it.
    type: str
    choices: [held, released]
    default: held
  must_hold:
    description: >-
      The run already holds the Lease and only renews it. Fail if another run holds it, or no run.
    type: bool
    default: false
  keep_for:
    description: Keep renewing it for so many seconds, for a soak between two nodes.
    type: float
    default: 0
extends_documentation_fragment:
  - dataplane.calico_bpf.attributes
  - dataplane.calico_bpf.attributes.actiongroup_rollout
  - dataplane.calico_bpf.lease
  - kubernetes.core.k8s_auth_options
attributes:
  check_mode:
    support: full
    details: It watches the Lease of another run for the same time, and writes nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
    details: A renewal alone is no change.
seealso:
  - module: dataplane.calico_bpf.node_drain
  - module: dataplane.calico_bpf.calico_node_pod
author:
  - The dataplane.calico_bpf contributors (@dataplane)
"""

EXAMPLES = r"""
- name: Begin a rollout
  dataplane.calico_bpf.rollout_lease:
    lease:
      holder: "{{ rollout }}"
  run_once: true
  vars:
    rollout: anna@bastion 2026-11-23T22:00Z 3f2a

- name: Before the next node, stop if somebody else took over
  dataplane.calico_bpf.rollout_lease:
    lease:
      holder: "{{ rollout }}"
    must_hold: true

- name: Let the canary run for ten minutes, and keep the Lease
  dataplane.calico_bpf.rollout_lease:
    lease:
      holder: "{{ rollout }}"
    must_hold: true
    keep_for: 600

# On the command line, to free the Lease of a run that was killed:
#   ansible localhost -m dataplane.calico_bpf.rollout_lease -a "state=released holder='anna@...'"
"""

RETURN = r"""
holder:
  description: The holder, in check mode the predicted one; null if the Lease is free.
  returned: always
  type: str
  sample: anna@bastion 2026-11-23T22:00Z 3f2a
acquired_at:
  description: Since when.
  returned: success
  type: str
  sample: "2026-11-23T22:00:04+00:00"
renewed_at:
  description: When it was last renewed.
  returned: success
  type: str
  sample: "2026-11-23T22:10:04+00:00"
expires_at:
  description: Until when that is good, by the holder's clock.
  returned: success
  type: str
  sample: "2026-11-23T22:11:04+00:00"
previous_holder:
  description: The holder before; null if the Lease was free.
  returned: success
  type: str
"""
