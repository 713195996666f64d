# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Felix's work on a workload interface, replayed with the calls that Felix itself makes.

Transcribed from projectcalico/calico, at v3.28.1, v3.29.1, v3.29.5 and v3.31.0 (replace,
TCX): felix/bpf/tc/attach.go (AttachProgram, attachTCXProgram, listAttachedPrograms,
findFilterPriority, detachPrograms, ExecTC, EnsureQdisc), felix/bpf/libbpf/libbpf_api.h
(bpf_tc_program_attach, bpf_tc_create_qdisc) and felix/dataplane/linux/bpf_ep_mgr.go
(doApplyPolicy). Filters are listed and deleted by forking ``tc`` and attached by libbpf; a Felix
of 3.31 or later lists by netlink, for which ``tc -json`` stands in. It knows nothing of the model
that it is there to check.

Left out: the hooks are done one after the other instead of at once (they share nothing), every pass
re-attaches (as for a dirty endpoint), and the interface is taken to stay.
"""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.tests.support.felix import tcx
from ansible_collections.dataplane.calico_bpf.tests.support.felix.libbpf import (
    HOOKS,
    Slot,
    attach,
    create_clsact,
    loaded,
    remove_clsact,
)
from ansible_collections.dataplane.calico_bpf.tests.support.felix.releases import Behaviour


class FelixError(Exception):
    """What Felix logs after ``error=``."""


class Point(str, Enum):
    """Where a pass may be watched, or ended, at a hook."""

    #: The new program is attached, and what was there before not yet taken away.
    ADDED = "added"
    COMPLETE = "complete"


#: Called with the interface, the hook and how far the pass has come there.
Watch = Callable[[str, str, Point], None]


def _unwatched(_interface: str, _hook: str, _point: Point) -> None:
    pass


@dataclass(frozen=True)
class _AttachedProg:
    """As Felix keeps them: two pieces of the text that tc printed."""

    pref: str
    handle: str


@dataclass(frozen=True)
class Felix:
    """A Felix of one behaviour, at work in the caller's network namespace."""

    behaviour: Behaviour
    #: The object whose cali_tc_preamble it attaches.
    program: Path
    watch: Watch = _unwatched

    def apply_policy(self, interface: str, hooks: tuple[str, ...] = HOOKS) -> None:
        """One pass (doApplyPolicy); ``hooks``: which one first.

        :raises FelixError: the endpoint stays dirty.
        """
        if self.behaviour is not Behaviour.TCX:
            self._ensure_qdisc(interface)
        slots: dict[str, Slot] = {}
        errors: dict[str, FelixError] = {}
        for hook in hooks:
            try:
                slots[hook] = self._attach_program(interface, hook)
            except FelixError as error:
                errors[hook] = error
        # Felix means the policy's direction: its "ingress" is the egress hook of the host's veth,
        # and that one's error is logged if both fail. So said all 254 lines of the real 3.29.1 and
        # 3.29.7; this transcription had it the wrong way round.
        for hook in reversed(HOOKS):
            if hook in errors:
                raise errors[hook]
        if self.behaviour.compares_hooks and slots["ingress"] != slots["egress"]:
            egress, ingress = (f"{{true {slots[h][0]} {slots[h][1]}}}" for h in HOOKS)
            raise FelixError(
                f"ingress qdisc info ({ingress}) does not equal egress qdisc info ({egress})"
            )

    def _ensure_qdisc(self, interface: str) -> None:
        if _has_clsact(interface):
            return
        if self.behaviour is Behaviour.REPLACE and "qdisc ingress" in exec_tc(
            "qdisc", "show", "dev", interface
        ):
            exec_tc("qdisc", "del", "dev", interface, "ingress")
        try:
            create_clsact(interface)
        except OSError as error:
            raise FelixError(f"creating qdisc {_go(error)}") from None

    def _attach_program(self, interface: str, hook: str) -> Slot:
        attached = self._attach_tcx if self.behaviour is Behaviour.TCX else self._attach_tc
        slot = attached(interface, hook)
        self.watch(interface, hook, Point.COMPLETE)
        return slot

    def _attach_tc(self, interface: str, hook: str) -> Slot:
        listed = (
            _list_by_name(interface, hook)
            if self.behaviour is Behaviour.REPLACE
            else _list(interface, hook)
        )
        priority, handle = (
            (0, 0)
            if self.behaviour is Behaviour.ADD_WITHOUT_COMPARE
            else _find_filter_priority(listed)
        )
        adds = self.behaviour in (Behaviour.ADD_WITHOUT_COMPARE, Behaviour.ADD_THEN_DELETE)
        replaces = not adds and priority != 0
        with ExitStack() as stack:
            fd = self._loaded(stack)
            try:
                slot = attach(
                    interface, hook, fd,
                    priority=priority, handle=handle if replaces else 0, replace=replaces,
                )  # fmt: skip
            except OSError as error:
                raise FelixError(f"error attaching tc program {_go(error)}") from None
        self.watch(interface, hook, Point.ADDED)
        if adds:
            _detach_programs(interface, hook, listed)
        if self.behaviour is Behaviour.REPLACE:
            _remove_link(interface, hook)
        return slot

    def _attach_tcx(self, interface: str, hook: str) -> Slot:
        """There is no slot, and nothing is compared."""
        pin = tcx.pin_of(interface, hook)
        with ExitStack() as stack:
            try:
                _attach_or_update(interface, hook, pin, self._loaded(stack))
            except (OSError, FelixError) as error:
                text = error if isinstance(error, FelixError) else _go(error)
                where = f"error attaching tcx program {interface}:{hook}"
                raise FelixError(f"{where}:{text}") from None
        self.watch(interface, hook, Point.ADDED)
        with suppress(OSError, FelixError):  # Felix only logs it
            if _has_clsact(interface):
                remove_clsact(interface)  # and with it what the other hook may still have there
        return 0, 0

    def _loaded(self, stack: ExitStack) -> int:
        try:
            return stack.enter_context(loaded(self.program))
        except OSError as error:
            opening = "opening libbpf object" if error.filename else "loading program:"
            which = (
                ""
                if self.behaviour
                in (
                    Behaviour.ADD_WITHOUT_COMPARE,
                    Behaviour.ADD_THEN_DELETE,
                    Behaviour.REPLACE_AND_COMPARE,
                )
                else f"error loading {_PREAMBLE}: "
            )
            raise FelixError(f"object {which}error {opening} {_go(error)}") from None


#: Where the image has it.
_PREAMBLE = "/usr/lib/calico/bpf/tc_preamble.o"


def _attach_or_update(interface: str, hook: str, pin: Path, program: int) -> None:
    if pin.exists():
        try:
            tcx.update(pin, program)
        except OSError as error:
            if error.errno != errno.ENOLINK:
                raise
            pin.unlink()
        else:
            return
    tcx.attach(interface, hook, program)


def _remove_link(interface: str, hook: str) -> None:
    """What a Felix with TCX left (detachTcxProgram)."""
    pin = tcx.pin_of(interface, hook)
    if pin.exists():
        with suppress(OSError):  # Felix only logs it
            tcx.detach(pin)
        pin.unlink()


def _has_clsact(interface: str) -> bool:
    return "qdisc clsact" in exec_tc("qdisc", "show", "dev", interface, "clsact")


def exec_tc(*args: str) -> str:
    done = subprocess.run(["tc", *args], capture_output=True, text=True, check=False)
    if done.returncode:
        raise FelixError(
            f"failed to execute tc [{' '.join(args)}]: rc={done.returncode} "
            f"stderr={done.stderr} (exit status {done.returncode})"
        )
    return done.stdout


def _list(interface: str, hook: str) -> list[_AttachedProg]:
    """listAttachedPrograms(includeLegacy=true) up to v3.30: every line with one of the words."""
    listed = []
    for line in exec_tc("filter", "show", "dev", interface, hook).split("\n"):
        if "cali_tc_preambl" in line or "calico" in line:
            found = re.search(r"pref ([^ ]+) .* handle ([^ ]+)", line)
            if found:
                listed.append(_AttachedProg(found[1], found[2]))
    return listed


def _list_by_name(interface: str, hook: str) -> list[_AttachedProg]:
    """ListAttachedPrograms from v3.31 on: by the filter's name (TCA_BPF_NAME) alone."""
    shown = json.loads(exec_tc("-json", "filter", "show", "dev", interface, hook) or "[]")
    return [
        _AttachedProg(str(f["pref"]), str(f["options"]["handle"]))
        for f in shown
        if f["kind"] == "bpf" and _has_calicos_name(f.get("options", {}).get("bpf_name", ""))
    ]


def _has_calicos_name(name: str) -> bool:
    return "cali_tc_preambl" in name or "calico" in name


def _find_filter_priority(listed: list[_AttachedProg]) -> Slot:
    """The highest priority, with the handle of the first filter listed there; (0, 0) for none."""
    highest = (0, 0)
    for found in listed:
        if int(found.pref) > highest[0]:
            highest = int(found.pref), int(found.handle, 16)
    return highest


def _detach_programs(interface: str, hook: str, listed: list[_AttachedProg]) -> None:
    errors = []
    for old in listed:
        slot = ("pref", old.pref, "handle", old.handle)
        try:
            exec_tc("filter", "del", "dev", interface, hook, *slot, "bpf")
        except FelixError as error:
            errors.append(str(error))
    if errors:
        raise FelixError(
            f"failed to clean up one or more old calico programs: [{' '.join(errors)}]"
        )


def _go(error: OSError) -> str:
    """Go's words for an errno, which are the C library's in lower case."""
    return os.strerror(error.errno or 0).lower()
