# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  lease:
    description:
      - The Lease of the rollout that the task belongs to. The task renews it before each change and
        while it waits, and fails before its next change if another run holds the Lease by then.
      - Take it first with dataplane.calico_bpf.rollout_lease. In check mode it is not renewed.
      - Give it once for a whole play, by module_defaults of the group dataplane.calico_bpf.lease.
    type: dict
    suboptions:
      name:
        description: The name of the Lease.
        type: str
        default: calico-bpf-rollout
      namespace:
        description: The namespace of the Lease.
        type: str
        default: kube-system
      holder:
        description:
          - The holder, the same in every task of a run and in no other run. Other runs see it when
            they are refused, so include the user, the host and the start time.
        type: str
        required: true
      duration:
        description: Seconds for which a renewal is valid, at least 3.
        type: int
        default: 60
"""
