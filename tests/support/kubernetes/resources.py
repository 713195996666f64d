# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of the API, and their discovery documents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.store import Object, Store

_VERBS = ("create", "delete", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Resource:
    """One kind in one version, and how it differs from other kinds."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = _VERBS
    #: Whether metadata.generation counts the changes outside of metadata and status.
    counted: bool = False
    #: Whether a PUT without a resourceVersion is accepted.
    unconditional: bool = True
    #: Whether a PUT of an object that does not exist creates it.
    create_by_put: bool = False
    #: Defined by a CustomResourceDefinition: no strategic merge.
    custom: bool = False
    #: The fields that fieldSelector supports beside metadata.name and metadata.namespace.
    fields: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def collection(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def has_status(self) -> bool:
        return "status" in self.subresources


NAMESPACES = Resource("", "v1", "Namespace", "namespaces", False, ("status",))
NODES = Resource("", "v1", "Node", "nodes", False, ("status",), fields=("spec.unschedulable",))
PODS = Resource(
    "",
    "v1",
    "Pod",
    "pods",
    subresources=("status", "eviction", "binding", "log"),
    fields=("spec.nodeName", "status.phase", "spec.restartPolicy", "spec.schedulerName"),
)
DAEMON_SETS = Resource("apps", "v1", "DaemonSet", "daemonsets", True, ("status",), counted=True)
REPLICA_SETS = Resource("apps", "v1", "ReplicaSet", "replicasets", True, ("status",), counted=True)
REVISIONS = Resource("apps", "v1", "ControllerRevision", "controllerrevisions")
BUDGETS = Resource(
    "policy",
    "v1",
    "PodDisruptionBudget",
    "poddisruptionbudgets",
    subresources=("status",),
    counted=True,
    unconditional=False,
)
DEFINITIONS = Resource(
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
    namespaced=False,
    subresources=("status",),
    counted=True,
    unconditional=False,
)
REVIEWS = Resource(
    "authorization.k8s.io",
    "v1",
    "SelfSubjectAccessReview",
    "selfsubjectaccessreviews",
    namespaced=False,
    verbs=("create",),
)
_EVENT_FIELDS = tuple(f"involvedObject.{f}" for f in ("kind", "name", "namespace", "uid"))
BUILT_IN = (
    NAMESPACES,
    NODES,
    PODS,
    Resource("", "v1", "Event", "events", fields=(*_EVENT_FIELDS, "reason", "type")),
    Resource("", "v1", "ConfigMap", "configmaps"),
    Resource("", "v1", "Secret", "secrets", fields=("type",)),
    Resource("", "v1", "ServiceAccount", "serviceaccounts"),
    DAEMON_SETS,
    REPLICA_SETS,
    REVISIONS,
    Resource("apps", "v1", "Deployment", "deployments", True, ("status",), counted=True),
    BUDGETS,
    Resource(
        "coordination.k8s.io", "v1", "Lease", "leases", unconditional=False, create_by_put=True
    ),
    REVIEWS,
    DEFINITIONS,
)


class Resources:
    """The kinds of the API itself, and those that CustomResourceDefinitions add."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> list[Resource]:
        defined = self._store.items(DEFINITIONS.collection)
        return [*BUILT_IN, *(made for _key, held in defined for made in _defined(held))]

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        wanted = (group, version, plural)
        return next((r for r in self.all() if (r.group, r.version, r.plural) == wanted), None)

    def stored_in(self, collection: str) -> Resource:
        return next(r for r in self.all() if r.collection == collection)

    def discovery(self, path: list[str]) -> Object | None:
        """The answer to /api, /apis, /api/v1, /apis/GROUP and /apis/GROUP/VERSION."""
        every = self.all()
        groups = {r.group for r in every if r.group}
        if path == ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        if path == ["apis"]:
            listed = [_group(group, every) for group in sorted(groups)]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        if path[0] == "apis" and len(path) == 2 and path[1] in groups:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(path[1], every)}
        group_version = "/".join(path[1:])
        found = [r for r in every if r.api_version == group_version]
        if len(path) == (2 if path[0] == "api" else 3) and found:
            listed = [entry for r in found for entry in _entries(r)]
            made = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version}
            return {**made, "resources": listed}
        return None


def _group(group: str, every: Iterable[Resource]) -> Object:
    names = list(dict.fromkeys(r.version for r in every if r.group == group))
    versions = [{"groupVersion": f"{group}/{name}", "version": name} for name in names]
    return {"name": group, "versions": versions, "preferredVersion": versions[0]}


def _entries(resource: Resource) -> Iterable[Object]:
    entry: dict[str, Any] = {
        "name": resource.plural,
        "singularName": resource.kind.lower(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    yield entry
    for name in resource.subresources:
        path = f"{resource.plural}/{name}"
        if name == "eviction":
            # Clients such as kubectl read the version of the Eviction here.
            kind = {"kind": "Eviction", "group": "policy", "version": "v1", "verbs": ["create"]}
        elif name == "binding":
            kind = {"kind": "Binding", "verbs": ["create"]}
        elif name == "log":
            kind = {"verbs": ["get"]}
        else:
            kind = {"verbs": ["get", "patch", "update"]}
        yield {**entry, "name": path, "singularName": "", **kind}


def _defined(definition: Object) -> Iterable[Resource]:
    spec = definition["spec"]
    for version in spec["versions"]:
        if version.get("served"):
            yield Resource(
                spec["group"],
                version["name"],
                spec["names"]["kind"],
                spec["names"]["plural"],
                namespaced=spec["scope"] == "Namespaced",
                subresources=tuple(version.get("subresources") or ()),
                counted=True,
                unconditional=False,
                custom=True,
            )
