# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three gauges of several hundred, in the format of promhttp."""

from __future__ import annotations

import sys

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import DataplaneError
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.felix.metrics import (
    Metrics,
    read,
)

TEXT = """\
# HELP felix_active_local_endpoints Number of active endpoints on this host.
# TYPE felix_active_local_endpoints gauge
felix_active_local_endpoints 9
# HELP felix_bpf_dataplane_endpoints Number of BPF endpoints managed in the dataplane.
# TYPE felix_bpf_dataplane_endpoints gauge
felix_bpf_dataplane_endpoints 12
# HELP felix_bpf_dirty_dataplane_endpoints Number of BPF endpoints managed in the dataplane that \
are left dirty after a failure.
# TYPE felix_bpf_dirty_dataplane_endpoints gauge
felix_bpf_dirty_dataplane_endpoints 1
# HELP felix_bpf_happy_dataplane_endpoints Number of BPF endpoints that are successfully programmed.
# TYPE felix_bpf_happy_dataplane_endpoints gauge
felix_bpf_happy_dataplane_endpoints 1e+01
# HELP felix_bpf_num_ip_sets Number of BPF IP sets managed in the dataplane.
# TYPE felix_bpf_num_ip_sets gauge
felix_bpf_num_ip_sets 4
"""


def test_the_three_are_read() -> None:
    assert read(TEXT) == Metrics(endpoints=12, dirty=1, happy=10)


def test_metrics_of_another_process_are_an_error() -> None:
    with pytest.raises(
        DataplaneError, match="the metrics have no felix_bpf_dirty_dataplane_endpoints"
    ):
        read(TEXT.replace("felix_bpf_dirty", "other_bpf_dirty"))


def test_metrics_that_cannot_be_parsed() -> None:
    with pytest.raises(DataplaneError, match="not in the Prometheus text format"):
        read(TEXT + "felix_bpf_happy_dataplane_endpoints many\n")


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client.parser", None)
    with pytest.raises(DataplaneError, match="python3-prometheus-client"):
        read(TEXT)
