# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a node is in eBPF mode, with each trace of it alone, and with each of them unreadable."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel import dataplane
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.dataplane import (
    Dataplane,
    Mode,
    read_dataplane,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.processes import Felix
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.snapshot import Reader
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.build import at, endpoint
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.fake_kernel import Kernel


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """A node with a bare workload interface, and no Felix."""
    made = Kernel()
    made.patch(monkeypatch)
    made.put(replace(endpoint((), ()), interface="cali1", ifindex=1))
    monkeypatch.setattr(dataplane, "felixes", list)
    return made


def mode_of(kernel: Kernel, pins: Path = Path("/nowhere")) -> Dataplane:
    reader = Reader(kernel, look_into_programs=False, tcx_pins="/nowhere")
    return read_dataplane(reader, reader.read(["cali*"]), str(pins))


def test_no_trace(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "cilium_calls").touch()
    seen = mode_of(kernel, tmp_path)
    assert seen.mode is Mode.ABSENT
    assert "no trace of Calico's eBPF dataplane on this node" in seen.why


def test_a_program_on_a_wanted_interface(kernel: Kernel) -> None:
    kernel.put(replace(endpoint(at(1), ()), interface="cali2", ifindex=2))
    assert mode_of(kernel) == Dataplane(Mode.EBPF, "1 of 2 interfaces have programs of Calico")


def test_a_program_on_another_interface(kernel: Kernel) -> None:
    kernel.put(replace(endpoint(at(1), at(1)), interface="eth0", ifindex=3))
    assert mode_of(kernel) == Dataplane(Mode.EBPF, "eth0: programs of Calico")


def test_a_pinned_map(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "cali_v4_ct3").touch()
    assert mode_of(kernel, tmp_path) == Dataplane(Mode.EBPF, f"maps of Calico in {tmp_path}: 1")


@pytest.mark.parametrize("has_map", [True, False])
def test_a_felix(kernel: Kernel, monkeypatch: pytest.MonkeyPatch, has_map: bool) -> None:
    found = Felix(os.getpid(), 1.0, 0.1)
    monkeypatch.setattr(dataplane, "felixes", lambda: [found])
    monkeypatch.setattr(dataplane, "_has_map_open", lambda pid: has_map)
    seen = mode_of(kernel)
    assert seen.mode is (Mode.EBPF if has_map else Mode.ABSENT)
    assert not has_map or seen.why == f"Felix (process {os.getpid()}) uses BPF maps"


def denied(*_args: Any) -> Any:
    raise PermissionError(13, "Permission denied")


def test_unreadable_traces_leave_the_mode_unknown(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataplane, "felixes", lambda: [Felix(os.getpid(), 1.0, 0.1)])
    monkeypatch.setattr(dataplane, "_has_map_open", denied)
    monkeypatch.setattr(os, "listdir", denied)
    seen = mode_of(kernel, Path("/pins"))
    assert seen.mode is Mode.UNKNOWN
    assert "could not read /pins (Permission denied); the files of Felix (process" in seen.why
    assert "Run as root" in seen.why
