# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore programs that Felix deletes by mistake around a repair.

A Felix of add_then_delete lists the filters, attaches a new one at the lowest free handle, and then
deletes the listed ones by handle. If a repair frees a listed handle in between, Felix's new filter
gets that handle and Felix deletes its own filter: the hook may be left bare. No read before the
repair can detect this. So the programs of the repaired hooks are held open and the changes of other
programs are watched until the settle time is over; a hook left bare gets its program back at once.
"""

from __future__ import annotations

import errno
import os
import resource
from dataclasses import dataclass

from ..errors import KernelError
from ..kernel import bpf
from ..kernel.netlink import TcSocket
from ..kernel.snapshot import Reader
from ..kernel.tc_monitor import FilterChange, TcWatch
from ..model import Attachment, Endpoint, Hook
from .findings import calico_tc, survivor

#: Errors that mean that the hook no longer exists, or has a filter again.
_NO_LONGER_BARE = (errno.ENODEV, errno.EINVAL, errno.EEXIST)
_RESTART = "Restart this node's calico-node pod, so that Felix attaches it again"


@dataclass
class _HeldProgram:
    """The program of a hook: its fd, and where it was last attached."""

    endpoint: Endpoint
    attachment: Attachment
    fd: int


class Watchdog:
    """Holds programs and watches hooks in the network namespace in which it was created."""

    def __init__(self, tc: TcSocket, reader: Reader) -> None:
        self._tc = tc
        self._reader = reader
        self._watch = TcWatch()
        self._programs: dict[tuple[int, Hook], _HeldProgram] = {}
        self._added: dict[tuple[int, Hook], int] = {}
        self._notes: dict[int, list[str]] = {}
        _allow_many_files()

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(self, *_: object) -> None:
        for program in self._programs.values():
            os.close(program.fd)
        self._watch.close()

    def hold(self, endpoint: Endpoint, hook: Hook) -> None:
        """Hold the program that ``hook`` of ``endpoint`` must run, and remember its place.

        :raises KernelError: ENOENT if the program no longer exists.
        """
        attached = calico_tc(endpoint.at(hook))
        if not attached:
            return
        key, attachment = (endpoint.ifindex, hook), survivor(attached)
        program = self._programs.get(key)
        if program is not None and program.attachment.program_id == attachment.program_id:
            program.endpoint, program.attachment = endpoint, attachment
            return
        fd = bpf.program_fd(attachment.program_id)
        if program is not None:
            os.close(program.fd)
        self._programs[key] = _HeldProgram(endpoint, attachment, fd)

    def sleep(self, seconds: float) -> None:
        """Wait, and restore the program of a hook that is left bare during that time."""
        for change in self._watch.changes(seconds):
            self._look_at(change)
        if self._watch.overrun:
            self._watch.overrun = False
            for key in self._programs:
                self._restore(key)

    def notes(self, endpoint: Endpoint) -> tuple[str, ...]:
        """The changes by others that the result must mention; ``endpoint`` as it is now."""
        lost = [self._lost(endpoint, hook) for hook in Hook]
        return (*self._notes.get(endpoint.ifindex, ()), *(text for text in lost if text))

    def _look_at(self, change: FilterChange) -> None:
        key = (change.ifindex, change.hook)
        if change.port == self._tc.port or key not in self._programs:
            return
        if change.added is None:
            self._restore(key)
            return
        added = self._reader.attachment(change.added)
        if added.calico:
            self._added[key] = added.program_id

    def _restore(self, key: tuple[int, Hook]) -> None:
        ifindex, hook = key
        program = self._programs[key]
        if any(
            a.calico and a.enforces
            for a in self._reader.hook(ifindex, program.endpoint.qdisc, hook)
        ):
            return
        a = program.attachment
        cause = (
            "another program, most likely a Felix in the middle of its pass, deleted the last one"
        )
        try:
            self._tc.add_filter(ifindex, hook, a.priority, a.handle, program.fd, a.name)
        except KernelError as error:
            if error.errno in _NO_LONGER_BARE:
                return
            then = f"{a} could not be put back ({error}): NO POLICY IS ENFORCED at this hook"
        else:
            then = f"{a} was put back at once"
        self._notes.setdefault(ifindex, []).append(f"{hook.value}: {cause}; {then}. {_RESTART}")

    def _lost(self, endpoint: Endpoint, hook: Hook) -> str | None:
        program_id = self._added.get((endpoint.ifindex, hook))
        if program_id is None or program_id in {a.program_id for a in endpoint.at(hook)}:
            return None
        return (
            f"{hook.value}: program {program_id}, attached by another process during the repair, "
            f"was deleted again, and the former one runs. {_RESTART}"
        )


def _allow_many_files() -> None:
    """Raise the limit of open files: each repaired hook holds one program open."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
