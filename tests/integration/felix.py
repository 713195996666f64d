# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Felix's work on a workload interface, replayed with the calls that Felix itself makes.

Transcribed from projectcalico/calico, at v3.29.1 (era B), v3.29.5 (era C) and v3.31.0 (era D):
felix/bpf/tc/attach.go (AttachProgram, listAttachedPrograms, findFilterPriority, detachPrograms,
ExecTC, EnsureQdisc), felix/bpf/libbpf/libbpf_api.h (bpf_tc_program_attach, bpf_tc_create_qdisc)
and felix/dataplane/linux/bpf_ep_mgr.go (doApplyPolicy). Filters are listed and deleted by forking
``tc`` and attached by libbpf; a Felix of era D lists by netlink, for which ``tc -json`` stands in.
It knows nothing of the model that it is there to check.

Left out: the hooks are done one after the other instead of at once (they share nothing), every pass
re-attaches (as for a dirty endpoint), and the interface is taken to stay.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import Era, Outlook
from ansible_collections.dataplane.calico_bpf.tests.integration.lab import Lab

HOOKS = ("ingress", "egress")
Slot = tuple[int, int]

# --- libbpf ---------------------------------------------------------------------------------------

_libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
_libbpf.libbpf_set_print(None)  # it writes the kernel's refusals to stderr
for _name in ("bpf_object__open", "bpf_object__find_program_by_name"):
    getattr(_libbpf, _name).restype = ctypes.c_void_p
_TC_F_REPLACE = 1


class _TcHook(ctypes.Structure):
    """struct bpf_tc_hook"""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("ifindex", ctypes.c_int),
        ("attach_point", ctypes.c_int),
        ("parent", ctypes.c_uint32),
    )


class _TcOptions(ctypes.Structure):
    """struct bpf_tc_opts"""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("prog_fd", ctypes.c_int),
        ("flags", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("handle", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
    )


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def _tc_hook(interface: str, hook: str) -> _TcHook:
    attach_point = 1 << HOOKS.index(hook)
    return _TcHook(ctypes.sizeof(_TcHook), socket.if_nametoindex(interface), attach_point, 0)


@contextmanager
def loaded(path: Path, program: str = "cali_tc_preamble") -> Iterator[int]:
    """A fresh copy of an object's program: its fd."""
    opened = ctypes.c_void_p(_libbpf.bpf_object__open(os.fsencode(path)))
    if not opened:
        raise OSError(ctypes.get_errno(), f"open {path}")
    try:
        _checked(_libbpf.bpf_object__load(opened))
        found = _libbpf.bpf_object__find_program_by_name(opened, program.encode())
        yield _checked(_libbpf.bpf_program__fd(ctypes.c_void_p(found)))
    finally:
        _libbpf.bpf_object__close(opened)


def attach(
    interface: str, hook: str, fd: int, *, priority: int = 0, handle: int = 0, replace: bool = False
) -> Slot:
    """bpf_tc_attach: in direct-action mode, for all protocols, in chain 0; 0 is "you choose".

    :raises OSError: with the kernel's errno.
    """
    flags = _TC_F_REPLACE if replace else 0
    options = _TcOptions(ctypes.sizeof(_TcOptions), fd, flags, 0, handle, priority)
    where = _tc_hook(interface, hook)
    _checked(_libbpf.bpf_tc_attach(ctypes.byref(where), ctypes.byref(options)))
    return options.priority, options.handle


def create_clsact(interface: str) -> None:
    """:raises OSError: EEXIST where an ingress qdisc sits in its place."""
    _checked(_libbpf.bpf_tc_hook_create(ctypes.byref(_tc_hook(interface, "ingress"))))


# --- Felix ----------------------------------------------------------------------------------------


class FelixError(Exception):
    """What Felix logs after ``error=``."""


@dataclass(frozen=True)
class _AttachedProg:
    """As Felix keeps them: two pieces of the text that tc printed."""

    pref: str
    handle: str


@dataclass(frozen=True)
class Felix:
    """A Felix of one era, at work in a lab's namespace."""

    lab: Lab
    era: Era

    def passes(self, interface: str, count: int = 8) -> list[str | None]:
        """So many passes, as of its retry ticker: for each the line that it logs, None for none."""
        with entered(self.lab.netns):
            return [self._apply_policy(interface) for _unused in range(count)]

    def _apply_policy(self, interface: str) -> str | None:
        """applyPolicy: the line without its prefix, and without the ``wepID`` that would follow."""
        try:
            self._do_apply_policy(interface)
        except FelixError as error:
            sentence = "Failed to apply policy to endpoint, leaving it dirty"
            return f'{sentence} error={error} name="{interface}"'
        return None

    def _do_apply_policy(self, interface: str) -> None:
        self._ensure_qdisc(interface)
        slots: list[Slot] = []
        errors: list[FelixError] = []
        for hook in HOOKS:
            try:
                slots.append(self._attach_program(interface, hook))
            except FelixError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        if self.era is not Era.D and slots[0] != slots[1]:
            ingress, egress = (f"{{true {priority} {handle}}}" for priority, handle in slots)
            raise FelixError(
                f"ingress qdisc info ({ingress}) does not equal egress qdisc info ({egress})"
            )

    def _ensure_qdisc(self, interface: str) -> None:
        if "qdisc clsact" in _exec_tc("qdisc", "show", "dev", interface, "clsact"):
            return
        if self.era is Era.D and "qdisc ingress" in _exec_tc("qdisc", "show", "dev", interface):
            _exec_tc("qdisc", "del", "dev", interface, "ingress")
        try:
            create_clsact(interface)
        except OSError as error:
            raise FelixError(f"creating qdisc {_go(error)}") from None

    def _attach_program(self, interface: str, hook: str) -> Slot:
        listed = _list_by_name(interface, hook) if self.era is Era.D else _list(interface, hook)
        priority, handle = _find_filter_priority(listed)
        replaces = self.era is not Era.B and priority != 0
        with loaded(self.lab.objects / "allow.o") as fd:
            try:
                slot = attach(
                    interface, hook, fd,
                    priority=priority, handle=handle if replaces else 0, replace=replaces,
                )  # fmt: skip
            except OSError as error:
                raise FelixError(f"error attaching tc program {_go(error)}") from None
        if self.era is Era.B:
            _detach_programs(interface, hook, listed)
        return slot


def witnessed(lines: list[str | None]) -> tuple[Outlook, str | None]:
    """What a series of passes comes to, and, where it never heals, the first line logged.

    ok: every pass went well. stuck: from some pass on, none did. heals: the rest.
    """
    if not any(lines):
        return Outlook.OK, None
    if all(lines[len(lines) // 2 :]):
        return Outlook.STUCK, next(line for line in lines if line)
    return Outlook.HEALS, None


def _exec_tc(*args: str) -> str:
    done = subprocess.run(["tc", *args], capture_output=True, text=True, check=False)
    if done.returncode:
        raise FelixError(
            f"failed to execute tc [{' '.join(args)}]: rc={done.returncode} "
            f"stderr={done.stderr} (exit status {done.returncode})"
        )
    return done.stdout


def _list(interface: str, hook: str) -> list[_AttachedProg]:
    """listAttachedPrograms(includeLegacy=true) up to v3.30: whatever line has one of the words."""
    listed = []
    for line in _exec_tc("filter", "show", "dev", interface, hook).split("\n"):
        if "cali_tc_preambl" in line or "calico" in line:
            found = re.search(r"pref ([^ ]+) .* handle ([^ ]+)", line)
            if found:
                listed.append(_AttachedProg(found[1], found[2]))
    return listed


def _list_by_name(interface: str, hook: str) -> list[_AttachedProg]:
    """ListAttachedPrograms from v3.31 on: by the filter's name (TCA_BPF_NAME) alone."""
    shown = json.loads(_exec_tc("-json", "filter", "show", "dev", interface, hook) or "[]")
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
            _exec_tc("filter", "del", "dev", interface, hook, *slot, "bpf")
        except FelixError as error:
            errors.append(str(error))
    if errors:
        raise FelixError(
            f"failed to clean up one or more old calico programs: [{' '.join(errors)}]"
        )


def _go(error: OSError) -> str:
    """Go's words for an errno, which are the C library's in lower case."""
    return os.strerror(error.errno or 0).lower()
