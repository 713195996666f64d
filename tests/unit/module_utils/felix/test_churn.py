# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes counted by interface."""

from __future__ import annotations

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.felix.churn import (
    Churn,
    Count,
    Interface,
)


def test_changes_are_counted_by_interface_and_process() -> None:
    count = Count()
    for interface, attached, by in [
        ("cali2", True, "unknown"), ("cali2", False, "tc"), ("cali2", True, "unknown"),
        ("cali1", False, "gone"),
    ]:  # fmt: skip
        count.add(interface, attached, by)
    assert count.over(12.0, overrun=True) == Churn(
        seconds=12.0,
        changes=4,
        per_minute=20.0,
        interfaces=(
            Interface("cali1", 0, 1, ["gone"]),
            Interface("cali2", 2, 1, ["tc", "unknown"]),
        ),
        overrun=True,
    )


def test_calm() -> None:
    assert Count().over(0.5, overrun=False) == Churn(
        seconds=0.5, changes=0, per_minute=0.0, interfaces=(), overrun=False
    )
