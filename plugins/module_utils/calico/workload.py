# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The name that Calico gives a pod's endpoint."""

from __future__ import annotations

import hashlib


def interface_of(namespace: str, pod: str, prefix: str = "cali") -> str:
    """The interface of a pod.

    Source: libcalico-go/lib/backend/k8s/conversion/workload_endpoint_default.go at v3.29.1,
    VethNameForWorkload.
    """
    return prefix + hashlib.sha1(f"{namespace}.{pod}".encode()).hexdigest()[:11]
