# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder for pins on the bpffs, and pins of objects that bpf_tc_program refuses."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import (
    Lab,
    run,
)

_serial = count(1)


def folder_for_pins(lab: Lab) -> Path:
    """A folder on the bpffs; the lab removes it with the pins in it."""
    directory = Path(f"/sys/fs/bpf/{lab.netns}-pins-{next(_serial)}")
    directory.mkdir()
    return directory


def make_pins(compiled: Path, pins: Path) -> tuple[str, str]:
    """The pins of an XDP program and of a map: ``express`` and ``map``."""
    express, map_pin = str(pins / "express"), str(pins / "map")
    run("bpftool", "prog", "load", str(compiled / "express.o"), express)
    words = ["type", "array", "key", "4", "value", "4", "entries", "1", "name", "m"]
    run("bpftool", "map", "create", map_pin, *words)
    return express, map_pin
