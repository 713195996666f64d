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
    felix: Seen, parity: Seen, bounds: Mapping[str, Any], probes: Sequence[Seen] = ()
) -> list[dict[str, Any]]:
    return [asdict(check) for check in verify(felix, parity, Bounds(**bounds), probes)]


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"node_checks": node_checks}
