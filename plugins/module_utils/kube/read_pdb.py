# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the PodDisruptionBudgets, in whichever version of the policy API there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ApiError
from .api import Kube
from .pdb import Budget

#: What is judged of a budget's metadata and status.
_METADATA = ("namespace", "name", "generation")
_STATUS = (
    "observedGeneration",
    "expectedPods",
    "desiredHealthy",
    "currentHealthy",
    "disruptionsAllowed",
)


def read_budgets(kube: Kube) -> list[Budget]:
    """All of the cluster's: policy/v1, or before Kubernetes 1.21 policy/v1beta1."""
    group = kube.get("/apis/policy")
    versions = [each["version"] for each in group["versions"]]
    version = next((each for each in ("v1", "v1beta1") if each in versions), None)
    if version is None:
        raise ApiError("GET /apis/policy", 200, "", f"no version known here: {versions}")
    path = f"/apis/policy/{version}/poddisruptionbudgets"
    return kube.collect(path, lambda held: Budget(_judged(held), version == "v1"))


def _judged(held: Mapping[str, Any]) -> dict[str, Any]:
    """Only what is judged of a budget: a cluster may have thousands."""
    return {
        "metadata": _only(_METADATA, held["metadata"]),
        "spec": held["spec"],
        "status": _only(_STATUS, held.get("status") or {}),
    }


def _only(names: tuple[str, ...], held: Mapping[str, Any]) -> dict[str, Any]:
    return {name: held[name] for name in names if name in held}
