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
import time
from dataclasses import dataclass

from ..errors import KernelError
from ..kernel import bpf
from ..kernel.netlink import TcSocket
from ..kernel.snapshot import Reader
from ..kernel.syscalls import located
from ..kernel.tc_monitor import FilterChange, TcWatch
from ..model import Action, Attachment, Endpoint, Hook, Step
from .findings import calico_tc, survivor

#: Errors that mean that the hook no longer exists, or has a filter again.
_NO_LONGER_BARE = (errno.ENODEV, errno.EINVAL, errno.EEXIST)
#: Descriptors that the rest of the process may need while programs are held.
_SPARE_FILES = 32
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
        self._restored: dict[int, list[Step]] = {}
        #: Why changes could not be watched for some time; the held hooks were read instead.
        self.error: KernelError | None = None
        self._room = _free_files() - _SPARE_FILES

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._watch.close()

    @property
    def is_full(self) -> bool:
        """Whether the limit of open files leaves no room for the programs of another endpoint."""
        return len(self._programs) + len(Hook) > self._room

    def release(self) -> None:
        """Stop holding programs, and forget what was seen of their hooks."""
        for program in self._programs.values():
            os.close(program.fd)
        for seen in (self._programs, self._added, self._notes, self._restored):
            seen.clear()

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
        end = time.monotonic() + seconds
        failed = False
        try:
            for change in self._watch.changes(seconds):
                self._look_at(change)
        except KernelError as error:
            self.error, failed = error, True
            self._restore_all()
            time.sleep(max(0.0, end - time.monotonic()))
        if self._watch.overrun or failed:
            self._watch.overrun = False
            self._restore_all()

    def notes(self, ifindex: int) -> tuple[str, ...]:
        """The deletions by others, which the result must mention."""
        return tuple(self._notes.get(ifindex, ()))

    def lost(self, endpoint: Endpoint) -> tuple[str, ...]:
        """The programs that others attached and that ``endpoint``, as it is now, lacks."""
        lost = [self._lost(endpoint, hook) for hook in Hook]
        return tuple(text for text in lost if text)

    def restored(self, ifindex: int) -> tuple[Step, ...]:
        """The programs that were attached again."""
        return tuple(self._restored.get(ifindex, ()))

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

    def _restore_all(self) -> None:
        for key in self._programs:
            self._restore(key)

    def _restore(self, key: tuple[int, Hook]) -> None:
        ifindex, hook = key
        program = self._programs[key]
        a = program.attachment
        try:
            with located(program.endpoint.interface, hook.value):
                present = self._reader.hook(ifindex, program.endpoint.qdisc, hook)
        except KernelError as error:
            self._note(
                ifindex,
                f"another process changed {hook.value}, which could not be read ({error}); if it "
                f"has no program any more, NO POLICY IS ENFORCED there. {_RESTART}",
            )
            return
        if any(other.calico and other.enforces for other in present):
            return
        cause = (
            "another program, most likely a Felix in the middle of its pass, deleted the last one"
        )
        try:
            self._tc.add_filter(ifindex, hook, a.priority, a.handle, program.fd, a.name)
        except KernelError as error:
            if error.errno in _NO_LONGER_BARE:
                return
            if error.unanswered:
                self._restored.setdefault(ifindex, []).append(Step(Action.ADD, hook, a))
            then = f"{a} could not be put back ({error}): NO POLICY IS ENFORCED at this hook"
        else:
            self._restored.setdefault(ifindex, []).append(Step(Action.ADD, hook, a))
            then = f"{a} was put back at once"
        self._note(ifindex, f"{hook.value}: {cause}; {then}. {_RESTART}")

    def _note(self, ifindex: int, text: str) -> None:
        self._notes.setdefault(ifindex, []).append(text)

    def _lost(self, endpoint: Endpoint, hook: Hook) -> str | None:
        program_id = self._added.get((endpoint.ifindex, hook))
        if program_id is None or program_id in {a.program_id for a in endpoint.at(hook)}:
            return None
        return (
            f"{hook.value}: program {program_id}, attached by another process during the repair, "
            f"was deleted again, and the former one runs. {_RESTART}"
        )


def _free_files() -> int:
    """How many files can still be opened, once the limit is raised as far as is allowed.

    Each repaired hook holds one program open.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    except (OSError, ValueError):
        pass
    try:
        used = len(os.listdir("/proc/self/fd"))
    except OSError:
        used = 0
    return soft - used
