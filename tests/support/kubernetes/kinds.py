# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of individual kinds: the defaults of new objects, and validation."""

from __future__ import annotations

from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes import problems
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.resources import (
    DAEMON_SETS,
    DEFINITIONS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    Resource,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.selectors import by_selector
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.store import Object

_STRATEGIES = ("RollingUpdate", "OnDelete")


def prepare(resource: Resource, made: Object) -> None:
    """Add the defaults of a new object of this kind."""
    if resource.has_status and resource != NODES:  # a kubelet registers with its status
        made.pop("status", None)
    if resource == NAMESPACES:
        made["status"] = {"phase": "Active"}
    elif resource == PODS:
        _pod_defaults(made.setdefault("spec", {}))
        made["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
    elif resource == DAEMON_SETS:
        _daemon_set_defaults(made.setdefault("spec", {}))
        counts = ("current", "desired")
        made["status"] = {f"{each}NumberScheduled": 0 for each in counts}
        made["status"] |= {"numberMisscheduled": 0, "numberReady": 0}
    elif resource == REPLICA_SETS:
        spec = made.setdefault("spec", {})
        spec.setdefault("replicas", 1)
        _pod_defaults(spec.setdefault("template", {}).setdefault("spec", {}))
        made["status"] = {"replicas": 0}
    elif resource == DEFINITIONS:
        conditions = [{"type": t, "status": "True"} for t in ("NamesAccepted", "Established")]
        made["status"] = {"conditions": conditions, "acceptedNames": made["spec"]["names"]}


def check(resource: Resource, wanted: Object, held: Object | None) -> None:
    """Validate a change like the real API (422), as far as clients of the lab need it."""
    if resource == DAEMON_SETS:
        _check_strategy(wanted)
    if resource in (DAEMON_SETS, REPLICA_SETS):
        _check_selector(resource, wanted, held)
    elif resource == PODS:
        _check_pod(wanted, held)


def _pod_defaults(spec: dict[str, Any]) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)


def _daemon_set_defaults(spec: dict[str, Any]) -> None:
    strategy = spec.setdefault("updateStrategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        strategy.setdefault("rollingUpdate", {}).setdefault("maxUnavailable", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    _pod_defaults(spec.setdefault("template", {}).setdefault("spec", {}))


def _check_strategy(daemon_set: Object) -> None:
    strategy = daemon_set["spec"]["updateStrategy"]["type"]
    if strategy not in _STRATEGIES:
        why = f'Invalid value: "{strategy}": supported values: {", ".join(_STRATEGIES)}'
        name = daemon_set["metadata"]["name"]
        raise problems.invalid("DaemonSet", name, "spec.updateStrategy.type", why)


def _check_selector(resource: Resource, wanted: Object, held: Object | None) -> None:
    def refuse(field: str, why: str) -> problems.Problem:
        return problems.invalid(resource.kind, wanted["metadata"]["name"], field, why)

    spec = wanted["spec"]
    if not spec.get("selector") or not by_selector(spec["selector"])(spec["template"]):
        why = "`selector` does not match template `labels`"
        raise refuse("spec.template.metadata.labels", why)
    if held is not None and spec["selector"] != held["spec"]["selector"]:
        raise refuse("spec.selector", "field is immutable")


def _check_pod(wanted: Object, held: Object | None) -> None:
    def refuse(field: str, why: str) -> problems.Problem:
        return problems.invalid("Pod", wanted["metadata"]["name"], field, why)

    if not wanted["spec"].get("containers"):
        raise refuse("spec.containers", "Required value")
    if held is not None and _fixed(wanted["spec"]) != _fixed(held["spec"]):
        why = "Forbidden: pod updates may not change fields other than the containers' image"
        raise refuse("spec", f"{why} and the tolerations")


def _fixed(spec: dict[str, Any]) -> dict[str, Any]:
    """The part of a pod's spec that can't be changed by a client."""
    containers = [{k: v for k, v in c.items() if k != "image"} for c in spec["containers"]]
    rest = {k: v for k, v in spec.items() if k not in ("tolerations", "activeDeadlineSeconds")}
    return {**rest, "containers": containers}
