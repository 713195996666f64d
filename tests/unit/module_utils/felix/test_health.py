# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table is what libcalico-go/lib/health/health.go at v3.31.0 answered when run."""

from __future__ import annotations

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.felix.health import (
    Reporter,
    reporters,
)

TABLE = """\
+---------------------------+---------+----------------+---------------------+--------------------------------+
|         COMPONENT         | TIMEOUT |    LIVENESS    |      READINESS      |             DETAIL             |
+---------------------------+---------+----------------+---------------------+--------------------------------+
| BPFEndpointManager        | -       | -              | reporting non-ready | Failed to update interface     |
|                           |         |                |                     | state map. And to clean up |   |
|                           |         |                |                     | old jump maps.                 |
| CalculationGraph          | 30s     | reporting live | reporting ready     |                                |
| FelixStartup              | -       | reporting live | reporting ready     |                                |
| InternalDataplaneMainLoop | 1ns     | timed out      | timed out           |                                |
+---------------------------+---------+----------------+---------------------+--------------------------------+"""  # noqa: E501
EMPTY = """\
+-----------+---------+----------+-----------+--------+
| COMPONENT | TIMEOUT | LIVENESS | READINESS | DETAIL |
+-----------+---------+----------+-----------+--------+
+-----------+---------+----------+-----------+--------+"""


def test_each_reporter_is_read_with_its_wrapped_detail() -> None:
    detail = "Failed to update interface state map. And to clean up | old jump maps."
    assert reporters(TABLE) == (
        Reporter("BPFEndpointManager", False, None, detail),
        Reporter("CalculationGraph", True, True, ""),
        Reporter("FelixStartup", True, True, ""),
        Reporter("InternalDataplaneMainLoop", False, False, "(timed out)"),
    )


def test_a_felix_without_reporters_has_none() -> None:
    assert reporters(EMPTY) == ()


@pytest.mark.parametrize("text", ["", "404 page not found\n", "| a | b |\n| 1 | 2 |"])
def test_other_text_is_not_a_health_table(text: str) -> None:
    assert reporters(text) is None


def test_a_report_of_neither_is_called_bad() -> None:
    """Words that a later release may have count as not ready."""
    (first, *_others) = (
        reporters(TABLE.replace("reporting non-ready", "reporting unwell    ")) or ()
    )
    assert first.ready is False
