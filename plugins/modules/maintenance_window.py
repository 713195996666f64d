#!/usr/bin/python
# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: maintenance_window
short_description: Fail unless now is inside the maintenance window, with time enough left
version_added: 0.1.0
description:
  - Looks at the controller's clock, and fails with a clear text where now is outside the window, or
    where what comes next would not be over before it closes.
  - Ask before each node. What is done stays done, and a later run resumes in the next window.
  - In check mode it fails for a window that makes no sense, but not for being outside of it, since
    a run is tried out before its window opens; it warns then.
options:
  start:
    description:
      - When the window opens, in O(timezone). V(HH:MM) is every day; V(YYYY-MM-DD HH:MM) is once.
      - In YAML, put it in quotes.
      - Without O(start) and O(end), there is no window, and the task is always ok.
    type: str
  end:
    description:
      - When it closes, written as O(start) is. A daily window whose end is not later than its start
        passes midnight.
    type: str
  timezone:
    description: IANA name of the time zone that O(start) and O(end) are in.
    type: str
    default: UTC
  needed:
    description: Seconds that what comes next will take.
    type: int
    default: 0
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
  - Hours that the clocks skip or repeat are counted as they pass.
seealso:
  - module: dataplane.calico_bpf.rollout_info
author:
  - The dataplane.calico_bpf contributors (@dataplane)
"""

EXAMPLES = r"""
- name: Begin no node that would not be over by four in the morning
  dataplane.calico_bpf.maintenance_window:
    start: "22:00"
    end: "04:00"
    timezone: Europe/Berlin
    needed: 900

- name: Keep to one night
  dataplane.calico_bpf.maintenance_window:
    start: "2026-11-28 23:00"
    end: "2026-11-29 05:00"
    timezone: America/New_York
"""

RETURN = r"""
inside:
  description: Whether now is inside the window; true where there is none.
  returned: always
  type: bool
  sample: true
opens_at:
  description: When it opens or opened, in ISO 8601; null where there is no window.
  returned: always
  type: str
  sample: "2026-11-28T22:00:00+01:00"
closes_at:
  description: When it closes or closed, in ISO 8601; null where there is no window.
  returned: always
  type: str
  sample: "2026-11-29T04:00:00+01:00"
seconds_left:
  description: Seconds until it closes, 0 outside; null where there is no window.
  returned: always
  type: int
  sample: 12840
"""
