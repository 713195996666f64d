# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter that checks whether a node is healthy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.node_checks import (
    Bounds,
    verify,
)

Seen = Mapping[str, Any]


def node_checks(
    felix: Seen,
    parity: Seen,
    bounds: Mapping[str, Any],
    probes: Sequence[Seen] = (),
    pods: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    checks = verify(felix, parity, Bounds(**bounds), probes, pods)
    return [
        {**asdict(check), "result": check.result.value, "passes": check.passes} for check in checks
    ]


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"node_checks": node_checks}
