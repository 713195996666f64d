# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  lease:
    description:
      - The Lease of the rollout that this belongs to. It is renewed while something is waited
        for, and the task fails before its next change if it is another's by then.
      - Take it before, with dataplane.calico_bpf.rollout_lease. In check mode it is only looked at.
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
        description: Who holds it, as it was taken.
        type: str
        required: true
      duration:
        description: Seconds that a renewal is good for.
        type: int
        default: 60
"""
