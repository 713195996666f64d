# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Missing capabilities are named before anything is touched."""

from __future__ import annotations

import io

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import Refusal
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel import privilege

NET_ADMIN, SYS_ADMIN = 1 << 12, 1 << 21


def status_says(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(privilege, "open", lambda *_, **__: io.StringIO(text), raising=False)


@pytest.mark.parametrize(
    ("capabilities", "missing"),
    [
        (0, "CAP_NET_ADMIN and CAP_SYS_ADMIN"),
        (NET_ADMIN, "CAP_SYS_ADMIN"),
        (SYS_ADMIN, "CAP_NET_ADMIN"),
        (~(NET_ADMIN | SYS_ADMIN) & 0x1FFFFFFFFFF, "CAP_NET_ADMIN and CAP_SYS_ADMIN"),
    ],
)
def test_missing_capabilities_are_named(
    monkeypatch: pytest.MonkeyPatch, capabilities: int, missing: str
) -> None:
    status_says(monkeypatch, f"Name:\tpython3\nCapPrm:\t{0:016x}\nCapEff:\t{capabilities:016x}\n")
    with pytest.raises(Refusal, match=f"state=consistent needs {missing}, .*nothing was changed"):
        privilege.require_for_writing("state=consistent")


def test_both_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    status_says(monkeypatch, f"CapEff:\t{NET_ADMIN | SYS_ADMIN:016x}\n")
    privilege.require_for_writing("anything")


def test_a_status_without_capabilities_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    status_says(monkeypatch, "Name:\tpython3\n")
    with pytest.raises(Refusal, match="shows no CapEff"):
        privilege.require_for_writing("anything")
