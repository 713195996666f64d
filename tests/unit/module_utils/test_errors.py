# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages of a readable size, whatever other programs say."""

from __future__ import annotations

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import (
    ProgramRefused,
    beginning_of,
    end_of,
)


def test_a_short_text_is_quoted_whole() -> None:
    assert beginning_of("abc", 3) == end_of("abc", 3) == "abc"


def test_a_long_text_is_cut_with_a_mark() -> None:
    assert beginning_of("abcde", 3) == "abc [... 2 more characters]"
    assert end_of("abcde", 3) == "[2 characters before ...] cde"


def test_the_verifiers_last_words_are_in_the_message_and_all_of_them_in_the_result() -> None:
    log = "0: (b7) r0 = 0\n" * 50_000 + "R0 invalid mem access"
    error = ProgramRefused("the kernel refused program x", log)
    assert str(error).endswith("R0 invalid mem access")
    assert len(str(error)) < 5_000
    assert error.facts["verifier_log"] == log
