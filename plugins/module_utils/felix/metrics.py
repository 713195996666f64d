# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Felix's count of its endpoints, from its Prometheus metrics.

felix/dataplane/linux/bpf_ep_mgr.go, alike from v3.28.1 to v3.31.0. ``endpoints`` counts the host's
interfaces as well, so that ``happy``, which counts workloads only, is less even on a healthy node.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import DataplaneError

_NAMES = {
    "endpoints": "felix_bpf_dataplane_endpoints",
    "dirty": "felix_bpf_dirty_dataplane_endpoints",
    "happy": "felix_bpf_happy_dataplane_endpoints",
}


@dataclass(frozen=True)
class Metrics:
    endpoints: int
    dirty: int
    happy: int


def read(text: str) -> Metrics:
    """:raises DataplaneError: without a parser, or where these metrics are not in ``text``."""
    # Of several hundred metrics three are wanted; parsing all would take longer than the rest.
    wanted = [line for line in text.splitlines() if "dataplane_endpoints" in line]
    values = _values("\n".join(wanted) + "\n")
    missing = [name for name in _NAMES.values() if name not in values]
    if missing:
        raise DataplaneError(
            f"no {', '.join(missing)} among the metrics: is it Felix that answers?"
        )
    return Metrics(**{field: int(values[name]) for field, name in _NAMES.items()})


def _values(text: str) -> dict[str, float]:
    # Only who has metrics needs the library, which takes long to import.
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ImportError:
        raise DataplaneError(
            "metrics are read with prometheus_client, which is not installed on the node "
            "(python3-prometheus-client, or prometheus_client from PyPI)"
        ) from None
    try:
        families = list(text_string_to_metric_families(text))
    except ValueError as error:
        raise DataplaneError(f"these are no metrics: {error}") from None
    return {sample.name: sample.value for family in families for sample in family.samples}
