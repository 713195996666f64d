# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and lines of others, as they are shown."""

from __future__ import annotations

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.visible import (
    all_visible,
    visible,
)


def test_invisible_characters_are_escaped() -> None:
    assert visible("a\tb\nü") == "a\tb\nü"
    assert (
        visible("\x00\x1b\x7f\x9b\u202e\u2066\udc80") == "\\x00\\x1b\\x7f\\x9b\\x202e\\x2066\\udc80"
    )


def test_every_text_of_a_result_is_made_visible() -> None:
    result = {"changed": True, "endpoints": [{"cali\x1b[2J": ("\x07", 1, None)}], "ms": 1.5}
    shown = {"changed": True, "endpoints": [{"cali\\x1b[2J": ["\\x07", 1, None]}], "ms": 1.5}
    assert all_visible(result) == shown
