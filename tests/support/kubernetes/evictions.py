# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evictions and budgets, in the version of the policy group that the server prefers."""

from __future__ import annotations

from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client


def policy_version(raw: Client) -> str:
    """The version of the policy group that the server prefers, as kubectl finds it."""
    return str(raw.do("GET", "/apis/policy")["preferredVersion"]["version"])


def evict(raw: Client, namespace: str, name: str, **body: Any) -> Any:
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
    return raw.ask("POST", path, {"metadata": {"name": name, "namespace": namespace}, **body})


def budget(raw: Client, namespace: str, minimum: int) -> str:
    """A PodDisruptionBudget for the pods labelled app=web; its path."""
    version = policy_version(raw)
    path = f"/apis/policy/{version}/namespaces/{namespace}/poddisruptionbudgets"
    spec = {"minAvailable": minimum, "selector": {"matchLabels": {"app": "web"}}}
    kind = {"apiVersion": f"policy/{version}", "kind": "PodDisruptionBudget"}
    raw.do("POST", path, {**kind, "metadata": {"name": "web"}, "spec": spec})
    return f"{path}/web"
