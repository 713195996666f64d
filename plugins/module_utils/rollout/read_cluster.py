# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads from the API what a preflight judges. Writes nothing but access reviews."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..calico.images import CONTAINER, environment
from ..errors import ApiError
from ..kube.annotations import CORDONED_BY, FINALIZER, UPGRADED_AT, VERIFIED
from ..kube.api import Kept, Kube
from ..kube.pdb import Budgets, Covered, Taint, never_met
from ..kube.pods import controller_of, is_mirror, is_ready, revision_of, terminating_since
from ..kube.read_pdb import read_budgets
from .cluster import (
    Cluster,
    DaemonSet,
    Node,
    Pod,
    Revision,
    RolloutSpec,
)
from .permissions import Permission, needed

Object = Mapping[str, Any]

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
#: Calico's resources as its own datastore has them, and as 3.32 may have them.
_CALICO = ("/apis/crd.projectcalico.org/v1", "/apis/projectcalico.org/v3")
_INSTALLATIONS = "/apis/operator.tigera.io/v1/installations"
#: Neither kind of resource is there, or may be looked at.
_ABSENT, _CLOSED = 404, 403
#: Taints that keep pods away, but for those that Kubernetes makes of a node's state.
_KEEPS_AWAY, _OF_KUBERNETES = ("NoSchedule", "NoExecute"), "node.kubernetes.io/"
_VXLAN_OR_IPIP = ("Always", "CrossSubnet")


def missing_permissions(kube: Kube, spec: RolloutSpec) -> list[Permission]:
    """Which of the permissions that a run needs the API does not give."""
    asked = needed(spec.namespace, spec.lease_namespace)
    return [each for each in asked if not _allowed(kube, each)]


def _allowed(kube: Kube, permission: Permission) -> bool:
    answer = kube.create(_REVIEWS, permission.review())
    return bool((answer.get("status") or {}).get("allowed"))


def read_cluster(kube: Kube, spec: RolloutSpec) -> Cluster:
    """What a preflight judges; what may be absent or closed is said in ``unread``."""
    unread: list[str] = []
    apps = f"/apis/apps/v1/namespaces/{spec.namespace}"
    held = kube.find(f"{apps}/daemonsets/{spec.daemonset}")
    installations = _optional(kube, (_INSTALLATIONS,), unread, _spec)
    nodes = tuple(kube.collect("/api/v1/nodes", _node))
    if held is None:
        return Cluster(None, nodes=nodes, installation=bool(installations), unread=tuple(unread))
    pods = _read_pods(kube, held["metadata"]["uid"])
    felix = _optional(kube, [f"{group}/felixconfigurations" for group in _CALICO], unread, _spec)
    pools = _optional(kube, [f"{group}/ippools" for group in _CALICO], unread, _spec)
    return Cluster(
        _daemon_set(held),
        _read_revisions(kube, f"{apps}/controllerrevisions", held["metadata"]["uid"]),
        tuple(pods.owned),
        nodes,
        bool(installations),
        None if felix is None else dict(felix),
        _of_pools([spec for _name, spec in pools])
        if pools
        else _of_environment(held["spec"]["template"]),
        _hopeless(pods.covered),
        pods.covered,
        tuple(unread),
    )


@dataclass(frozen=True)
class _Pods:
    """What is judged of the cluster's pods: most are not kept at all."""

    #: Those of the DaemonSet that have a node.
    owned: list[Pod] = field(default_factory=list)
    #: Those to be evicted that a budget covers, by node.
    covered: dict[str, list[Covered]] = field(default_factory=dict)


def _read_pods(kube: Kube, daemonset_uid: str) -> _Pods:
    budgets = Budgets(read_budgets(kube))

    def keep(held: Object) -> tuple[str, Pod | None, Covered | None] | None:
        node = _place(held)
        pod = _pod(held) if node and _owned_by(held, daemonset_uid) else None
        covered = budgets.covering(held) if _is_evicted(held) else None
        return (node or "", pod, covered) if pod or covered else None

    found = _Pods()
    for node, pod, covered in kube.collect("/api/v1/pods", keep):
        if pod:
            found.owned.append(pod)
        if covered:
            found.covered.setdefault(node, []).append(covered)
    return found


def _is_evicted(held: Object) -> bool:
    """Whether a drain evicts it."""
    return not is_mirror(held) and (controller_of(held) or {}).get("kind") != "DaemonSet"


def _read_revisions(kube: Kube, path: str, daemonset_uid: str) -> tuple[Revision, ...]:
    def keep(held: Object) -> Revision | None:
        return _revision(held) if _owned_by(held, daemonset_uid) else None

    return tuple(kube.collect(path, keep))


def _optional(
    kube: Kube, paths: Sequence[str], unread: list[str], keep: Callable[[Object], Kept]
) -> list[Kept] | None:
    """The objects of the first list that is there; None where none is, or it is closed to us."""
    for path in paths:
        try:
            return kube.collect(path, keep)
        except ApiError as error:
            if error.status == _CLOSED:
                unread.append(
                    f"{path} may not be listed, so what it says is not known; permit it, or be "
                    f"sure of it yourself ({error})"
                )
            elif error.status != _ABSENT:
                raise
    return None


def _spec(held: Object) -> tuple[str, Object]:
    return held["metadata"]["name"], held.get("spec") or {}


def _owned_by(held: Object, uid: str) -> bool:
    owners = held["metadata"].get("ownerReferences") or ()
    return any(each["uid"] == uid for each in owners)


def _daemon_set(held: Object) -> DaemonSet:
    metadata, spec = held["metadata"], held["spec"]
    owners = tuple(each["kind"] for each in metadata.get("ownerReferences") or ())
    return DaemonSet(
        metadata["namespace"],
        metadata["name"],
        spec["template"],
        spec.get("updateStrategy") or {},
        metadata.get("annotations") or {},
        owners,
    )


def _revision(held: Object) -> Revision:
    metadata = held["metadata"]
    template = held["data"]["spec"]["template"]
    return Revision(metadata["name"], int(held["revision"]), revision_of(held), template)


def _node(held: Object) -> Node:
    annotations = held["metadata"].get("annotations") or {}
    status = held.get("status") or {}
    return Node(
        held["metadata"]["name"],
        is_ready(held),
        bool((held.get("spec") or {}).get("unschedulable")),
        (status.get("nodeInfo") or {}).get("kernelVersion", ""),
        annotations.get(CORDONED_BY),
        annotations.get(VERIFIED),
        annotations.get(UPGRADED_AT),
        tuple(_taints(held)),
    )


def _taints(node: Object) -> Iterator[Taint]:
    for each in (node.get("spec") or {}).get("taints") or ():
        if each["effect"] in _KEEPS_AWAY and not each["key"].startswith(_OF_KUBERNETES):
            yield each["key"], each.get("value") or "", each["effect"]


def _pod(held: Object) -> Pod:
    metadata = held["metadata"]
    listed = held["spec"]["containers"]
    return Pod(
        metadata["name"],
        _place(held) or "",
        next((each["image"] for each in listed if each["name"] == CONTAINER), ""),
        revision_of(held),
        is_ready(held),
        terminating_since(held) is not None,
        FINALIZER in (metadata.get("finalizers") or ()),
    )


def _place(pod: Object) -> str | None:
    """The node that a pod is on; None before it has one."""
    name: str | None = pod["spec"].get("nodeName")
    return name


def _hopeless(covered: Mapping[str, Sequence[Covered]]) -> dict[str, tuple[str, ...]]:
    """Of each node, the budgets that no waiting will meet when it is drained."""
    found = {node: never_met(here) for node, here in covered.items()}
    return {node: tuple(each.text for each in met) for node, met in found.items() if met}


def _of_pools(specs: Sequence[Object]) -> str:
    for word in ("vxlan", "ipip"):
        if any(spec.get(f"{word}Mode") in _VXLAN_OR_IPIP for spec in specs):
            return word
    return "none"


def _of_environment(template: Object) -> str | None:
    """What the first pool was made with, by the DaemonSet's environment."""
    variables = environment(template)
    said = {word: variables.get(f"CALICO_IPV4POOL_{word.upper()}") for word in ("vxlan", "ipip")}
    for word, value in said.items():
        if value in _VXLAN_OR_IPIP:
            return word
    return "none" if all(value is not None for value in said.values()) else None
