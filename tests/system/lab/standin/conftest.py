# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Felix stand-in, a real process on the running kernel: what it attaches, breaks, reports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin_node import (
    Node,
)
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab
from ansible_collections.dataplane.calico_bpf.tests.support.tc import tcx


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Node]:
    (tmp_path / "workloads").write_text(json.dumps({"cali0": "shop/web-0"}))
    (tmp_path / "pods").mkdir()
    with ExitStack() as stack:
        yield Node(lab, tmp_path / "pods", stack)
    for pin in tcx.PINS.glob("cali*"):
        pin.unlink()
