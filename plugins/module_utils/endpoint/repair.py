# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carrying a plan out on the real kernel, one endpoint at a time.

Before and after every write the hook is read and must hold exactly what the kernel's rules say it
should. If anybody else (Felix above all) wrote meanwhile, our own copy is taken back and the
endpoint is planned anew, a bounded number of times. No step leaves a hook without a program that
had one, so being killed between any two is harmless: what is left is one more copy of the running
program, which the next run finds and clears.
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

#: Answers of the kernel that say that someone else was there first, or is there now.
_SOMEONE_ELSE = (errno.EEXIST, errno.ENOENT, errno.EBUSY, errno.EAGAIN)
#: Seconds before the first new plan; doubled for each further one. A forking Felix takes some
#: tens of milliseconds for one endpoint.
_PAUSE = 0.1


@dataclass(frozen=True)
class Outcome:
    """What became of one endpoint.

    ``found`` is the judgement that asked for the repair, ``done`` each step carried out over all
    attempts, ``after`` the endpoint at the end with its judgement (None where it vanished),
    ``notes`` what happened on the way.
    """

    verdict: Verdict
    before: Endpoint
    found: Judgement
    after: Endpoint | None
    left: Judgement | None
    done: Plan = ()
    notes: tuple[str, ...] = ()


class RepairRefused(DataplaneError):
    """The kernel refuses a step for good; ``outcome`` has what was done and what stands."""

    def __init__(self, text: str, outcome: Outcome) -> None:
        super().__init__(text)
        self.outcome = outcome


class _MovedOn(Exception):
    """Someone else changed the endpoint under us; the text says what was seen."""


class _Vanished(Exception):
    """The interface went."""


class Repairer:
    """Repairs endpoints over one socket, in the network namespace that the caller is in."""

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
        """Carry ``found.plan`` out, planning anew under contention.

        :raises RepairRefused: where the kernel refuses a step for good.
        """
        attempt = _Attempt(self._tc, self._reader, self._watchdog)
        try:
            return self._repair(endpoint, found, attempt)
        except _Vanished:
            return Outcome(Verdict.VANISHED, endpoint, found, None, None, *attempt.story())
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
        verdict = _verdict(left, attempt)
        return Outcome(verdict, endpoint, found, now, left, *attempt.story())

    def _refused(
        self, endpoint: Endpoint, found: Judgement, attempt: _Attempt, error: KernelError
    ) -> RepairRefused:
        try:
            now = self._read_again(endpoint)
            holds = "; ".join(f"{hook.value}: {_listed(now.at(hook))}" for hook in HOOKS)
        except (_Vanished, KernelError) as again:
            now, holds = endpoint, f"what could not be read again ({again or 'it vanished'})"
        done = "; ".join(str(step) for step in attempt.done) or "nothing"
        return RepairRefused(
            f"{endpoint.interface}: {error}. Done before: {done}. The endpoint now holds {holds}. "
            "Both hooks keep the programs they had; run again once the cause is gone",
            Outcome(
                Verdict.DRIFTED, endpoint, found, now, judge(now, self._policy), *attempt.story()
            ),
        )

    def _sure(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint itself; with a bare hook only if its interface is there.

        The hooks of an interface that just went read as bare too.

        :raises _Vanished:
        """
        bare = not (endpoint.ingress and endpoint.egress)
        if bare and not self._reader.is_present(endpoint):
            raise _Vanished
        return endpoint

    def _still(self, endpoint: Endpoint, pause: float) -> Endpoint:
        """The endpoint once it holds still for ``pause`` seconds, or as it is after some tries.

        A Felix in the middle of its pass has yet to delete what it listed before; what we moved
        then might be hit.

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
        """:raises _Vanished: where the interface went, or came back as another."""
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
    """The writes at one endpoint, each held against the model, and their story."""

    def __init__(self, tc: TcSocket, reader: Reader, watchdog: Watchdog | None) -> None:
        self._tc = tc
        self._reader = reader
        self._watchdog = watchdog
        self._endpoint = Endpoint("", 0, Qdisc.NONE)
        self._copies: list[tuple[Hook, Attachment]] = []
        self.done: list[Step] = []
        self.notes: list[str] = []
        #: A program that Felix had just attached was deleted and could not be put back.
        self.harmed = False

    def story(self) -> tuple[Plan, tuple[str, ...]]:
        return tuple(self.done), tuple(self.notes)

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
                f"{hook.value} changed under the repair: expected {_listed(expected)}, "
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
        """:raises _MovedOn: where the kernel's echo tells of another program than ``a``'s."""
        ifindex = self._endpoint.ifindex
        raw = self._tc.delete_filter(ifindex, hook, a.priority, a.handle, a.chain)
        if raw is None:
            return
        gone = self._reader.attachment(raw)
        if gone.program_id != a.program_id:
            self._put_back(hook, gone)

    def _put_back(self, hook: Hook, gone: Attachment) -> None:
        """Undo a delete that hit a program which took the place since the last reading.

        Its last reference goes only after an RCU grace period, so it can still be opened.
        """
        try:
            if not (gone.kind == "bpf" and gone.direct_action and gone.protocol == ETH_P_ALL):
                raise KernelError("attach it as it was", errno.EOPNOTSUPP)
            self._add(hook, gone)
        except KernelError as error:
            self.harmed = True
            raise _MovedOn(
                f"{hook.value}: {gone} was attached in the instant before a delete at its place, "
                f"went with it, and could not be put back ({error}); the former program still "
                "enforces. Whoever attached it must do so again; if it is Felix's, restart this "
                "node's calico-node pod"
            ) from error
        raise _MovedOn(f"{hook.value}: {gone} took the place of a filter being deleted; put back")

    def _unpin(self, path: str) -> None:
        if not self._reader.link_is_dead(path):
            raise _MovedOn(f"{path} is no dead pin any more")
        bpf.unpin(path)

    def _take_back(self) -> None:
        """Remove our copies where another program of Calico's stands; never the last one."""
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
            # It only doubles the running program; the next plan, or the next run, clears it.
            self.notes.append(f"{hook.value}: our copy {copy} could not be taken back: {error}")
        else:
            self.done.append(Step(Action.DELETE, hook, copy))

    def _give_way(self, endpoint: Endpoint, error: KernelError) -> None:
        """Take our copies back, and tell a change under our feet from a refusal that stays.

        :raises _Vanished, _MovedOn: where ``error`` is but a sign of someone else's doing.
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
