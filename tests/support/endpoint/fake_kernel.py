# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A kernel in memory, into which anyone may write between any two calls.

It stands for the netlink socket and, patched over ``kernel.bpf``, for bpf(2); the real Reader reads
from it. Its filters obey kernel_rules.py, which the integration tests hold against a real kernel.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint import (
    kernel_rules,
    repair,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import KernelError
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel import bpf
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.filter_message import (
    RawFilter,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.netlink import TcSocket
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.tc_monitor import (
    FilterChange,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    Attachment,
    Attachments,
    AttachType,
    Behaviour,
    Endpoint,
    Hook,
    Qdisc,
    SharedBlock,
    Slot,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint import build


class Killed(BaseException):
    """The process that repairs is killed."""


@dataclass
class Program:
    name: str
    loaded_at: int


@dataclass
class Kernel(TcSocket):
    """``before_call`` gets the number of each call of ours before it is answered.

    ``refuse``: errnos for our writes of these numbers, from 1. ``kill_after``: the write that is
    our last.
    ``forgets``: a program that nothing holds is gone at once, without the usual grace period.
    """

    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    before_call: Callable[[int], None] = lambda number: None
    refuse: dict[int, int] = field(default_factory=dict)
    kill_after: int | None = None
    forgets: bool = False
    calls: list[str] = field(default_factory=list)
    writes: int = 0
    #: Writes, ours and others', that took the last enforcing program of Calico's from a hook.
    gaps: list[str] = field(default_factory=list)
    programs: dict[int, Program] = field(default_factory=dict)
    #: Every change of a filter, as the kernel multicasts it.
    changes: list[FilterChange] = field(default_factory=list)
    #: The kernel drops the changes that a watch is to get.
    drops_changes: bool = False
    port: int = 1
    _opened: dict[int, int] = field(default_factory=dict)
    _clock: Iterator[int] = field(default_factory=lambda: count(1000))

    # --- what it holds ------------------------------------------------------------------------

    def put(self, endpoint: Endpoint) -> None:
        self.endpoints[endpoint.interface] = endpoint
        for a in endpoint.ingress + endpoint.egress:
            self.programs.setdefault(a.program_id, Program(a.name.split(":")[0], a.loaded_at))

    def at(self, hook: Hook) -> Attachments:
        return self.endpoints[build.INTERFACE].at(hook)

    def write(
        self,
        writer: str,
        hook: Hook,
        change: Callable[[Attachments], Attachments],
        interface: str = build.INTERFACE,
    ) -> None:
        """All writes to the filters of a hook, ours and Felix's, are made here.

        :raises kernel_rules.Refused: where the kernel refuses the change.
        """
        endpoint = self.endpoints[interface]
        present = endpoint.at(hook)
        tcx = tuple(a for a in present if a.attach_type is AttachType.TCX)
        now = tcx + change(present[len(tcx) :])
        port = self.port if writer == "we" else self.port + 1
        gone = [(a, None) for a in present if a not in now]
        new = [(a, _raw(a)) for a in now if a not in present]
        self.changes += [
            FilterChange(endpoint.ifindex, hook, port, raw)
            for a, raw in (*new, *gone)
            if raw or (a.slot, a.chain) not in [(n.slot, n.chain) for n, _raw_new in new]
        ]
        if _enforced(present) and not _enforced(now):
            self.gaps.append(f"{writer} at {hook.value}")
        self.endpoints[interface] = (
            replace(endpoint, ingress=now)
            if hook is Hook.INGRESS
            else replace(endpoint, egress=now)
        )

    def load(self) -> Attachment:
        """A new program of Felix's, as a filter without a place."""
        now = next(self._clock)
        self.programs[now] = Program("cali_tc_preambl", now)
        return build.ours(0, now, 0, loaded_at=now)

    def _found(self, ifindex: int) -> Endpoint | None:
        return next((e for e in self.endpoints.values() if e.ifindex == ifindex), None)

    def _called(self, call: str) -> None:
        self.calls.append(call)
        self.before_call(len(self.calls) - 1)

    # --- the socket ---------------------------------------------------------------------------

    def links(self) -> dict[str, int]:
        self._called("links")
        return {name: e.ifindex for name, e in self.endpoints.items()}

    def link(self, name: str) -> int | None:
        self._called("link")
        return self.endpoints[name].ifindex if name in self.endpoints else None

    def clsact_qdiscs(self) -> dict[int, Qdisc]:
        self._called("qdiscs")
        return {e.ifindex: e.qdisc for e in self.endpoints.values() if e.qdisc is not Qdisc.NONE}

    def clsact_qdisc(self, ifindex: int) -> Qdisc:
        self._called("qdisc")
        found = self._found(ifindex)
        return found.qdisc if found else Qdisc.NONE

    def shared_blocks(self, ifindex: int) -> tuple[SharedBlock, ...]:
        found = self._found(ifindex)
        return found.shared_blocks if found else ()

    def filters(self, ifindex: int, hook: Hook) -> list[RawFilter]:
        self._called(f"read {hook.value}")
        found = self._found(ifindex)
        return [_raw(a) for a in found.at(hook) if a.attach_type is AttachType.TC] if found else []

    def add_filter(
        self,
        ifindex: int,
        hook: Hook,
        priority: int,
        handle: int,
        program_fd: int,
        name: str,
        *,
        replace: bool = False,
    ) -> None:
        program = self._opened[program_fd]
        put = kernel_rules.replace if replace else kernel_rules.add
        new = build.ours(handle, program, priority, name=name, calico="cali" in name)
        new = new._replace(loaded_at=self.programs[program].loaded_at)
        self._written(f"add {hook.value} {priority}/{handle}", ifindex, hook, lambda f: put(f, new))

    def replace_filter(
        self, ifindex: int, hook: Hook, priority: int, handle: int, program_fd: int, name: str
    ) -> None:
        program = self._opened[program_fd]
        new = build.ours(handle, program, priority, name=name, calico="cali" in name)
        new = new._replace(loaded_at=self.programs[program].loaded_at)
        call = f"replace {hook.value} {priority}/{handle}"
        self._written(call, ifindex, hook, lambda f: kernel_rules.change(f, new))

    def delete_filter(
        self, ifindex: int, hook: Hook, priority: int, handle: int, chain: int = 0
    ) -> RawFilter | None:
        gone: list[Attachment] = []

        def delete(filters: Attachments) -> Attachments:
            left = kernel_rules.delete(filters, Slot(priority, handle), chain)
            gone.extend(f for f in filters if f not in left)
            return left

        self._written(f"delete {hook.value} {priority}/{handle}", ifindex, hook, delete)
        if self.forgets:
            self.programs.pop(gone[0].program_id, None)
        return _raw(gone[0])

    def _written(
        self, call: str, ifindex: int, hook: Hook, change: Callable[[Attachments], Attachments]
    ) -> None:
        self.writes += 1
        self._called(call)
        if self.writes in self.refuse:
            raise KernelError(call, self.refuse[self.writes])
        found = self._found(ifindex)
        if found is None:
            raise KernelError(call, errno.ENODEV)
        if found.qdisc is not Qdisc.CLSACT:
            raise KernelError(call, errno.EINVAL)
        if found.block(hook):
            raise KernelError(call, errno.EOPNOTSUPP)
        try:
            self.write("we", hook, change, found.interface)
        except kernel_rules.Refused as refused:
            raise KernelError(call, refused.errno) from None
        if self.writes == self.kill_after:
            raise Killed

    # --- bpf(2) -------------------------------------------------------------------------------

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("program_fd", "program_info_by_id", "tcx_programs"):
            monkeypatch.setattr(bpf, name, getattr(self, name))
        monkeypatch.setattr(repair, "TcWatch", partial(Watch, self))

    def program_fd(self, program_id: int) -> int:
        self._called(f"open program {program_id}")
        if program_id not in self.programs:
            raise KernelError("open a program by its id", errno.ENOENT)
        fd = os.open(os.devnull, os.O_RDONLY)
        self._opened[fd] = program_id
        return fd

    def program_info_by_id(self, program_id: int) -> bpf.ProgramInfo:
        if program_id not in self.programs:
            raise KernelError("open a program by its id", errno.ENOENT)
        program = self.programs[program_id]
        kind = bpf.BPF_PROG_TYPE_SCHED_CLS
        return bpf.ProgramInfo(
            program_id=program_id,
            type=kind,
            name=program.name,
            tag="aa",
            loaded_at=program.loaded_at,
            map_ids=(),
        )

    def tcx_programs(self, ifindex: int, hook: Hook) -> list[tuple[int, int]]:
        found = self._found(ifindex)
        if found is None:
            raise KernelError("query TCX", errno.ENODEV)
        tcx = [a for a in found.at(hook) if a.attach_type is AttachType.TCX]
        return [(a.program_id, a.link_id) for a in tcx]


def _enforced(attachments: Attachments) -> bool:
    return any(a.calico and a.enforces for a in attachments)


def _raw(a: Attachment) -> RawFilter:
    return (
        a.priority, a.protocol, a.handle, a.kind, a.chain, a.program_id, a.name, a.tag,
        a.direct_action,
    )  # fmt: skip


class Watch:
    """Stands for a TcWatch."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._first = len(kernel.changes)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def overrun(self) -> bool:
        return self._kernel.drops_changes

    def changes(self, _seconds: float) -> list[FilterChange]:
        return [] if self._kernel.drops_changes else self._kernel.changes[self._first :]


class Felix:
    """Felix at one node, written down from felix/bpf/tc/attach.go once more.

    ``attached``: the program that it last attached at each hook and did not delete itself.
    """

    def __init__(self, kernel: Kernel, behaviour: Behaviour) -> None:
        self._kernel = kernel
        self._behaviour = behaviour
        self.attached: dict[Hook, int] = {}

    def reattach(self) -> None:
        """Both hooks in one go."""
        for hook in Hook:
            for _unused in self.steps(hook):
                pass

    def steps(self, hook: Hook) -> Iterator[None]:
        """One hook; it yields wherever others may write in between."""
        if build.INTERFACE not in self._kernel.endpoints:
            return
        listed = [a for a in self._kernel.at(hook) if a.calico]
        yield
        attach = (
            self._replace
            if self._behaviour is Behaviour.REPLACE_AND_COMPARE and listed
            else self._add
        )
        try:
            attach(hook, listed)
        except kernel_rules.Refused:
            return
        if self._behaviour is Behaviour.ADD_THEN_DELETE:
            for old in listed:
                yield
                self._delete(hook, old)

    def _replace(self, hook: Hook, listed: list[Attachment]) -> None:
        slot = max(listed, key=lambda a: a.priority).slot
        self._attach(hook, slot, kernel_rules.replace)

    def _add(self, hook: Hook, listed: list[Attachment]) -> None:
        filters = self._kernel.at(hook)
        priority = max((a.priority for a in listed), default=0)
        priority = priority or kernel_rules.auto_priority(filters)
        slot = Slot(priority, kernel_rules.free_handle(filters, priority))
        self._attach(hook, slot, kernel_rules.add)

    def _attach(
        self,
        hook: Hook,
        slot: Slot,
        put: Callable[[Attachments, Attachment], Attachments],
    ) -> None:
        new = self._kernel.load()._replace(priority=slot.priority, handle=slot.handle)
        self._kernel.write("Felix", hook, lambda filters: put(filters, new))
        self.attached[hook] = new.program_id

    def _delete(self, hook: Hook, old: Attachment) -> None:
        try:
            self._kernel.write("Felix", hook, lambda f: kernel_rules.delete(f, old.slot))
        except kernel_rules.Refused:
            return  # tc says that there is none, and so does Felix
        if self.attached.get(hook) not in [a.program_id for a in self._kernel.at(hook)]:
            self.attached.pop(hook, None)  # it was its own
