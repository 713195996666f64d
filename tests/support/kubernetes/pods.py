# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The subresources of a pod: its eviction, binding and log."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes import problems
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.cluster import (
    Cluster,
    Target,
    success,
    timestamp,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.resources import (
    BUDGETS,
    NODES,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.selectors import by_selector
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.store import Object

_EVICTIONS = ("policy/v1", "policy/v1beta1", None)


def evict(cluster: Cluster, target: Target, body: Mapping[str, Any], dry_run: bool) -> Object:
    """Delete a pod if the budgets allow it, and count it against them."""
    if body.get("apiVersion") not in _EVICTIONS:
        raise problems.bad_request(f"no kind Eviction in {body['apiVersion']}")
    options = body.get("deleteOptions") or {}
    dry_run = dry_run or bool(options.get("dryRun"))
    with cluster.store.lock:
        pod = cluster.get(target)
        if pod["status"]["phase"] not in ("Pending", "Succeeded", "Failed"):
            _spend(cluster, pod, dry_run)
        cluster.delete(target, options, dry_run)
    return {**success(), "code": 201}


def _spend(cluster: Cluster, pod: Object, dry_run: bool) -> None:
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    held = cluster.store.items(BUDGETS.collection, namespace)
    budgets = [o for _key, o in held if by_selector(o["spec"].get("selector"))(pod)]
    if len(budgets) > 1:
        message = "This pod has more than one PodDisruptionBudget, which the eviction subresource"
        raise problems.Problem(500, "InternalError", f"{message} does not support.")
    for budget in budgets:
        _check_budget(budget)
        if not dry_run:
            _count_disruption(cluster, budget, name)


def _check_budget(budget: Object) -> None:
    name, status = budget["metadata"]["name"], budget.get("status", {})
    if status.get("observedGeneration", 0) < budget["metadata"]["generation"]:
        raise problems.budget_exhausted(
            f"The disruption budget {name} is still being processed by the server."
        )
    if not status["disruptionsAllowed"]:
        raise problems.budget_exhausted(
            f"The disruption budget {name} needs {status['desiredHealthy']} healthy pods and has"
            f" {status['currentHealthy']} currently"
        )


def _count_disruption(cluster: Cluster, budget: Object, pod: str) -> None:
    def spend(held: Object) -> None:
        held["status"]["disruptionsAllowed"] -= 1
        held["status"].setdefault("disruptedPods", {})[pod] = timestamp()

    metadata = budget["metadata"]
    cluster.update(Target(BUDGETS, metadata["namespace"], metadata["name"]), spend)


def bind(cluster: Cluster, target: Target, body: Mapping[str, Any], dry_run: bool) -> Object:
    """Bind a pod to its node; this is possible only once."""
    node = body["target"]["name"]

    def assign(pod: Object) -> None:
        if held := pod["spec"].get("nodeName"):
            why = f'pod {target.name} is already assigned to node "{held}"'
            raise problems.conflict("pods/binding", target.name, why)
        pod["spec"]["nodeName"] = node
        scheduled = {"type": "PodScheduled", "status": "True"}
        pod["status"]["conditions"] = [scheduled | {"lastTransitionTime": timestamp()}]

    if not dry_run:
        cluster.update(target, assign)
    return {**success(), "code": 201}


def log(cluster: Cluster, target: Target, query: Mapping[str, str]) -> bytes:
    """The log of a container, read from the pod's kubelet like the real API does."""
    pod = cluster.get(target)
    names = [each["name"] for each in pod["spec"]["containers"]]
    container = query.get("container") or names[0]
    if len(names) > 1 and "container" not in query:
        raise problems.bad_request(
            f"a container name must be specified for pod {target.name}, choose one of:"
            f" [{' '.join(names)}]"
        )
    if container not in names:
        raise problems.bad_request(f"container {container} is not valid for pod {target.name}")
    if not pod["spec"].get("nodeName"):
        raise problems.bad_request(f"pod {target.name} does not have a host assigned")
    node = cluster.get(Target(NODES, name=pod["spec"]["nodeName"]))
    asked = urllib.parse.urlencode({k: v for k, v in query.items() if k != "container"})
    url = f"{_kubelet(node)}/containerLogs/{target.namespace}/{target.name}/{container}?{asked}"
    try:
        with urllib.request.urlopen(url, context=_unverified(), timeout=30) as answer:
            text: bytes = answer.read()
            return text
    except (urllib.error.URLError, OSError) as error:
        raise problems.Problem(500, "InternalError", f"Get {url}: {error}") from error


def _kubelet(node: Object) -> str:
    status = node["status"]
    address = next(a["address"] for a in status["addresses"] if a["type"] == "InternalIP")
    return f"https://{address}:{status['daemonEndpoints']['kubeletEndpoint']['Port']}"


def _unverified() -> ssl.SSLContext:
    """Accepts the self-signed certificate of a kubelet, as the real API does."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
