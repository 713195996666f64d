# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much each module writes, counted by a listener of its own at the kernel's RTNLGRP_TC."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pyroute2 import IPRoute
from pyroute2.netlink.rtnl import RTMGRP_TC

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab

_ADDED, _DELETED = "RTM_NEWTFILTER", "RTM_DELTFILTER"
#: RTM_NEWCHAIN and RTM_DELCHAIN.
_CHAINS = (100, 101)
_SENTINEL = "sentinel"


class Listener:
    """What the kernel says of changes to qdiscs and filters, from one call to the next.

    It also reports chains, which come and go with their filters and are not written.
    """

    def __init__(self, lab: Lab, netlink: IPRoute) -> None:
        self._lab = lab
        self._netlink = netlink
        self._end = lab.ifindex(lab.endpoint(_SENTINEL, clsact=False))

    def heard(self) -> Counter[str]:
        """Up to an event of our own, behind which nothing older can come."""
        self._lab.tc("qdisc", "add", "dev", _SENTINEL, "clsact")
        self._lab.tc("qdisc", "del", "dev", _SENTINEL, "clsact")
        events: Counter[str] = Counter()
        while True:
            for message in self._netlink.get():
                if message["header"]["type"] in _CHAINS:
                    continue
                if message["index"] != self._end:
                    events[message["event"]] += 1
                elif message["event"] == "RTM_DELQDISC":
                    return events


@contextmanager
def _listening(lab: Lab) -> Iterator[Listener]:
    with entered(lab.netns):
        netlink = IPRoute()
    with netlink:
        netlink.bind(groups=RTMGRP_TC)
        yield Listener(lab, netlink)


def _endpoints(lab: Lab, count: int, *, mismatched: bool) -> None:
    """With one pair of programs: it is the filters that are counted here."""
    pins = {"ingress": lab.pin(), "egress": lab.pin()}
    for n in range(count):
        interface = lab.endpoint(f"cali{n:011x}")
        for handle, (hook, pin) in enumerate(pins.items(), 1):
            lab.attach(interface, hook, handle if mismatched else 1, pin=pin)


@pytest.mark.parametrize("count", [5, 50])
def test_a_repair_writes_twice_an_endpoint(count: int, lab: Lab) -> None:
    """An add and a delete for each that is out of step; nothing otherwise, and never a qdisc."""
    _endpoints(lab, count, mismatched=True)
    with _listening(lab) as listener:
        audit = lab.module("qdisc_consistency", settle=0)
        assert audit["summary"]["verdicts"]["drifted"] == count
        predicted = lab.module("qdisc_consistency", check=True, state="consistent", settle=0)
        assert predicted["changed"]
        assert listener.heard() == {}
        repaired = lab.module("qdisc_consistency", state="consistent", settle=0)
        assert repaired["summary"]["verdicts"]["repaired"] == count
        assert listener.heard() == {_ADDED: count, _DELETED: count}
        again = lab.module("qdisc_consistency", state="consistent", settle=0)
        assert (again["changed"], listener.heard()) == (False, {})


def test_a_repair_leaves_the_healthy_alone(lab: Lab) -> None:
    """One of twenty is out of step: two writes."""
    _endpoints(lab, 20, mismatched=False)
    lab.detach("cali00000000007", "egress", 1)
    lab.attach("cali00000000007", "egress", 2)
    with _listening(lab) as listener:
        lab.module("qdisc_consistency", state="consistent", settle=0)
        assert listener.heard() == {_ADDED: 1, _DELETED: 1}


def test_bpf_endpoint_writes_once(lab: Lab) -> None:
    """Each state, in check mode, for the first time and for the second."""
    interface = lab.endpoint("cali0123456789a", clsact=False)
    allow = {"object": str(lab.objects / "allow.o")}

    def run(**options: Any) -> Callable[..., dict[str, Any]]:
        return lambda **how: lab.module("bpf_endpoint", **how, interface=interface, **options)

    with _listening(lab) as listener:
        attached = {_ADDED: 2, "RTM_NEWQDISC": 1}
        _assert_writes(listener, run(state="attached", ingress=allow, egress=allow), attached)
        lab.detach(interface, "egress", 1)
        lab.attach(interface, "egress", 2)
        listener.heard()
        _assert_writes(listener, run(state="consistent", settle=0), {_ADDED: 1, _DELETED: 1})
        _assert_writes(listener, run(state="absent"), {_DELETED: 2})


def test_bpf_tc_program_writes_once(lab: Lab) -> None:
    """Attached, replaced in place, and taken away; each in check mode, once, and once more."""
    where: dict[str, Any] = {"interface": lab.endpoint("cali0123456789a"), "hook": "egress"}
    objects = {name: str(lab.objects / f"{name}.o") for name in ("allow", "newer")}

    def run(**options: Any) -> Callable[..., dict[str, Any]]:
        return lambda **how: lab.module("bpf_tc_program", **how, **where, handle=2, **options)

    with _listening(lab) as listener:
        _assert_writes(listener, run(object=objects["allow"]), {_ADDED: 1})
        _assert_writes(listener, run(object=objects["newer"]), {_ADDED: 1})
        _assert_writes(listener, run(state="absent"), {_DELETED: 1})


def _assert_writes(
    listener: Listener, module: Callable[..., dict[str, Any]], events: dict[str, int]
) -> None:
    """Nothing in check mode, ``events`` once, and nothing more."""
    for how, changed, expected in (
        ({"check": True}, True, {}),
        ({}, True, events),
        ({}, False, {}),
    ):
        result = module(**how)
        assert (result.get("changed"), listener.heard()) == (changed, expected), result
