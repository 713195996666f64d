# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of all tests on the running kernel. They need root and leave nothing behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.netns import lab as labs
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As whoever is started in the background has it; what tests start would ignore a ctrl-C, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled test programs; and, for the whole session, mounts of its own."""
    labs.private_mounts()
    into = tmp_path_factory.mktemp("objects")
    labs.compile_programs(into)
    return into


@pytest.fixture
def lab(objects: Path) -> Iterator[Lab]:
    with labs.new_lab(objects) as made:
        yield made


@pytest.fixture(scope="module")
def module_lab(objects: Path) -> Iterator[Lab]:
    """One namespace for all tests of a file."""
    with labs.new_lab(objects) as made:
        yield made
