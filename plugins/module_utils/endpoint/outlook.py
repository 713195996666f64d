# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The effect of Felix on an endpoint: its re-attach algorithms, replayed on the kernel's rules.

Sources, all in projectcalico/calico: felix/bpf/tc/attach.go (AttachProgram, listAttachedPrograms,
findFilterPriority, detachPrograms) at v3.28.1 (add_without_compare), v3.29.1 (add_then_delete),
v3.29.5 (replace_and_compare) and v3.31.0 (replace);
felix/bpf/libbpf/libbpf_api.h (bpf_tc_program_attach) and felix/dataplane/linux/bpf_ep_mgr.go
(doApplyPolicy) at the same tags. tests/integration/test_outlook.py replays the same algorithms with
libbpf and tc on the running kernel and requires the same results.
"""

from __future__ import annotations

import errno
from functools import lru_cache

from ..model import (
    PREAMBLE,
    Attachment,
    Attachments,
    AttachType,
    Behaviour,
    Endpoint,
    Hook,
    Outlook,
    Qdisc,
    Slot,
    named_by_calico,
)
from . import kernel_rules

#: Placeholder for the interface's name in an error that is computed once for equal endpoints.
_INTERFACE = "{interface}"
#: Every known sequence of passes repeats after a few states.
_MOST_PASSES = 64
#: But add_without_compare takes a lower priority at each pass, down to 32768.
_COUNTED_PASSES = 8
_COMPARING = (Behaviour.ADD_THEN_DELETE, Behaviour.REPLACE_AND_COMPARE)

#: Go's texts for an errno (syscall.Errno.Error), as in Felix's log.
_GO_ERRNO = {
    errno.EINVAL: "invalid argument",
    errno.EEXIST: "file exists",
    errno.ENOSPC: "no space left on device",
}


class FelixError(Exception):
    """A pass failed; the text is what Felix logs after ``error=``.

    ``filters``: the hook after the failed pass.
    """

    def __init__(self, text: str, filters: Attachments) -> None:
        super().__init__(text)
        self.filters = filters


def _new_filter(slot: Slot) -> Attachment:
    return Attachment(
        attach_type=AttachType.TC,
        priority=slot.priority,
        handle=slot.handle,
        program_id=0,
        name=PREAMBLE,
        tag="",
        direct_action=True,
        calico=True,
    )


def _attach_error(refused: kernel_rules.Refused, filters: Attachments) -> FelixError:
    return FelixError(f"error attaching tc program {_GO_ERRNO[refused.errno]}", filters)


def _add_then_delete(
    filters: Attachments, hook: Hook, *, keeps_priority: bool
) -> tuple[Attachments, Slot]:
    """A new filter, at Calico's highest priority if that is kept; every listed one is deleted."""
    listed = [f for f in filters if f.calico]
    try:
        highest = max((f.priority for f in listed), default=0) if keeps_priority else 0
        priority = highest or kernel_rules.auto_priority(filters)
        slot = Slot(priority, kernel_rules.free_handle(filters, priority))
        filters = kernel_rules.add(filters, _new_filter(slot))
    except kernel_rules.Refused as refused:
        raise _attach_error(refused, filters) from None
    failures = []
    for old in listed:
        try:
            # Felix names no chain, so tc searches chain 0, wherever the listed filter is.
            filters = kernel_rules.delete(filters, old.slot)
        except kernel_rules.Refused as refused:
            failures.append(_tc_delete_error(hook, old.slot, refused))
    if failures:
        text = "failed to clean up one or more old calico programs: [" + " ".join(failures) + "]"
        raise FelixError(text, filters)
    return filters, slot


def _tc_delete_error(hook: Hook, slot: Slot, refused: kernel_rules.Refused) -> str:
    words = f"filter del dev {_INTERFACE} {hook.value} pref {slot.priority} handle {slot.handle:#x}"
    stderr = f"Error: {refused}.\nWe have an error talking to the kernel\n"
    return f"failed to execute tc [{words} bpf]: rc=2 stderr={stderr} (exit status 2)"


def _replace(filters: Attachments, behaviour: Behaviour) -> tuple[Attachments, Slot]:
    """The first listed filter at Calico's highest priority is replaced."""
    listed = [
        f
        for f in filters
        if f.calico and (behaviour is Behaviour.REPLACE_AND_COMPARE or named_by_calico(f.name))
    ]
    try:
        if listed:
            slot = max(listed, key=lambda f: f.priority).slot
        else:
            priority = kernel_rules.auto_priority(filters)
            slot = Slot(priority, kernel_rules.free_handle(filters, priority))
        return kernel_rules.replace(filters, _new_filter(slot)), slot
    except kernel_rules.Refused as refused:
        raise _attach_error(refused, filters) from None


def felix_pass(filters: Attachments, behaviour: Behaviour, hook: Hook) -> tuple[Attachments, Slot]:
    """One re-attach at one hook: the filters afterwards, and the slot of the new one.

    :raises FelixError: Felix would log an error.
    """
    if behaviour in (Behaviour.ADD_WITHOUT_COMPARE, Behaviour.ADD_THEN_DELETE):
        keeps_priority = behaviour is Behaviour.ADD_THEN_DELETE
        return _add_then_delete(filters, hook, keeps_priority=keeps_priority)
    return _replace(filters, behaviour)


def _both_hooks(
    ingress: Attachments, egress: Attachments, behaviour: Behaviour
) -> tuple[Attachments, Attachments, str | None]:
    """One pass of doApplyPolicy over an endpoint: the hooks afterwards, and the logged error.

    Felix names the hooks by the policy's direction: its "ingress" is the egress hook of the host's
    veth. If both hooks fail, it logs the error of that one (254 lines of the real 3.29.1 and 3.29.7
    agree).
    """
    after: dict[Hook, Attachments] = {}
    slots: dict[Hook, Slot] = {}
    error: str | None = None
    for hook, filters in ((Hook.EGRESS, egress), (Hook.INGRESS, ingress)):
        try:
            after[hook], slots[hook] = felix_pass(filters, behaviour, hook)
        except FelixError as failed:
            after[hook] = failed.filters
            error = error or str(failed)
    if error is None and behaviour in _COMPARING and slots[Hook.INGRESS] != slots[Hook.EGRESS]:
        i, e = slots[Hook.INGRESS], slots[Hook.EGRESS]
        error = (
            f"ingress qdisc info ({{true {e.priority} {e.handle}}}) does not equal "
            f"egress qdisc info ({{true {i.priority} {i.handle}}})"
        )
    return after[Hook.INGRESS], after[Hook.EGRESS], error


def felix_message(error: str, interface: str) -> str:
    """The line that Felix logs, without its prefix and without the ``wepID`` that follows."""
    return f'Failed to apply policy to endpoint, leaving it dirty error={error} name="{interface}"'


def predict(endpoint: Endpoint, behaviour: Behaviour) -> tuple[Outlook, str | None]:
    """The outlook of ``endpoint``, and the line that Felix logs if it never stops failing.

    ``ok``: every pass succeeds. ``heals``: from some pass on, every pass succeeds. ``stuck``: from
    some pass on, every pass fails. ``alternates``: else. A pass depends only on slots and
    ownership, so the passes end in a cycle, which is detected; for add_without_compare, eight
    passes are taken for all.
    """
    if endpoint.qdisc is Qdisc.INGRESS:
        # It is in the place of clsact (bpf_tc_hook_create). From 3.30 on EnsureQdisc removes it and
        # its filters; up to 3.29, which the other behaviours include, it does not.
        if behaviour is Behaviour.REPLACE:
            return Outlook.OK, None
        return Outlook.STUCK, felix_message("creating qdisc file exists", endpoint.interface)
    verdict, error = _passes(_plain(endpoint.ingress), _plain(endpoint.egress), behaviour)
    if error is None:
        return verdict, None
    return verdict, felix_message(error.replace(_INTERFACE, endpoint.interface), endpoint.interface)


def _plain(attachments: Attachments) -> Attachments:
    """The filters without the fields that Felix's passes ignore."""
    return tuple(
        a._replace(
            program_id=0, tag="", loaded_at=0, name=PREAMBLE if named_by_calico(a.name) else ""
        )
        for a in attachments
        if a.attach_type is AttachType.TC
    )


@lru_cache(maxsize=4096)
def _passes(
    ingress: Attachments, egress: Attachments, behaviour: Behaviour
) -> tuple[Outlook, str | None]:
    """The outlook of two plain hooks, and the first error if it lasts, for any interface."""
    errors: list[str | None] = []
    seen: dict[tuple[Attachments, Attachments], int] = {}
    counts_down = behaviour is Behaviour.ADD_WITHOUT_COMPARE
    while (ingress, egress) not in seen and not (counts_down and len(errors) == _COUNTED_PASSES):
        seen[ingress, egress] = len(errors)
        ingress, egress, error = _both_hooks(ingress, egress, behaviour)
        errors.append(error)
        if len(errors) > _MOST_PASSES:
            raise AssertionError(f"no cycle after {_MOST_PASSES} passes: {ingress} {egress}")
    if all(error is None for error in errors):
        return Outlook.OK, None
    cycle = errors[seen.get((ingress, egress), _COUNTED_PASSES // 2) :]
    if all(error is None for error in cycle):
        return Outlook.HEALS, None
    outlook = Outlook.ALTERNATES if None in cycle else Outlook.STUCK
    return outlook, next(error for error in errors if error is not None)
