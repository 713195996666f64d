# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the PodDisruptionBudgets, in the version of the policy API that the cluster serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ApiError
from .api import Kube
from .pdb import Budget

#: The fields of a budget's metadata and status that matter for a drain.
_METADATA = ("namespace", "name", "generation")
_STATUS = (
    "observedGeneration",
    "expectedPods",
    "desiredHealthy",
    "currentHealthy",
    "disruptionsAllowed",
)


def read_budgets(kube: Kube) -> list[Budget]:
    """All budgets of the cluster: policy/v1, or policy/v1beta1 before Kubernetes 1.21."""
    group = kube.get("/apis/policy")
    versions = [served["version"] for served in group["versions"]]
    version = next((known for known in ("v1", "v1beta1") if known in versions), None)
    if version is None:
        raise ApiError("GET /apis/policy", 200, "", f"no supported version: {versions}")
    path = f"/apis/policy/{version}/poddisruptionbudgets"
    return kube.collect(path, lambda budget: Budget(_reduced(budget), version == "v1"))


def _reduced(budget: Mapping[str, Any]) -> dict[str, Any]:
    """A budget without the other fields: a cluster may have thousands."""
    return {
        "metadata": _only(_METADATA, budget["metadata"]),
        "spec": budget["spec"],
        "status": _only(_STATUS, budget.get("status") or {}),
    }


def _only(names: tuple[str, ...], fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fields[name] for name in names if name in fields}
