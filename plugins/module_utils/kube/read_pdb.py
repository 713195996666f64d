# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the PodDisruptionBudgets, in whichever version of the policy API there is."""

from __future__ import annotations

from ..errors import ApiError
from .api import Kube
from .pdb import Budget


def read_budgets(kube: Kube) -> list[Budget]:
    """All of the cluster's: policy/v1, or before Kubernetes 1.21 policy/v1beta1."""
    group = kube.get("/apis/policy")
    versions = [each["version"] for each in group["versions"]]
    version = next((each for each in ("v1", "v1beta1") if each in versions), None)
    if version is None:
        raise ApiError("GET /apis/policy", 200, "", f"no version known here: {versions}")
    held = kube.items(f"/apis/policy/{version}/poddisruptionbudgets")
    return [Budget(each, empty_selects_all=version == "v1") for each in held]
