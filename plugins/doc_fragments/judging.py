# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  felix_era:
    description:
      - How the Felix that will work on the endpoint re-attaches, by which the outlook is judged.
      - V(B) adds, then deletes (Calico 3.28.2 to 3.28.4, 3.29.0 to 3.29.4, 3.30.0). V(C) replaces
        in place and still compares the hooks (3.28.5, 3.29.5 to 3.29.7, 3.30.1 to 3.30.7). V(D)
        compares no longer (3.31.0 and later).
      - V(auto) judges for the strictest, V(B), and carries out no plan that would be a step back
        for a Felix of another era. What is in parity is so for all. Only where one hook has no
        program do the eras want different things; there, name the era.
    type: str
    choices: [auto, B, C, D]
    default: auto
  attach_type:
    description: How the programs are meant to be attached. V(auto) takes what an endpoint uses.
    type: str
    choices: [auto, tc, tcx]
    default: auto
  settle:
    description:
      - Seconds to wait before a second look confirms what looked wrong at the first, since Felix
        re-attaches in milliseconds. A repair plans only from what held still between two looks, and
        then stands by for as long again, in case a Felix is in the middle of its pass.
      - On a node where Felix needs longer than a second for an endpoint, give more. V(0) looks
        once.
    type: float
    default: 1.0
  retries:
    description: How often an endpoint is planned anew when someone else writes to it meanwhile.
    type: int
    default: 3
"""
