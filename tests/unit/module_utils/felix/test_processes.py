# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which command lines are Felix's: node/filesystem/etc/service/available/felix/run."""

from __future__ import annotations

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.felix.processes import is_felix


@pytest.mark.parametrize(
    "line", ["calico-node -felix", "/bin/calico-node --felix", "calico component felix"]
)
def test_felix(line: str) -> None:
    assert is_felix(line.split())


@pytest.mark.parametrize(
    "line",
    [
        "calico-node -felix-ready -bird-ready",
        "/bin/calico-node -felix-live",
        "calico-node -confd",
        "runsv felix",
        "grep calico-node -felix",
        "calico component confd",
        "",
    ],
)
def test_what_is_none(line: str) -> None:
    assert not is_felix(line.split(" "))
