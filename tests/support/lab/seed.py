# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings endpoints out of step as a Felix does that is killed in the middle of a pass.

    python -m ansible_collections.dataplane.calico_bpf.tests.support.lab.seed
        ERA OBJECT HOOK INTERFACE...

Each interface is re-attached once more at HOOK alone, in the namespaces that it is started in.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.tests.support.felix.libbpf import HOOKS
from ansible_collections.dataplane.calico_bpf.tests.support.felix.passes import Felix, Point
from ansible_collections.dataplane.calico_bpf.tests.support.felix.releases import Behaviour


class _Killed(Exception):
    pass


def _die_when_complete(_interface: str, _hook: str, point: Point) -> None:
    if point is Point.COMPLETE:
        raise _Killed


def main(behaviour: str, program: str, first: str, *interfaces: str) -> None:
    felix = Felix(Behaviour(behaviour), Path(program), _die_when_complete)
    other = next(hook for hook in HOOKS if hook != first)
    for interface in interfaces:
        with suppress(_Killed):
            felix.apply_policy(interface, (first, other))


if __name__ == "__main__":
    main(*sys.argv[1:])
