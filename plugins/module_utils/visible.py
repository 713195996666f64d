# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text that is shown to a person: names and lines of others may hold anything.

With control characters, and those that change the direction of text, the name of a filter or of a
pod could overwrite the reader's terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_HIDDEN = [*range(0x20), 0x7F, *range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_VISIBLE = {code: f"\\x{code:02x}" for code in _HIDDEN if chr(code) not in "\n\t"}


def visible(text: str) -> str:
    """``text`` with invisible characters and bytes that are not UTF-8 escaped.

    Tabs and newlines stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return text.translate(_VISIBLE).encode("utf-8", "backslashreplace").decode("utf-8")


def all_visible(value: Any) -> Any:
    """``value`` with every text in it, and every key, made visible."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {all_visible(key): all_visible(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [all_visible(one) for one in value]
    return value
