# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kernel_rules.py, the model of the kernel's rules, held against the running kernel.

The same changes are made to a hook and to its model: after each, tc must list what the model holds,
in its order, and what the kernel refuses the model must refuse with the same errno. Filters of
cls_bpf in chain 0 are written by libbpf, as Felix does, those of another protocol by pyroute2 (it
hands over the errno, which tc does not), the rest by tc.
"""

from __future__ import annotations

import errno
import json
import os
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint import kernel_rules
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import KernelError
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.netlink import TcSocket
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    ETH_P_ALL,
    Attachment,
    Attachments,
    AttachType,
    Hook,
    Slot,
)
from ansible_collections.dataplane.calico_bpf.tests.support.felix import libbpf
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab

IFACE = "cali0"
ETH_P_IP = 0x0800
_INGRESS = 0xFFFFFFF2
_PROTOCOLS = {"all": ETH_P_ALL, "ip": ETH_P_IP}
#: A foreign filter that is not cls_bpf and matches every packet.
U32 = ("u32", "match", "u32", "0", "0", "classid", "1:1")
_RELEASE = tuple(map(int, os.uname().release.split(".")[:2]))
#: Where no automatic priority is left; seen are EINVAL on 6.1 and 6.12, ENOSPC on 6.18.
NO_PRIORITY_LEFT = errno.EINVAL if _RELEASE <= (6, 12) else errno.ENOSPC
#: What tc says where there is nothing to delete; it keeps the errno to itself.
_NOTHING_THERE = (
    "Cannot find specified filter chain",
    "Filter with specified priority/protocol not found",
    "Specified filter handle not found",
)


@dataclass(frozen=True)
class Kernel:
    """The ingress hook of one interface, used inside its namespace. A refusal is an OSError."""

    lab: Lab
    netlink: IPRoute
    #: Some loaded programs: id to fd.
    programs: dict[int, int]
    pin: str

    def reset(self) -> None:
        self.lab.tc("qdisc", "del", "dev", IFACE, "clsact")
        libbpf.create_clsact(IFACE)

    def filters(self) -> Attachments:
        """As tc lists them, without names and tags."""
        shown = json.loads(self.lab.tc("-json", "filter", "show", "dev", IFACE, "ingress"))
        # The first entry of each priority is the priority itself, without options.
        return tuple(_filter(f) for f in shown if "options" in f)

    def add(self, new: Attachment) -> Slot:
        """Create exclusively; priority and handle 0 are the kernel's to choose."""
        fd = self.programs[new.program_id]
        if new.protocol == ETH_P_ALL:
            found = libbpf.attach(
                IFACE, "ingress", fd, priority=new.priority, handle=new.handle
            )  # fmt: skip
            return Slot(*found)
        options = {"fd": fd, "name": "test", "direct_action": True}
        self._pyroute2("add-filter", new.slot, new.protocol, **options)
        return new.slot

    def replace(self, new: Attachment) -> None:
        fd = self.programs[new.program_id]
        libbpf.attach(IFACE, "ingress", fd, priority=new.priority, handle=new.handle, replace=True)

    def change(self, new: Attachment) -> None:
        """As the repair does: never create."""
        fd = self.programs[new.program_id]
        with TcSocket() as tc:
            ifindex = socket.if_nametoindex(IFACE)
            try:
                tc.replace_filter(ifindex, Hook.INGRESS, *new.slot, fd, "test")
            except KernelError as error:
                raise OSError(error.errno, str(error)) from None

    def delete(self, slot: Slot, chain: int) -> None:
        """A cls_bpf filter of any protocol, as Felix and the collection attach it."""
        if chain == 0:
            self._pyroute2("del-filter", slot, 0)
            return
        where = ("pref", str(slot.priority), "handle", hex(slot.handle), "bpf")
        try:
            self.lab.tc("filter", "del", "dev", IFACE, "ingress", "chain", str(chain), *where)
        except RuntimeError as error:
            if not any(sentence in str(error) for sentence in _NOTHING_THERE):
                raise
            raise OSError(errno.ENOENT, str(error)) from None

    def add_by_tc(self, *words: str) -> None:
        """Filters without rules in the model: foreign kinds and other chains. May be refused."""
        self.lab.tc("filter", "add", "dev", IFACE, "ingress", *words, check=False)

    def _pyroute2(self, command: str, slot: Slot, protocol: int, **options: object) -> None:
        where = {"parent": _INGRESS, "prio": slot.priority, "protocol": protocol}
        ifindex = socket.if_nametoindex(IFACE)
        try:
            self.netlink.tc(command, "bpf", ifindex, slot.handle, **where, **options)
        except NetlinkError as error:
            raise OSError(error.code, os.strerror(error.code)) from None


def a_filter(
    priority: int, handle: int, program_id: int, protocol: int = ETH_P_ALL, **other: Any
) -> Attachment:
    """A filter with nothing in it but what the rules are about."""
    kind = AttachType.TC
    return Attachment(
        attach_type=kind,
        priority=priority,
        handle=handle,
        program_id=program_id,
        name="",
        tag="",
        direct_action=True,
        calico=True,
        protocol=protocol,
        **other,
    )


def _filter(shown: dict[str, Any]) -> Attachment:
    options = shown["options"]
    program_id = options.get("prog", {}).get("id", 0)
    protocol = _PROTOCOLS[shown["protocol"]]
    where = {"kind": shown["kind"], "chain": shown["chain"]}
    return a_filter(shown["pref"], _handle(options), program_id, protocol, **where)


def _handle(options: dict[str, str]) -> int:
    """u32 has no handle, but an fh: TABLE:BUCKET:NODE, of 12, 8 and 12 bits."""
    if "handle" in options:
        return int(str(options["handle"]), 0)
    table, bucket, node = (int(part or "0", 16) for part in f"{options['fh']}::".split(":")[:3])
    return table << 20 | bucket << 12 | node


@pytest.fixture
def kernel(lab: Lab) -> Iterator[Kernel]:
    lab.endpoint(IFACE)
    variants = ("allow", "newer", "deny")
    with ExitStack() as stack:
        fds = [stack.enter_context(libbpf.loaded(lab.objects / f"{v}.o")) for v in variants]
        stack.enter_context(entered(lab.netns))
        netlink = stack.enter_context(IPRoute())
        yield Kernel(lab, netlink, {_program_id(fd): fd for fd in fds}, lab.pin())


def _program_id(fd: int) -> int:
    info = Path(f"/proc/self/fdinfo/{fd}").read_text()
    return next(int(line.split()[1]) for line in info.splitlines() if line.startswith("prog_id"))


# --- the same change to both ----------------------------------------------------------------------


@dataclass
class Pair:
    """The kernel and the model beside each other."""

    kernel: Kernel
    model: Attachments = ()

    def add(self, new: Attachment) -> int:
        """:returns: the errno with which both refused, or 0."""

        def on_model() -> Attachments:
            slot = self._chosen(new)
            after = kernel_rules.add(self.model, new._replace(**slot._asdict()))
            chosen.append(slot)
            return after

        chosen: list[Slot] = []
        taken: list[Slot] = []
        refused = self._do(f"add {new}", lambda: taken.append(self.kernel.add(new)), on_model)
        assert taken == chosen, f"add {new} to {self.model}"
        return refused

    def _chosen(self, new: Attachment) -> Slot:
        priority = new.priority or kernel_rules.auto_priority(self.model)
        return Slot(priority, new.handle or kernel_rules.free_handle(self.model, priority))

    def replace(self, new: Attachment) -> int:
        on_model = partial(kernel_rules.replace, self.model, new)
        return self._do(f"replace {new}", partial(self.kernel.replace, new), on_model)

    def change(self, new: Attachment) -> int:
        on_model = partial(kernel_rules.change, self.model, new)
        return self._do(f"change {new}", partial(self.kernel.change, new), on_model)

    def delete(self, slot: Slot, chain: int = 0) -> int:
        on_model = partial(kernel_rules.delete, self.model, slot, chain)
        what = f"delete {slot} in chain {chain}"
        return self._do(what, partial(self.kernel.delete, slot, chain), on_model)

    def add_by_tc(self, *words: str) -> None:
        """On the kernel only; the model takes it as it is found."""
        self.kernel.add_by_tc(*words)
        self.model = self.kernel.filters()

    def _do(
        self, what: str, on_kernel: Callable[[], None], on_model: Callable[[], Attachments]
    ) -> int:
        before = self.model
        really = predicted = 0
        try:
            on_kernel()
        except OSError as error:
            really = error.errno or 0
        try:
            self.model = on_model()
        except kernel_rules.Refused as refused:
            predicted = NO_PRIORITY_LEFT if refused.errno == errno.ENOSPC else refused.errno
        assert (predicted, self.model) == (really, self.kernel.filters()), f"{what}: {before}"
        return really


# --- tests ----------------------------------------------------------------------------------------

PRIORITIES = (1, 100, 32767, 32768, 32769, 49151, 49152, 49152, 49152, 49153, 0xFFFF)
HANDLES = (1, 1, 2, 3, 4, 0x7FFFFFFF)
SEQUENCES = 15
STEPS = 14


@pytest.mark.parametrize("seed", range(20))
def test_random_changes(kernel: Kernel, seed: int) -> None:
    """300 sequences of adds, replaces and deletes, of which many are refused."""
    dice = random.Random(seed)
    for _unused in range(SEQUENCES):
        kernel.reset()
        pair = Pair(kernel)
        for _unused in range(STEPS):
            change(pair, dice)


def change(pair: Pair, dice: random.Random) -> None:
    new = a_filter(
        dice.choice(PRIORITIES), dice.choice(HANDLES), dice.choice([*pair.kernel.programs])
    )
    roll = dice.random()
    if roll < 0.15:
        pair.add(new)
    elif roll < 0.25:
        pair.add(new._replace(protocol=ETH_P_IP))
    elif roll < 0.45:
        pair.add(new._replace(priority=dice.choice((0, new.priority)), handle=0))
    elif roll < 0.6:
        put = pair.change if dice.random() < 0.5 else pair.replace
        put(new._replace(**some_slot(pair, new, dice)[0]._asdict()))
    elif roll < 0.85:
        pair.delete(*some_slot(pair, new, dice))
    elif roll < 0.92:
        priority = ("pref", str(new.priority)) if dice.random() < 0.7 else ()
        pair.add_by_tc("protocol", "ip", *priority, *U32)
    else:
        where = ("chain", "5", "pref", str(new.priority), "handle", hex(new.handle))
        pair.add_by_tc(*where, "bpf", "object-pinned", pair.kernel.pin, "direct-action")


def some_slot(pair: Pair, other: Attachment, dice: random.Random) -> tuple[Slot, int]:
    """Mostly one that is in use, and its chain."""
    found = dice.choice(pair.model) if pair.model and dice.random() < 0.8 else other
    return found.slot, found.chain


def test_first_automatic_slots(kernel: Kernel) -> None:
    """From 49152 downwards; handles from 1, the lowest free one first."""
    pair = Pair(kernel)
    program_id = next(iter(kernel.programs))
    pair.add(a_filter(0, 0, program_id))
    pair.add(a_filter(0, 0, program_id))
    for _unused in range(3):
        pair.add(a_filter(49152, 0, program_id))
    pair.delete(Slot(49152, 2))
    pair.add(a_filter(49152, 0, program_id))
    assert [f.slot for f in pair.model] == [
        (49151, 1), (49152, 2), (49152, 4), (49152, 3), (49152, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("priority", [1, 32767])
def test_low_priorities_do_not_count_for_automatic_ones(kernel: Kernel, priority: int) -> None:
    pair = Pair(kernel)
    program_id = next(iter(kernel.programs))
    pair.add(a_filter(priority, 1, program_id))
    pair.add(a_filter(0, 0, program_id))
    assert [f.slot for f in pair.model] == [(priority, 1), (49152, 1)]


def test_no_automatic_priority_is_left(kernel: Kernel) -> None:
    pair = Pair(kernel)
    program_id = next(iter(kernel.programs))
    pair.add(a_filter(32768, 1, program_id))
    assert pair.add(a_filter(0, 0, program_id)) == NO_PRIORITY_LEFT


def test_refusals(kernel: Kernel) -> None:
    """Each by its errno: taken, of another protocol, of another kind, not there."""
    pair = Pair(kernel)
    program_id = next(iter(kernel.programs))
    pair.add(a_filter(10, 1, program_id))
    pair.add(a_filter(20, 1, program_id, ETH_P_IP))
    pair.add_by_tc("protocol", "all", "pref", "30", *U32)
    assert pair.add(a_filter(10, 1, program_id)) == errno.EEXIST
    assert pair.add(a_filter(20, 2, program_id)) == errno.EINVAL
    assert pair.replace(a_filter(20, 1, program_id)) == errno.EINVAL
    assert pair.add(a_filter(30, 1, program_id)) == errno.EINVAL
    assert pair.replace(a_filter(30, 1, program_id)) == errno.EINVAL
    assert pair.delete(Slot(10, 2)) == errno.ENOENT
    assert pair.delete(Slot(11, 1)) == errno.ENOENT
    assert pair.delete(Slot(30, 1)) == errno.EINVAL
