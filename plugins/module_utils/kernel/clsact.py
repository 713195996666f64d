# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a clsact qdisc, with pyroute2.

Needed only to attach a caller's program to an interface without one. An audit and a repair do not
use it, so a node without pyroute2 can be repaired.
"""

from __future__ import annotations

import errno
from importlib.util import find_spec

from ..errors import KernelError, Refusal
from .syscalls import calling

_MAKE = "make the clsact qdisc"


def require() -> None:
    """:raises Refusal: pyroute2 is not installed."""
    if find_spec("pyroute2") is None:
        raise Refusal(
            "the interface has no clsact qdisc, and making one needs pyroute2 on the node: install "
            "the distribution's python3-pyroute2, or make it (tc qdisc add dev IFACE clsact)"
        )


def make(ifindex: int) -> None:
    """Make the interface's clsact qdisc, if it has none.

    :raises KernelError: ENODEV, or EEXIST if an ingress qdisc is in its place.
    """
    # Imported here because the import takes 0.3 s.
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with calling(_MAKE), IPRoute() as netlink:
        try:
            netlink.tc("add", "clsact", ifindex)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise KernelError(_MAKE, error.code) from error
