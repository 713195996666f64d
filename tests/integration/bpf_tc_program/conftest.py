# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""bpf_tc_program on the running kernel: every source, every refusal, and nothing left half done.

What is attached is read with tc, with bpftool and with the kernel's own TCX query.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import (
    Lab,
    compile_program,
)
from ansible_collections.dataplane.calico_bpf.tests.support.tc.bpf_tc_program import (
    SOURCES,
)
from ansible_collections.dataplane.calico_bpf.tests.support.tc.pins import (
    folder_for_pins,
)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, module_lab: Lab) -> Path:
    into = tmp_path_factory.mktemp("programs")
    for name in ("several", "express"):
        compile_program(SOURCES / f"{name}.c", into / f"{name}.o")
    return into


@pytest.fixture
def pins(module_lab: Lab) -> Path:
    return folder_for_pins(module_lab)
