# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the state of the cluster that a preflight checks. Creates only access reviews."""

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
#: The API groups of Calico's resources: of its CRDs, and the one that 3.32 may use instead.
_CALICO = ("/apis/crd.projectcalico.org/v1", "/apis/projectcalico.org/v3")
_INSTALLATIONS = "/apis/operator.tigera.io/v1/installations"
_NOT_FOUND, _FORBIDDEN = 404, 403
#: Effects that keep pods away; and the taints that Kubernetes sets for the state of a node.
_EFFECTS, _NODE_STATE_TAINTS = ("NoSchedule", "NoExecute"), "node.kubernetes.io/"
_ENCAPSULATING = ("Always", "CrossSubnet")


def missing_permissions(kube: Kube, spec: RolloutSpec) -> list[Permission]:
    """The permissions that a run needs and the user does not have."""
    permissions = needed(spec.namespace, spec.lease_namespace)
    return [permission for permission in permissions if not _allowed(kube, permission)]


def _allowed(kube: Kube, permission: Permission) -> bool:
    answer = kube.create(_REVIEWS, permission.review())
    return bool((answer.get("status") or {}).get("allowed"))


def read_cluster(kube: Kube, spec: RolloutSpec) -> Cluster:
    """The state of the cluster; ``unread`` explains what may not be listed."""
    unread: list[str] = []
    apps = f"/apis/apps/v1/namespaces/{spec.namespace}"
    daemonset = kube.find(f"{apps}/daemonsets/{spec.daemonset}")
    installations = _optional(kube, (_INSTALLATIONS,), unread, _spec)
    nodes = tuple(kube.collect("/api/v1/nodes", _node))
    if daemonset is None:
        return Cluster(
            daemonset=None,
            nodes=nodes,
            installation=bool(installations),
            unread=tuple(unread),
        )
    uid, template = daemonset["metadata"]["uid"], daemonset["spec"]["template"]
    pods = _read_pods(kube, uid)
    felix = _optional(kube, [f"{group}/felixconfigurations" for group in _CALICO], unread, _spec)
    pools = _optional(kube, [f"{group}/ippools" for group in _CALICO], unread, _spec)
    return Cluster(
        daemonset=_daemon_set(daemonset),
        revisions=_read_revisions(kube, f"{apps}/controllerrevisions", uid),
        pods=tuple(pods.owned),
        nodes=nodes,
        installation=bool(installations),
        felix=None if felix is None else dict(felix),
        encapsulation=_encapsulation([spec for _name, spec in pools or ()], template),
        budgets=_never_met(pods.covered),
        covered=pods.covered,
        unread=tuple(unread),
    )


@dataclass(frozen=True)
class _Pods:
    """The pods of the cluster that matter here; all others are not kept in memory."""

    #: The pods of the DaemonSet that have a node.
    owned: list[Pod] = field(default_factory=list)
    #: The pods to be evicted that a budget covers, by node.
    covered: dict[str, list[Covered]] = field(default_factory=dict)


def _read_pods(kube: Kube, daemonset_uid: str) -> _Pods:
    budgets = Budgets(read_budgets(kube))

    def keep(listed: Object) -> tuple[str, Pod | None, Covered | None] | None:
        node = _node_of(listed)
        pod = _pod(listed) if node and _owned_by(listed, daemonset_uid) else None
        covered = budgets.covering(listed) if _is_evicted(listed) else None
        return (node or "", pod, covered) if pod or covered else None

    found = _Pods()
    for node, pod, covered in kube.collect("/api/v1/pods", keep):
        if pod:
            found.owned.append(pod)
        if covered:
            found.covered.setdefault(node, []).append(covered)
    return found


def _is_evicted(pod: Object) -> bool:
    """Whether a drain evicts the pod."""
    return not is_mirror(pod) and (controller_of(pod) or {}).get("kind") != "DaemonSet"


def _read_revisions(kube: Kube, path: str, daemonset_uid: str) -> tuple[Revision, ...]:
    def keep(revision: Object) -> Revision | None:
        return _revision(revision) if _owned_by(revision, daemonset_uid) else None

    return tuple(kube.collect(path, keep))


def _optional(
    kube: Kube, paths: Sequence[str], unread: list[str], keep: Callable[[Object], Kept]
) -> list[Kept] | None:
    """The objects of the first list that exists; None if none does, or it may not be listed."""
    for path in paths:
        try:
            return kube.collect(path, keep)
        except ApiError as error:
            if error.status == _FORBIDDEN:
                unread.append(
                    f"{path} may not be listed, so its objects are not checked; permit it, or "
                    f"check them by hand ({error})"
                )
            elif error.status != _NOT_FOUND:
                raise
    return None


def _spec(listed: Object) -> tuple[str, Object]:
    return listed["metadata"]["name"], listed.get("spec") or {}


def _owned_by(listed: Object, uid: str) -> bool:
    owners = listed["metadata"].get("ownerReferences") or ()
    return any(owner["uid"] == uid for owner in owners)


def _daemon_set(daemonset: Object) -> DaemonSet:
    metadata, spec = daemonset["metadata"], daemonset["spec"]
    return DaemonSet(
        namespace=metadata["namespace"],
        name=metadata["name"],
        template=spec["template"],
        strategy=spec.get("updateStrategy") or {},
        annotations=metadata.get("annotations") or {},
        owners=tuple(owner["kind"] for owner in metadata.get("ownerReferences") or ()),
    )


def _revision(revision: Object) -> Revision:
    return Revision(
        name=revision["metadata"]["name"],
        number=int(revision["revision"]),
        hash=revision_of(revision),
        template=revision["data"]["spec"]["template"],
    )


def _node(node: Object) -> Node:
    annotations = node["metadata"].get("annotations") or {}
    status = node.get("status") or {}
    return Node(
        name=node["metadata"]["name"],
        ready=is_ready(node),
        unschedulable=bool((node.get("spec") or {}).get("unschedulable")),
        kernel=(status.get("nodeInfo") or {}).get("kernelVersion", ""),
        cordoned_by=annotations.get(CORDONED_BY),
        verified=annotations.get(VERIFIED),
        upgraded_at=annotations.get(UPGRADED_AT),
        taints=tuple(_taints(node)),
    )


def _taints(node: Object) -> Iterator[Taint]:
    for each in (node.get("spec") or {}).get("taints") or ():
        if each["effect"] in _EFFECTS and not each["key"].startswith(_NODE_STATE_TAINTS):
            yield each["key"], each.get("value") or "", each["effect"]


def _pod(pod: Object) -> Pod:
    metadata = pod["metadata"]
    containers = pod["spec"]["containers"]
    return Pod(
        name=metadata["name"],
        node=_node_of(pod) or "",
        image=next((each["image"] for each in containers if each["name"] == CONTAINER), ""),
        revision=revision_of(pod),
        ready=is_ready(pod),
        terminating=terminating_since(pod) is not None,
        has_finalizer=FINALIZER in (metadata.get("finalizers") or ()),
    )


def _node_of(pod: Object) -> str | None:
    """The node of a pod; None before it is scheduled."""
    name: str | None = pod["spec"].get("nodeName")
    return name


def _never_met(covered: Mapping[str, Sequence[Covered]]) -> dict[str, tuple[str, ...]]:
    """By node, the budgets that never allow its drain."""
    found = {node: never_met(pods) for node, pods in covered.items()}
    return {node: tuple(each.text for each in never) for node, never in found.items() if never}


def _encapsulation(pools: Sequence[Object], template: Object) -> str | None:
    """The encapsulation of the IP pools; without pools, the one that the DaemonSet configures."""
    return _encapsulation_of_pools(pools) if pools else _configured_encapsulation(template)


def _encapsulation_of_pools(pools: Sequence[Object]) -> str:
    for word in ("vxlan", "ipip"):
        if any(pool.get(f"{word}Mode") in _ENCAPSULATING for pool in pools):
            return word
    return "none"


def _configured_encapsulation(template: Object) -> str | None:
    """The encapsulation of the first pool, by the environment of calico-node."""
    variables = environment(template)
    values = {word: variables.get(f"CALICO_IPV4POOL_{word.upper()}") for word in ("vxlan", "ipip")}
    for word, value in values.items():
        if value in _ENCAPSULATING:
            return word
    return "none" if all(value is not None for value in values.values()) else None
