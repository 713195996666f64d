# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    # Each module adds its own "support" to these.
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and predict the changes without making them.
  diff_mode:
    description: In diff mode, returns what has changed or, in C(check_mode), what would change.
  idempotent:
    description:
      - When run twice in a row outside C(check_mode) with the same arguments, the second run
        changes nothing.
      - This assumes that what the module looks after has not changed in between.
"""

    ACTIONGROUP = r"""
options: {}
attributes:
  action_group:
    description:
      - Use C(group/dataplane.calico_bpf.calico_bpf) in C(module_defaults) to set defaults for
        this module.
    support: full
    membership:
      - dataplane.calico_bpf.calico_bpf
"""

    ACTIONGROUP_ROLLOUT = r"""
options: {}
attributes:
  action_group:
    description:
      - Use C(group/dataplane.calico_bpf.rollout) in C(module_defaults) to set defaults for this
        module, such as how to reach the Kubernetes API. They also go to C(kubernetes.core.k8s) and
        those beside it.
    support: full
    membership:
      - dataplane.calico_bpf.rollout
requirements:
  - the collection kubernetes.core and the Python library kubernetes, on the controller
notes:
  - An action plugin. It runs on the controller and needs no connection to the host.
"""
