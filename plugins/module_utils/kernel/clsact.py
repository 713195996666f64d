# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making a clsact qdisc, with pyroute2.

Needed only where a caller's program is put on an interface that has none; an audit and a repair
never come here, so a node without pyroute2 can be repaired.
"""

from __future__ import annotations

import errno
from importlib.util import find_spec

from ..errors import KernelError, Refusal


def require() -> None:
    """:raises Refusal: where pyroute2 is not installed."""
    if find_spec("pyroute2") is None:
        raise Refusal(
            "there is no clsact qdisc, and making one needs pyroute2 on the node: install the "
            "distribution's python3-pyroute2, or make it by hand (tc qdisc add dev IFACE clsact)"
        )


def make(ifindex: int) -> None:
    """Make the interface's clsact qdisc; one that is there already is as good.

    :raises KernelError: ENODEV, or EEXIST where an ingress qdisc sits in its place.
    """
    # It takes 0.3 s to import, which nobody should pay who does not come here.
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as netlink:
        try:
            netlink.tc("add", "clsact", ifindex)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise KernelError("make the clsact qdisc", error.code) from error
