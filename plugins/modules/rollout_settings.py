#!/usr/bin/python
# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_settings
short_description: Check the settings of a run before anything else
version_added: 0.1.0
description:
  - Checks every variable C(calico_bpf_*) of all hosts of the play, and sets C(calico_bpf_settings)
    with their values. An unknown name, a value of another type or out of range, and a setting that
    differs between hosts fail the task, once, with all that is wrong.
  - Takes the texts that a survey of AWX answers, such as V(1,10%), V(2m), V(true), V(22:00-02:00
    Europe/Berlin) or the text of a JSON map. An empty text is a setting that is not set.
options:
  one_of:
    description: Settings, without their prefix, of which exactly one must be set.
    type: list
    elements: str
    default: []
  tags:
    description:
      - The tags of the playbook. Another one in C(--tags) fails the task, since it would run nothing
        and end successfully.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - dataplane.calico_bpf.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
notes:
  - An action plugin. It runs on the controller and needs no connection to the host.
author:
  - The dataplane.calico_bpf contributors (@dataplane)
"""

EXAMPLES = r"""
- name: Check the settings
  dataplane.calico_bpf.rollout_settings:
    one_of: [version, manifest]
  run_once: true
"""

RETURN = r"""
ansible_facts:
  description: The values of all settings.
  returned: always
  type: complex
  contains:
    calico_bpf_settings:
      description: The value of each setting, by its name without the prefix; null if it has none.
      type: dict
      sample: {"batches": [1, "10%", "25%"], "soak": 120}
"""
