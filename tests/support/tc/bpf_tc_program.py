# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources, options and endpoints for the tests of bpf_tc_program."""

from __future__ import annotations

from itertools import count
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import (
    CHECKOUT,
    Lab,
)

MODULE = "bpf_tc_program"
SOURCES = CHECKOUT / "tests/support/tc/programs"
TEXT = "int from_text(struct __sk_buff *skb) { return skb->len > 9000 ? 2 : -1; }"
Result = dict[str, Any]
Options = dict[str, Any]
_serial = count(1)


def endpoint(lab: Lab, *, clsact: bool = True) -> str:
    return lab.endpoint(f"cali{next(_serial)}", clsact=clsact)
