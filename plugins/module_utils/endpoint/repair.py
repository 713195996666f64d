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
from dataclasses import dataclass

from ..errors import DataplaneError, KernelError
from ..kernel import bpf
from ..kernel.netlink import TcSocket
from ..kernel.snapshot import Reader
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
    that other programs made during the repair.
    """

    verdict: Verdict
    before: Endpoint
    found: Judgement
    after: Endpoint | None
    left: Judgement | None
    done: Plan = ()
    notes: tuple[str, ...] = ()


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
        return RepairRefused(
            f"{endpoint.interface}: {error}. Done before: {done}. The endpoint now holds {holds}. "
            "Both hooks keep their programs; fix the cause and run the task again",
            attempt.outcome(Verdict.DRIFTED, endpoint, found, now, judge(now, self._policy)),
        )

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
            notes=tuple(self.notes),
        )

    def carry_out(self, endpoint: Endpoint, steps: Plan) -> Endpoint:
        """:returns: the endpoint after all steps, as read back from the kernel."""
        self._endpoint, self._copies = endpoint, []
        last: Hook | None = None
        try:
            for step in steps:
                if step.hook is not last:
                    self._expect(endpoint, step.hook)
                    last = step.hook
                    self._hold(endpoint, step.hook)
                self._write(step)
                self.done.append(step)
                endpoint = apply_step(endpoint, step)
                self._expect(endpoint, step.hook)
                self._hold(endpoint, step.hook)
            for hook in HOOKS:
                if hook is not last:
                    self._expect(endpoint, hook)
        except _MovedOn:
            self._take_back()
            raise
        except KernelError as error:
            self._give_way(endpoint, error)
            raise
        return endpoint

    def _hold(self, endpoint: Endpoint, hook: Hook) -> None:
        if self._watchdog is not None:
            self._watchdog.hold(endpoint, hook)

    def _expect(self, endpoint: Endpoint, hook: Hook) -> None:
        seen = self._read(hook)
        expected = endpoint.at(hook)
        if seen != expected and seen != _without_load_times(expected):
            raise _MovedOn(
                f"{hook.value} changed during the repair: expected {_listed(expected)}, "
                f"found {_listed(seen)}"
            )

    def _read(self, hook: Hook) -> Attachments:
        return self._reader.hook(self._endpoint.ifindex, self._endpoint.qdisc, hook)

    def _write(self, step: Step) -> None:
        if step.filter is None:
            self._unpin(step.path)
        elif step.action is Action.ADD:
            self._add(step.hook, step.filter)
            self._copies.append((step.hook, step.filter))
        else:
            self._delete(step.hook, step.filter)

    def _add(self, hook: Hook, a: Attachment) -> None:
        fd = bpf.program_fd(a.program_id)
        try:
            self._tc.add_filter(self._endpoint.ifindex, hook, a.priority, a.handle, fd, a.name)
        finally:
            os.close(fd)

    def _delete(self, hook: Hook, a: Attachment) -> None:
        """:raises _MovedOn: the kernel's echo names a program other than that of ``a``."""
        ifindex = self._endpoint.ifindex
        raw = self._tc.delete_filter(ifindex, hook, a.priority, a.handle, a.chain)
        if raw is None:
            return
        gone = self._reader.attachment(raw)
        if gone.program_id != a.program_id:
            self._put_back(hook, gone)

    def _put_back(self, hook: Hook, gone: Attachment) -> None:
        """Undo a delete that hit a program which was attached there after the last read.

        Its last reference is dropped only after an RCU grace period, so it can still be opened.
        """
        try:
            if not (gone.kind == "bpf" and gone.direct_action and gone.protocol == ETH_P_ALL):
                raise KernelError("attach it as it was", errno.EOPNOTSUPP)
            self._add(hook, gone)
        except KernelError as error:
            self.harmed = True
            raise _MovedOn(
                f"{hook.value}: {gone} was attached just before a filter in its place was deleted, "
                f"was deleted instead, and could not be put back ({error}); the former program "
                "still enforces. It must be attached again; for a program of Felix, restart this "
                "node's calico-node pod"
            ) from error
        raise _MovedOn(
            f"{hook.value}: {gone} replaced a filter that was being deleted; it was put back"
        )

    def _unpin(self, path: str) -> None:
        if not self._reader.link_is_dead(path):
            raise _MovedOn(f"{path} is no longer a dead pin")
        bpf.unpin(path)

    def _take_back(self) -> None:
        """Remove our copies where another program of Calico enforces; never the last one."""
        for hook, copy in self._copies:
            seen = self._read(hook)
            attached = kernel_rules.find(seen, copy.slot)
            if attached is None or attached.program_id != copy.program_id:
                continue
            if any(a.calico and a.enforces and a is not attached for a in seen):
                self._take_back_one(hook, attached)

    def _take_back_one(self, hook: Hook, copy: Attachment) -> None:
        try:
            self._delete(hook, copy)
        except KernelError as error:
            # It only doubles the running program; the next plan, or the next run, removes it.
            self.notes.append(f"{hook.value}: our copy {copy} could not be removed: {error}")
        else:
            self.done.append(Step(Action.DELETE, hook, copy))

    def _give_way(self, endpoint: Endpoint, error: KernelError) -> None:
        """Remove our copies, and return only if the refusal is permanent.

        :raises _Vanished, _MovedOn: another program's change caused ``error``.
        """
        if error.errno == errno.ENODEV:
            raise _Vanished from error
        moved = any(self._read(h) != _without_load_times(endpoint.at(h)) for h in HOOKS)
        self._take_back()
        if moved or error.errno in _SOMEONE_ELSE:
            raise _MovedOn(str(error)) from error


def _without_load_times(attachments: Attachments) -> Attachments:
    return tuple(a._replace(loaded_at=0) if a.loaded_at else a for a in attachments)


def _listed(attachments: Attachments) -> str:
    return ", ".join(str(a) for a in attachments) or "nothing"
