# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  calico_version:
    description:
      - The Calico release that works on the endpoint, such as V(v3.29.5). The outlook is judged by
        how that release re-attaches its programs. A release that is not known is refused.
      - In 3.28.0 and 3.28.1 Felix adds a filter, then deletes the old ones, and never compares the
        hooks (C(add_without_compare)); later releases do, so a mismatch counts as drift there too.
      - From 3.28.2 to 3.28.4, 3.29.0 to 3.29.4 and in 3.30.0 Felix adds a filter, then deletes the
        old ones, and requires the hooks to agree (C(add_then_delete)). In 3.28.5, 3.29.5 to 3.29.7
        and 3.30.1 to 3.30.7 it replaces the filter in place and requires the hooks to agree
        (C(replace_and_compare)). From 3.31.0 on it replaces the filter and compares nothing
        (C(replace)).
      - V(auto), and a release before these, judge for the strictest, C(add_then_delete), and carry
        out no plan that is a step back for another behaviour. An endpoint in parity is in parity
        for all of them. They differ only where one hook has no program; there, set the release.
    type: str
    default: auto
  attach_type:
    description: How the programs are meant to be attached. V(auto) takes what an endpoint uses.
    type: str
    choices: [auto, tc, tcx]
    default: auto
  settle:
    description:
      - Seconds to wait before a second look confirms what looked wrong at the first, since Felix
        re-attaches in milliseconds. An endpoint that looks healthy is read again too if one of its
        programs was loaded within that time, since it may be between the two hooks of a pass. A
        repair plans only from what held still between two looks, and
        then stands by for as long again, in case a Felix is in the middle of its pass.
      - During that time a watchdog attaches the program of a repaired hook again if another process
        leaves the hook without one.
      - On a node where Felix needs longer than a second for an endpoint, give more.
      - V(0) looks once and waits for nothing, so no watchdog stays after the repair. If a Felix in
        the middle of its pass then leaves a hook bare, its program is not attached again. What the
        watchdog did until then is still reported.
    type: float
    default: 1.0
  retries:
    description: How often an endpoint is planned again after another process wrote to it.
    type: int
    default: 3
"""
