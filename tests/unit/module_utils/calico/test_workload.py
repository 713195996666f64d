# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.calico.workload import (
    interface_of,
)


@pytest.mark.parametrize(
    ("workload", "interface"),
    [
        # The vectors of Calico's own test (libcalico-go, k8s/conversion/conversion_test.go).
        (("default", "podA"), "cali7f94ce7c295"),
        (("default", "podB"), "cali92cf1f5e9f6"),
        (("default", "podB", "eni"), "eni92cf1f5e9f6"),
    ],
)
def test_interface_of(workload: tuple[str, ...], interface: str) -> None:
    assert interface_of(*workload) == interface
