# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's rules for the filters at one hook, as pure functions.

A hook's filters are a tuple in the order of the kernel's dump: chain by chain, by rising priority,
and inside one priority the newest first, which is also the order in which packets pass them.
Sources: net/sched/cls_api.c (tc_new_tfilter, tcf_chain_tp_find, tcf_auto_prio) and
net/sched/cls_bpf.c (cls_bpf_change); tests/integration/test_kernel_rules.py compares every rule
with the running kernel.
"""

from __future__ import annotations

import errno

from ..model import ETH_P_ALL, FIRST_AUTO_PRIORITY, Attachment, Attachments, Slot

#: Where the kernel starts to look when it picks a priority (0x80000000 >> 16).
_AUTO_SEARCH_FROM = 32768


class Refused(Exception):
    """The kernel would return ``errno``, and its text if it has one."""

    def __init__(self, number: int, text: str = "") -> None:
        super().__init__(text or errno.errorcode[number])
        self.errno = number


def find(filters: Attachments, slot: Slot, chain: int = 0) -> Attachment | None:
    for f in filters:
        if (f.priority, f.handle) == slot and f.chain == chain:
            return f
    return None


def free_handle(filters: Attachments, priority: int) -> int:
    """The handle that the kernel gives at ``priority``: the lowest that no filter has."""
    taken = {f.handle for f in filters if f.priority == priority and f.chain == 0}
    handle = 1
    while handle in taken:
        handle += 1
    return handle


def auto_priority(filters: Attachments) -> int:
    """The priority that the kernel picks: 49152, or one below the first at or above 32768.

    :raises Refused: ENOSPC if that first one is 32768 itself (up to kernel 6.12 EINVAL).
    """
    used = [f.priority for f in filters if f.chain == 0 and f.priority >= _AUTO_SEARCH_FROM]
    if not used:
        return FIRST_AUTO_PRIORITY
    if min(used) == _AUTO_SEARCH_FROM:
        raise Refused(errno.ENOSPC)
    return min(used) - 1


def admits(filters: Attachments, priority: int, protocol: int = ETH_P_ALL) -> bool:
    """Whether a cls_bpf filter may join ``priority``: one priority holds one kind and protocol."""
    return all(
        f.kind == "bpf" and f.protocol == protocol
        for f in filters
        if f.priority == priority and f.chain == 0
    )


def add(filters: Attachments, new: Attachment) -> Attachments:
    """Create a filter (NLM_F_CREATE | NLM_F_EXCL) in chain 0.

    :raises Refused: EINVAL for another kind or protocol at the priority, EEXIST for a taken handle.
    """
    if not admits(filters, new.priority, new.protocol):
        raise Refused(errno.EINVAL)
    if find(filters, new.slot) is not None:
        raise Refused(errno.EEXIST)
    for i, f in enumerate(filters):
        if f.chain == 0 and f.priority >= new.priority:
            return (*filters[:i], new, *filters[i:])
    end = max((i + 1 for i, f in enumerate(filters) if f.chain == 0), default=len(filters))
    return (*filters[:end], new, *filters[end:])


def replace(filters: Attachments, new: Attachment) -> Attachments:
    """Create a filter or, at a taken handle, replace it in place (NLM_F_REPLACE)."""
    if not admits(filters, new.priority, new.protocol):
        raise Refused(errno.EINVAL)
    if find(filters, new.slot) is None:
        return add(filters, new)
    return tuple(new if f.slot == new.slot and f.chain == 0 else f for f in filters)


def delete(filters: Attachments, slot: Slot, chain: int = 0) -> Attachments:
    """Delete the cls_bpf filter at exactly ``slot``.

    :raises Refused: there is none; the text is that of tc_del_tfilter (net/sched/cls_api.c).
    """
    in_chain = tuple(f for f in filters if f.chain == chain)
    at_priority = tuple(f for f in in_chain if f.priority == slot.priority)
    if not in_chain:
        raise Refused(errno.ENOENT, "Cannot find specified filter chain")
    if not at_priority:
        raise Refused(errno.ENOENT, "Filter with specified priority/protocol not found")
    if at_priority[0].kind != "bpf":
        raise Refused(errno.EINVAL, "Specified filter kind does not match existing one")
    gone = find(at_priority, slot, chain)
    if gone is None:
        raise Refused(errno.ENOENT, "Specified filter handle not found")
    return tuple(f for f in filters if f is not gone)
