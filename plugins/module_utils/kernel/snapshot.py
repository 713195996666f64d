# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read one snapshot of all wanted interfaces, as endpoints.

Links and qdiscs are read once for all interfaces, then the filters and TCX programs at each hook.
Only TCX and the contents of programs need a privilege; ``Snapshot.unread`` lists what could not be
read.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import translate

from ..errors import KernelError
from ..model import (
    ETH_P_ALL,
    HOOKS,
    Attachment,
    Attachments,
    AttachType,
    DeadPin,
    Endpoint,
    Hook,
    Qdisc,
    named_by_calico,
)
from . import bpf
from .filter_message import RawFilter
from .jump_targets import TargetReader, Targets
from .netlink import TcSocket
from .syscalls import LACKING, failed, located

#: felix/bpf/bpfdefs/defs.go at v3.31.0: TcxPinDir; a pin is IFACE (without dots) _ HOOK.
TCX_PINS = "/sys/fs/bpf/tcx"
_AS_ROOT = "; run as root"


@dataclass(frozen=True)
class Snapshot:
    """``vanished``: interfaces that disappeared during the read. ``unread``: what, and why."""

    endpoints: tuple[Endpoint, ...]
    vanished: tuple[str, ...] = ()
    unread: dict[str, str] = field(default_factory=dict)
    #: Nanoseconds from boot to the start of the read.
    began_at: int = 0
    #: By interface, nanoseconds from boot to the load of Calico's newest program.
    newest_load: dict[str, int] = field(default_factory=dict)

    def is_fresh(self, interface: str, seconds: float) -> bool:
        """Whether Felix loaded a program of ``interface`` less than ``seconds`` before the read."""
        loaded_at = self.newest_load.get(interface)
        return loaded_at is not None and self.began_at - loaded_at < seconds * 1e9


def matching(names: Iterable[str], wanted: Iterable[str], exclude: Iterable[str]) -> list[str]:
    """The names that match a shell glob of ``wanted`` and no glob of ``exclude``, sorted."""
    is_wanted, is_excluded = _any_of(wanted), _any_of(exclude)
    return sorted(name for name in names if is_wanted(name) and not is_excluded(name))


def _any_of(globs: Iterable[str]) -> Callable[[str], object]:
    """One regular expression for all globs; without globs, it matches nothing."""
    return re.compile("|".join(map(translate, globs)) or r"(?!)").match


class Reader:
    """Reads snapshots of the network namespace in which it is created and used."""

    def __init__(
        self,
        tc: TcSocket,
        *,
        look_into_programs: bool = True,
        jump_targets: bool = True,
        tcx_pins: str = TCX_PINS,
    ) -> None:
        """What looking into programs reads is when they were loaded, and their jump targets."""
        self._tc = tc
        self._look_into_programs = look_into_programs
        self._reads_targets = jump_targets
        self._tcx_pins = tcx_pins
        self._unread: dict[str, str] = {}
        self._has_tcx = True
        self._may_open_programs = True
        self._jump_targets = TargetReader()
        self._unknown_preambles: list[tuple[str, int]] = []
        self._newest_load: dict[str, int] = {}

    def read(self, wanted: Iterable[str], exclude: Iterable[str] = ()) -> Snapshot:
        """:raises KernelError: EINTR if links were added or removed during every dump."""
        return self._read(lambda names: matching(names, wanted, exclude))

    def read_named(self, names: Iterable[str]) -> Snapshot:
        """``read`` for interfaces by their exact names."""
        wanted = set(names)
        return self._read(lambda present: sorted(wanted.intersection(present)))

    def is_present(self, endpoint: Endpoint) -> bool:
        """Whether its interface still exists with the same ifindex; cheap, because not a dump."""
        return self._tc.link(endpoint.interface) == endpoint.ifindex

    def _read(self, choose: Callable[[Iterable[str]], list[str]]) -> Snapshot:
        self._unread = {}
        self._jump_targets = TargetReader()
        self._unknown_preambles = []
        self._newest_load = {}
        began_at = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        links = self._tc.links()
        qdiscs = self._tc.clsact_qdiscs()
        names = choose(links)
        pins = self._pins()
        endpoints = [
            self._endpoint(name, links[name], self._qdisc(name, links[name], qdiscs), pins)
            for name in names
        ]
        self._note_unknown_preambles()
        vanished = self._vanished(endpoints)
        kept = tuple(e for e in endpoints if e.interface not in vanished)
        return Snapshot(kept, tuple(sorted(vanished)), self._unread, began_at, self._newest_load)

    def _qdisc(self, name: str, ifindex: int, qdiscs: dict[int, Qdisc]) -> Qdisc:
        """One that the dump lacks is read alone, since a dump may lack some that exist."""
        if ifindex in qdiscs:
            return qdiscs[ifindex]
        with located(name):
            return self._tc.clsact_qdisc(ifindex)

    def hook(self, ifindex: int, qdisc: Qdisc, hook: Hook) -> Attachments:
        """The attachments at one hook of an interface with ``qdisc``, without load times."""
        tcx = self._tcx(ifindex, hook)
        if qdisc is Qdisc.CLSACT or (qdisc is Qdisc.INGRESS and hook is Hook.INGRESS):
            return tcx + self._filters(ifindex, hook)
        # A dump of egress would return the ingress filters of an ingress qdisc.
        return tcx

    def _endpoint(self, name: str, ifindex: int, qdisc: Qdisc, pins: dict[str, str]) -> Endpoint:
        ingress = self._attached(name, ifindex, qdisc, Hook.INGRESS)
        egress = self._attached(name, ifindex, qdisc, Hook.EGRESS)
        with located(name):
            dead = self._dead_pins(name, pins) if pins else ()
            targets = self._targets(name, ingress, egress) if self._look_into_programs else []
        return Endpoint(
            interface=name,
            ifindex=ifindex,
            qdisc=qdisc,
            ingress=ingress,
            egress=egress,
            dead_pins=dead,
            empty_prog_arrays=tuple(e for t in targets for e in t.empty),
            missing_targets=tuple(m for t in targets for m in t.missing),
            shared_blocks=() if qdisc is Qdisc.NONE else self._tc.shared_blocks(ifindex),
        )

    def _attached(self, name: str, ifindex: int, qdisc: Qdisc, hook: Hook) -> Attachments:
        with located(name, hook.value):
            return self._with_load_times(self.hook(ifindex, qdisc, hook))

    def _vanished(self, endpoints: list[Endpoint]) -> set[str]:
        """Interfaces that look bare because they disappeared or were replaced during the read.

        The dump of a missing interface is empty and not an error, so a bare hook counts only if the
        interface still exists with the same ifindex.
        """
        if all(e.ingress and e.egress for e in endpoints):
            return set()
        links = self._tc.links()
        return {e.interface for e in endpoints if links.get(e.interface) != e.ifindex}

    # --- filters ------------------------------------------------------------------------------

    def _filters(self, ifindex: int, hook: Hook) -> Attachments:
        return tuple([self.attachment(f) for f in self._tc.filters(ifindex, hook)])

    def attachment(self, raw: RawFilter) -> Attachment:
        priority, protocol, handle, kind, chain, program_id, name, tag, direct_action = raw
        calico = kind == "bpf" and (named_by_calico(name) or self._program_is_calico(program_id))
        return Attachment(
            attach_type=AttachType.TC,
            priority=priority,
            handle=handle,
            program_id=program_id,
            name=name,
            tag=tag,
            direct_action=direct_action,
            calico=calico,
            kind=kind,
            protocol=protocol,
            chain=chain,
        )

    def _program_is_calico(self, program_id: int) -> bool:
        """Whether a filter with another name has a program of Calico.

        ``tc filter show`` prints both names, and Felix up to 3.30 searches the whole line.
        """
        info = self._program(program_id)
        return info is not None and named_by_calico(info.name)

    def _with_load_times(self, attachments: Attachments) -> Attachments:
        """Load times distinguish generations, which matters only if several are attached."""
        if len(attachments) < 2 or sum(a.calico for a in attachments) < 2:
            return attachments
        return tuple(self._with_load_time(a) if a.calico else a for a in attachments)

    def _with_load_time(self, a: Attachment) -> Attachment:
        info = self._program(a.program_id)
        return a if info is None else a._replace(loaded_at=info.loaded_at)

    def _program(self, program_id: int) -> bpf.ProgramInfo | None:
        """The info of a program; None if it no longer exists or may not be read."""
        if not program_id or not self._may_open_programs:
            return None
        try:
            return bpf.program_info_by_id(program_id)
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return None
            if error.errno not in LACKING:
                raise
            self._may_open_programs = False
            self._unread["programs"] = f"{error}{_AS_ROOT}"
            return None

    # --- TCX ----------------------------------------------------------------------------------

    def _tcx(self, ifindex: int, hook: Hook) -> Attachments:
        if not self._has_tcx:
            return ()
        try:
            found = bpf.tcx_programs(ifindex, hook)
        except KernelError as error:
            if error.errno == errno.ENODEV:
                return ()
            if error.errno not in LACKING:
                raise
            self._has_tcx = False
            if error.errno != errno.EINVAL:
                self._unread["tcx"] = f"{error}{_AS_ROOT}"
            return ()
        return tuple([self._tcx_attachment(*ids) for ids in found])

    def _tcx_attachment(self, program_id: int, link_id: int) -> Attachment:
        info = self._program(program_id)
        name = info.name if info else ""
        return Attachment(
            attach_type=AttachType.TCX,
            priority=0,
            handle=0,
            program_id=program_id,
            name=name,
            tag=info.tag if info else "",
            direct_action=True,
            calico=named_by_calico(name),
            kind="bpf",
            protocol=ETH_P_ALL,
            chain=0,
            link_id=link_id,
        )

    def _pins(self) -> dict[str, str]:
        """Felix's TCX pins: file name to path. Empty without the directory."""
        try:
            return {name: os.path.join(self._tcx_pins, name) for name in os.listdir(self._tcx_pins)}
        except FileNotFoundError:
            return {}
        except OSError as error:
            if error.errno not in LACKING:
                raise failed(f"list {self._tcx_pins}", error) from error
            self._unread["pins"] = f"list {self._tcx_pins}: {error.strerror}{_AS_ROOT}"
            return {}

    def _dead_pins(self, interface: str, pins: dict[str, str]) -> tuple[DeadPin, ...]:
        dead = []
        for hook in HOOKS:
            path = pins.get(f"{interface.replace('.', '')}_{hook.value}")
            if path and self.link_is_dead(path):
                dead.append(DeadPin(hook, path))
        return tuple(dead)

    def link_is_dead(self, path: str) -> bool:
        try:
            fd = bpf.open_pin(path)
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return False
            if error.errno not in LACKING:
                raise
            self._unread["pins"] = f"{error}{_AS_ROOT}"
            return False
        try:
            link = bpf.tcx_link_info(fd)
            return link is not None and link.ifindex == 0
        finally:
            os.close(fd)

    # --- jump targets -------------------------------------------------------------------------

    def _targets(self, name: str, ingress: Attachments, egress: Attachments) -> list[Targets]:
        """What the programs of Calico at both hooks jump to.

        Also notes when the programs were loaded, which the same call reads.
        """
        found = []
        for hook, attachments in ((Hook.INGRESS, ingress), (Hook.EGRESS, egress)):
            for program_id in dict.fromkeys(a.program_id for a in attachments if a.calico):
                info = self._program(program_id)
                if info is None:
                    continue
                self._newest_load[name] = max(info.loaded_at, self._newest_load.get(name, 0))
                if self._reads_targets:
                    found.append(self._jump_targets.read(name, hook, info))
                    if not found[-1].known:
                        self._unknown_preambles.append((name, program_id))
        return found

    def _note_unknown_preambles(self) -> None:
        if self._unknown_preambles:
            name, program_id = self._unknown_preambles[0]
            self._unread["jump targets"] = (
                f"{len(self._unknown_preambles)} programs with Calico's name do not hold what a "
                "preamble of Calico 3.27 to 3.32 does, so the programs that they jump to are "
                f"unknown; the first is program {program_id} of {name}. If this release is newer "
                "than that, set jump_targets to false"
            )
