# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The constants of preambles, in the layouts that were measured at the releases' tags."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.preamble import (
    Jumps,
    decode,
)
from ansible_collections.dataplane.calico_bpf.tests.support.felix.preamble import (
    LAYOUTS,
    V3_28,
    constants,
)

JUMPS = {0: 7, 1: 12, 2: 8, 11: 9}
NOTHING = Jumps(main=None, policy=None, others=())


@pytest.mark.parametrize("release", LAYOUTS)
@pytest.mark.parametrize("interface", ["cali0123456789a", "cali1", "eth0.7"])
def test_the_layout_of_each_release(release: str, interface: str) -> None:
    layout = LAYOUTS[release]
    wanted = (Jumps(main=7, policy=12, others=(8, 9)), NOTHING)
    assert decode(constants(layout, interface, JUMPS), interface) == wanted[: layout.versions]


def test_both_ip_versions() -> None:
    found = decode(constants(V3_28, "cali1", JUMPS, {0: 20, 1: 0}), "cali1")
    assert found[1] == Jumps(main=20, policy=0, others=())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        constants(V3_28, "cali2", JUMPS),
        constants(V3_28, "cali1", JUMPS)[:-4],
        constants(V3_28, "cali1", JUMPS) + bytes(4),
        constants(V3_28, "cali1", JUMPS) * 2,
        bytes(2) + constants(V3_28, "cali1", JUMPS),
    ],
    ids=["none", "another interface", "short", "long", "four", "shifted"],
)
def test_another_layout_has_no_known_jumps(data: bytes) -> None:
    assert decode(data, "cali1") == ()


@given(st.binary(max_size=700), st.integers(0, 600))
def test_any_bytes_are_decoded_or_unknown(data: bytes, at: int) -> None:
    named = data[:at] + b"cali1----------\0" + data[at:]
    for jumps in decode(named, "cali1"):
        assert len(jumps.others) <= 38
