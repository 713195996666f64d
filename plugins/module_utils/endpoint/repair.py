# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carrying a plan out on the real kernel, one endpoint at a time.

The hook is read before and after every write and must hold exactly what the kernel's rules predict.
If another program, usually Felix, has changed it, the repair removes its own copy and plans the
endpoint again, a bounded number of times. No step leaves a hook without a program that had one, so
being killed between two steps does no harm: what is left is one more copy of the running program,
which the next run removes.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..errors import DataplaneError, KernelError
from ..kernel import bpf
from ..kernel.filter_message import PROGRAM_ID
from ..kernel.netlink import TcSocket
from ..kernel.snapshot import Reader
from ..kernel.syscalls import located
from ..kernel.tc_monitor import TcWatch
from ..model import (
    ETH_P_ALL,
    HOOKS,
    Action,
    Attachment,
    Attachments,
    Endpoint,
    Hook,
    Judgement,
    Plan,
    Policy,
    Qdisc,
    Step,
    Verdict,
)
from . import kernel_rules
from .judge import judge
from .plan import apply_step
from .watchdog import Watchdog

#: Errors that mean that another program changed the hook first.
_SOMEONE_ELSE = (errno.EEXIST, errno.ENOENT, errno.EBUSY, errno.EAGAIN)
#: Seconds before the first new plan; doubled for each further one. A Felix that forks tc takes tens
#: of milliseconds for one endpoint.
_PAUSE = 0.1


@dataclass(frozen=True)
class Outcome:
    """The result for one endpoint.

    ``found``: the judgement before the repair. ``after`` and ``left``: the endpoint at the end and
    its judgement; None if it vanished. ``done``: the steps of all attempts. ``notes``: the changes
    that other programs made during the repair. ``error``: why the repair failed, else empty.
    """

    verdict: Verdict
    before: Endpoint
    found: Judgement
    after: Endpoint | None
    left: Judgement | None
    done: Plan = ()
    notes: tuple[str, ...] = ()
    error: str = ""


class RepairRefused(DataplaneError):
    """The kernel refuses a step permanently; ``outcome`` has the steps done until then."""

    def __init__(self, text: str, outcome: Outcome) -> None:
        super().__init__(text)
        self.outcome = outcome


class _MovedOn(Exception):
    """Another program changed the endpoint during the repair; the text says what was read."""


class _Vanished(Exception):
    """The interface disappeared."""


class Repairer:
    """Repairs endpoints over one socket, in the network namespace of the caller."""

    def __init__(
        self,
        tc: TcSocket,
        reader: Reader,
        policy: Policy,
        retries: int = 3,
        sleep: Callable[[float], None] = time.sleep,
        *,
        settle: float = 0.0,
        watchdog: Watchdog | None = None,
    ) -> None:
        self._tc = tc
        self._reader = reader
        self._policy = policy
        self._retries = retries
        self._sleep = sleep
        self._settle = settle
        self._watchdog = watchdog

    def repair(self, endpoint: Endpoint, found: Judgement) -> Outcome:
        """Carry out ``found.plan``; plan again under contention.

        :raises RepairRefused: the kernel refuses a step permanently.
        """
        attempt = _Attempt(self._tc, self._reader, self._watchdog)
        try:
            return self._repair(endpoint, found, attempt)
        except _Vanished:
            return attempt.outcome(Verdict.VANISHED, endpoint, found)
        except KernelError as error:
            raise self._refused(endpoint, found, attempt, error) from error

    def _repair(self, endpoint: Endpoint, found: Judgement, attempt: _Attempt) -> Outcome:
        now, left = endpoint, found
        for tries in range(self._retries + 1):
            try:
                now = self._sure(attempt.carry_out(now, left.plan))
            except _MovedOn as moved:
                attempt.notes.append(str(moved))
                now = self._still(now, max(self._settle, _PAUSE * 2**tries))
            left = judge(now, self._policy)
            if not left.plan:
                break
        return attempt.outcome(_verdict(left, attempt), endpoint, found, now, left)

    def _refused(
        self, endpoint: Endpoint, found: Judgement, attempt: _Attempt, error: KernelError
    ) -> RepairRefused:
        try:
            now = self._read_again(endpoint)
            holds = "; ".join(f"{hook.value}: {_listed(now.at(hook))}" for hook in HOOKS)
        except (_Vanished, KernelError) as again:
            now, holds = endpoint, f"an unknown state ({again or 'the interface vanished'})"
        done = "; ".join(str(step) for step in attempt.done) or "nothing"
        behind = "".join(f" {text}." for text in attempt.left_behind)
        text = (
            f"{error.at(endpoint.interface)}. Done before: {done}.{behind} The endpoint now holds "
            f"{holds}. Both hooks keep their programs. {error.advice or 'Fix the cause'}, and run "
            "the task again"
        )
        outcome = attempt.outcome(Verdict.DRIFTED, endpoint, found, now, judge(now, self._policy))
        return RepairRefused(text, replace(outcome, error=text))

    def _sure(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint itself, after a check of the interface if a hook is bare.

        The hooks of an interface that has just disappeared read as bare too.

        :raises _Vanished:
        """
        bare = not (endpoint.ingress and endpoint.egress)
        if bare and not self._reader.is_present(endpoint):
            raise _Vanished
        return endpoint

    def _still(self, endpoint: Endpoint, pause: float) -> Endpoint:
        """The endpoint once it is unchanged for ``pause`` seconds, or after the last try.

        A Felix in the middle of a pass still deletes what it listed before, which might be a filter
        that a repair has moved.

        :raises _Vanished:
        """
        seen = self._read_again(endpoint)
        for _look in range(self._retries + 1):
            self._sleep(pause)
            again = self._read_again(endpoint)
            if again == seen:
                break
            seen = again
        return again

    def _read_again(self, endpoint: Endpoint) -> Endpoint:
        """:raises _Vanished: the interface disappeared, or returned with another ifindex."""
        found = self._reader.read_named([endpoint.interface]).endpoints
        if not found or found[0].ifindex != endpoint.ifindex:
            raise _Vanished
        return found[0]


def _verdict(left: Judgement, attempt: _Attempt) -> Verdict:
    if left.plan or attempt.harmed:
        return Verdict.CONTENDED
    if left.drifted:
        return Verdict.DRIFTED
    return Verdict.REPAIRED if attempt.done else Verdict.CONSISTENT


class _Attempt:
    """The writes at one endpoint, each compared with the model, and their results."""

    def __init__(self, tc: TcSocket, reader: Reader, watchdog: Watchdog | None) -> None:
        self._tc = tc
        self._reader = reader
        self._watchdog = watchdog
        self._endpoint = Endpoint("", 0, Qdisc.NONE)
        self._copies: list[tuple[Hook, Attachment]] = []
        self.done: list[Step] = []
        self.notes: list[str] = []
        #: Our copies that could not be removed, and why.
        self.left_behind: list[str] = []
        #: A program that Felix had just attached was deleted and could not be restored.
        self.harmed = False

    def outcome(
        self,
        verdict: Verdict,
        before: Endpoint,
        found: Judgement,
        after: Endpoint | None = None,
        left: Judgement | None = None,
    ) -> Outcome:
        return Outcome(
            verdict=verdict,
            before=before,
            found=found,
            after=after,
            left=left,
            done=tuple(self.done),
            notes=(*self.notes, *self.left_behind),
        )

    def carry_out(self, endpoint: Endpoint, steps: Plan) -> Endpoint:
        """:returns: the endpoint after all steps, as read back from the kernel."""
        self._endpoint, self._copies = endpoint, []
        last: Hook | None = None
        try:
            for step in steps:
                with located(endpoint.interface, step.hook.value):
                    self._carry_out(step, is_first=step.hook is not last)
                last = step.hook
            for hook in HOOKS:
                if hook is not last:
                    self._expect(hook)
        except _MovedOn:
            self._take_back()
            raise
        except KernelError as error:
            self._give_way(error)
            raise
        return self._endpoint

    def _carry_out(self, step: Step, *, is_first: bool) -> None:
        if is_first:
            self._expect(step.hook)
            self._hold(step.hook)
        try:
            self._write(step)
        except KernelError as error:
            if error.unanswered:
                self._find_out(step)
            raise
        self._did(step)
        self._expect(step.hook)
        self._hold(step.hook)

    def _did(self, step: Step) -> None:
        self.done.append(step)
        self._endpoint = apply_step(self._endpoint, step)
        if step.action is Action.ADD and step.filter is not None:
            self._copies.append((step.hook, step.filter))

    def _find_out(self, step: Step) -> None:
        """Record a step whose answer was lost, unless the hook shows that it was not made."""
        try:
            if _same(self._read(step.hook), self._endpoint.at(step.hook)):
                return
        except KernelError as error:
            self.notes.append(
                f"{step.hook.value}: whether the kernel did {step} is unknown: {error}"
            )
        self._did(step)

    def _hold(self, hook: Hook) -> None:
        if self._watchdog is not None:
            self._watchdog.hold(self._endpoint, hook)

    def _expect(self, hook: Hook) -> None:
        seen = self._read(hook)
        expected = self._endpoint.at(hook)
        if not _same(seen, expected):
            raise _MovedOn(
                f"{hook.value} changed during the repair: expected {_listed(expected)}, "
                f"found {_listed(seen)}"
            )

    def _read(self, hook: Hook) -> Attachments:
        with located(self._endpoint.interface, hook.value):
            return self._reader.hook(self._endpoint.ifindex, self._endpoint.qdisc, hook)

    def _write(self, step: Step) -> None:
        if step.filter is None:
            self._unpin(step.path)
        elif step.action is Action.REPLACE:
            self._replace(step.hook, step.filter)
        elif step.action is Action.ADD:
            self._attach(Action.ADD, step.hook, step.filter)
        else:
            self._delete(step.hook, step.filter)

    def _attach(self, action: Action, hook: Hook, a: Attachment) -> None:
        """Attach the program of ``a`` by id: ADD, or REPLACE the filter at its slot."""
        request = self._tc.replace_filter if action is Action.REPLACE else self._tc.add_filter
        fd = bpf.program_fd(a.program_id)
        try:
            request(self._endpoint.ifindex, hook, a.priority, a.handle, fd, a.name)
        finally:
            os.close(fd)

    def _replace(self, hook: Hook, a: Attachment) -> None:
        """Put ``a`` in the place of the filter at its slot.

        The request cannot name the program that it replaces. Therefore the changes of others are
        collected from before the last read until the kernel reports this one.

        :raises _MovedOn: another process attached a program there after that read.
        """
        with TcWatch() as watch:
            self._expect(hook)
            self._attach(Action.REPLACE, hook, a)
            try:
                lost = self._last_there(watch, hook, a)
            except KernelError as error:
                raise self._unwatched(hook, a, str(error)) from error
        if lost is not None:
            self.done.append(Step(Action.REPLACE, hook, a))
            self._put_back(Action.REPLACE, hook, lost)

    def _last_there(self, watch: TcWatch, hook: Hook, a: Attachment) -> Attachment | None:
        """What others attached at the slot of ``a`` before it; the last counts.

        :raises _MovedOn: the kernel dropped changes, so that is not known.
        """
        last = None
        for change in watch.changes(0):
            if (change.ifindex, change.hook) != (self._endpoint.ifindex, hook):
                continue
            if change.port == self._tc.port:
                break
            if change.added is not None:
                added = self._reader.attachment(change.added)
                last = added if (added.slot, added.chain) == (a.slot, 0) else last
        if watch.overrun:
            raise self._unwatched(hook, a, "the kernel dropped reports of changes")
        return last

    def _unwatched(self, hook: Hook, a: Attachment, why: str) -> _MovedOn:
        """The error that ``a`` was put in a place whose last program is unknown."""
        self.harmed = True
        self.done.append(Step(Action.REPLACE, hook, a))
        return _MovedOn(
            f"{hook.value}: {a} replaced a filter, and which one is unknown ({why}); a program "
            "that was attached there in that instant was replaced too. If in doubt, restart this "
            "node's calico-node pod"
        )

    def _delete(self, hook: Hook, a: Attachment) -> None:
        """:raises _MovedOn: the kernel's echo names a program other than that of ``a``."""
        ifindex = self._endpoint.ifindex
        raw = self._tc.delete_filter(ifindex, hook, a.priority, a.handle, a.chain)
        if raw is None or raw[PROGRAM_ID] == a.program_id:
            return
        self.done.append(Step(Action.DELETE, hook, a))
        try:
            gone = self._reader.attachment(raw)
        except KernelError as error:
            raise self._lost(hook, f"program {raw[PROGRAM_ID]}", error) from error
        self._put_back(Action.ADD, hook, gone)

    def _put_back(self, action: Action, hook: Hook, gone: Attachment) -> None:
        """Undo a write that hit a program which was attached there after the last read.

        Its last reference is dropped only after an RCU grace period, so it can still be opened.
        """
        try:
            if not (gone.kind == "bpf" and gone.direct_action and gone.protocol == ETH_P_ALL):
                raise KernelError("attach it as it was", errno.EOPNOTSUPP)
            self._attach(action, hook, gone)
        except KernelError as error:
            raise self._lost(hook, str(gone), error) from error
        self.done.append(Step(action, hook, gone))
        raise _MovedOn(
            f"{hook.value}: {gone} replaced a filter that was being removed; it was put back"
        )

    def _lost(self, hook: Hook, gone: str, error: KernelError) -> _MovedOn:
        """The error that ``gone`` was removed for good."""
        self.harmed = True
        return _MovedOn(
            f"{hook.value}: {gone} was attached just before a filter in its place was removed, "
            f"was removed instead, and could not be put back ({error}); the former program "
            "still enforces. It must be attached again; for a program of Felix, restart this "
            "node's calico-node pod"
        )

    def _unpin(self, path: str) -> None:
        if not self._reader.link_is_dead(path):
            raise _MovedOn(f"{path} is no longer a dead pin")
        bpf.unpin(path)

    def _take_back(self) -> None:
        """Remove our copies where another program of Calico enforces; never the last one."""
        for hook, copy in self._copies:
            try:
                self._take_back_one(hook, copy)
            except KernelError as error:
                self.left_behind.append(
                    f"{hook.value}: our copy {copy} could not be removed and may be left behind "
                    f"({error}); it only doubles the running program, and the next run removes it"
                )

    def _take_back_one(self, hook: Hook, copy: Attachment) -> None:
        seen = self._read(hook)
        attached = kernel_rules.find(seen, copy.slot)
        if attached is None or attached.program_id != copy.program_id:
            return
        if not any(a.calico and a.enforces and a is not attached for a in seen):
            return
        try:
            self._delete(hook, attached)
        except KernelError as error:
            if not error.unanswered or kernel_rules.find(self._read(hook), copy.slot):
                raise
        self.done.append(Step(Action.DELETE, hook, attached))

    def _give_way(self, error: KernelError) -> None:
        """Remove our copies, and return only if the refusal is permanent.

        :raises _Vanished, _MovedOn: another program's change caused ``error``.
        """
        if error.errno == errno.ENODEV:
            raise _Vanished from error
        moved = self._has_moved()
        self._take_back()
        if moved or error.errno in _SOMEONE_ELSE:
            raise _MovedOn(str(error)) from error

    def _has_moved(self) -> bool:
        """Whether a hook no longer is as this repair left it; False if that cannot be read."""
        try:
            return not all(_same(self._read(hook), self._endpoint.at(hook)) for hook in HOOKS)
        except KernelError:
            return False


def _same(seen: Attachments, expected: Attachments) -> bool:
    return seen in (expected, _without_load_times(expected))


def _without_load_times(attachments: Attachments) -> Attachments:
    return tuple(a._replace(loaded_at=0) if a.loaded_at else a for a in attachments)


def _listed(attachments: Attachments) -> str:
    return ", ".join(str(a) for a in attachments) or "nothing"
