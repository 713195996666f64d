# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's rules for the filters at one hook."""

from __future__ import annotations

import errno

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint import kernel_rules
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import Attachment, Slot
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.build import (
    at,
    foreign,
    listed,
    ours,
    u32,
)


@pytest.mark.parametrize(
    ("taken", "free"), [((), 1), ((1,), 2), ((2,), 1), ((1, 2), 3), ((1, 3), 2), ((2, 3), 1)]
)
def test_the_lowest_free_handle_is_given(taken: tuple[int, ...], free: int) -> None:
    assert kernel_rules.free_handle(at(*taken), 49152) == free


def test_only_handles_of_the_same_priority_and_chain_are_taken() -> None:
    assert kernel_rules.free_handle((foreign(49152, 1),), 49152) == 2
    assert kernel_rules.free_handle((ours(1, priority=49151),), 49152) == 1
    assert kernel_rules.free_handle((ours(1, chain=5),), 49152) == 1


@pytest.mark.parametrize(
    ("used", "given"),
    [
        ((), 49152),
        ((1, 32767), 49152),
        ((49152,), 49151),
        ((65535,), 65534),
        ((40000, 49152), 39999),
        ((32769,), 32768),
    ],
)
def test_the_priority_that_the_kernel_picks(used: tuple[int, ...], given: int) -> None:
    assert kernel_rules.auto_priority(listed(*map(foreign, used))) == given


def test_no_priority_is_left_below_32768() -> None:
    with pytest.raises(kernel_rules.Refused) as refused:
        kernel_rules.auto_priority((foreign(32768),))
    assert refused.value.errno == errno.ENOSPC


def test_a_lower_priority_runs_first_and_inside_one_the_newest() -> None:
    first, second, low, high = ours(1), ours(2), foreign(10), foreign(50000)
    assert listed(first, high, low, second) == (low, second, first, high)


def test_chain_0_stays_together() -> None:
    aside, new = ours(1, chain=5), ours(1)
    assert kernel_rules.add((aside,), new) == (aside, new)
    assert kernel_rules.add((ours(1), aside), ours(2)) == (ours(2), ours(1), aside)
    assert kernel_rules.add((foreign(1), aside), new) == (foreign(1), new, aside)


@pytest.mark.parametrize(
    ("present", "number"),
    [
        (ours(1), errno.EEXIST),
        (foreign(49152, 1), errno.EEXIST),
        (ours(2, protocol=0x0800), errno.EINVAL),
        (u32(49152), errno.EINVAL),
    ],
    ids=["taken", "taken by a foreign filter", "another protocol", "another kind"],
)
def test_what_the_kernel_refuses(present: Attachment, number: int) -> None:
    with pytest.raises(kernel_rules.Refused) as refused:
        kernel_rules.add((present,), ours(1, 11))
    assert refused.value.errno == number


def test_filters_of_another_chain_do_not_conflict() -> None:
    aside = ours(1, chain=5, protocol=0x0800)
    assert kernel_rules.add((aside,), ours(1)) == (aside, ours(1))


def test_a_replace_swaps_where_the_filter_stands() -> None:
    filters = listed(ours(1, 10), ours(2, 11))
    assert kernel_rules.replace(filters, ours(1, 12)) == (ours(2, 11), ours(1, 12))
    assert kernel_rules.replace(filters, ours(3, 12)) == (ours(3, 12), *filters)
    with pytest.raises(kernel_rules.Refused):
        kernel_rules.replace((u32(49152, 1),), ours(1))


def test_a_change_needs_a_filter_to_replace() -> None:
    filters = listed(ours(1, 10), ours(2, 11))
    assert kernel_rules.change(filters, ours(1, 12)) == (ours(2, 11), ours(1, 12))
    for present, new, number in (
        (filters, ours(3, 12), errno.ENOENT),
        (filters, ours(1, 12, 100), errno.ENOENT),
        ((ours(1, chain=5),), ours(1, 12), errno.ENOENT),
        ((u32(49152, 1),), ours(1), errno.EINVAL),
        ((ours(1, protocol=0x0800),), ours(1), errno.EINVAL),
    ):
        with pytest.raises(kernel_rules.Refused) as refused:
            kernel_rules.change(present, new)
        assert refused.value.errno == number


def test_a_delete_takes_one_filter_of_one_chain() -> None:
    filters = (ours(2), ours(1), ours(1, chain=5))
    assert kernel_rules.delete(filters, Slot(49152, 1)) == (ours(2), ours(1, chain=5))
    assert kernel_rules.delete(filters, Slot(49152, 1), chain=5) == (ours(2), ours(1))
    with pytest.raises(kernel_rules.Refused) as refused:
        kernel_rules.delete(filters, Slot(49152, 3))
    assert refused.value.errno == errno.ENOENT
