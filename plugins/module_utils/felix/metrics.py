# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read Felix's counts of its endpoints from its Prometheus metrics.

felix/dataplane/linux/bpf_ep_mgr.go, equal from v3.28.1 to v3.31.0. ``endpoints`` also counts the
interfaces of the host, so ``happy``, which counts only workloads, is less even on a healthy node.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from ..errors import DataplaneError

_NAMES = {
    "endpoints": "felix_bpf_dataplane_endpoints",
    "dirty": "felix_bpf_dirty_dataplane_endpoints",
    "happy": "felix_bpf_happy_dataplane_endpoints",
}
#: Each metric has two lines about it and one with its value.
_MOST_LINES, _MOST_LINE = 100, 1000


@dataclass(frozen=True)
class Metrics:
    endpoints: int
    dirty: int
    happy: int


def read(text: str) -> Metrics:
    """:raises DataplaneError: there is no parser, or ``text`` does not have these metrics."""
    # Parse only the three wanted metrics: parsing several hundred takes longer than all the rest.
    lines = (line for line in text.splitlines() if "dataplane_endpoints" in line)
    wanted = [line[:_MOST_LINE] for line in islice(lines, _MOST_LINES)]
    values = _values("\n".join(wanted) + "\n")
    missing = [name for name in _NAMES.values() if name not in values]
    if missing:
        raise DataplaneError(
            f"the metrics have no {', '.join(missing)}: check that metrics_url is Felix's"
        )
    try:
        return Metrics(**{field: int(values[name]) for field, name in _NAMES.items()})
    except (ValueError, OverflowError):
        raise DataplaneError("the counts of endpoints in the metrics are not numbers") from None


def _values(text: str) -> dict[str, float]:
    # Imported only when needed: the import is slow.
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ImportError:
        raise DataplaneError(
            "reading metrics needs prometheus_client on the node: install "
            "python3-prometheus-client, or prometheus_client from PyPI"
        ) from None
    try:
        families = list(text_string_to_metric_families(text))
    except ValueError as error:
        raise DataplaneError(f"the answer is not in the Prometheus text format: {error}") from None
    return {sample.name: sample.value for family in families for sample in family.samples}
