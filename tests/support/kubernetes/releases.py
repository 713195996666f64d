# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Kubernetes releases that a lab emulates, and how they differ."""

from __future__ import annotations

import re

CURRENT = "v1.37.2"
#: The last minor release whose kubelet and DaemonSet controller behave as the older ones do.
OLDER = "v1.26.15"
_TERMINAL_PHASE = (1, 27)


def reports_terminal_phase(release: str) -> bool:
    """Whether the kubelet reports a deleted pod that has ended as Succeeded or Failed.

    The DaemonSet controller then creates the successor although a finalizer keeps the pod. Measured
    with real kubelets and controllers of 1.20.2, 1.30.14 and 1.37.2; 1.27 is by its release notes.
    """
    numbers = re.match(r"v(\d+)\.(\d+)", release)
    if numbers is None:
        raise ValueError(f"not a Kubernetes release: {release}")
    return (int(numbers[1]), int(numbers[2])) >= _TERMINAL_PHASE
