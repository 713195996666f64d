# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state and the target of a rollout: the DaemonSet, its revisions, each node. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any

from ..calico import images
from ..calico.versions import Release, attach_type, knows_tcx, parse, parse_kernel
from ..errors import Refusal
from ..kube.annotations import FORMER_REVISION, UPDATE_STRATEGY
from ..kube.pdb import Covered, Taint

Object = Mapping[str, Any]


class RolloutMode(str, Enum):
    UPGRADE = "upgrade"
    ROLLBACK = "rollback"


class NodeState(str, Enum):
    """``done``: verified at the target. ``interrupted``: an earlier run stopped before the end."""

    DONE = "done"
    TODO = "todo"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class RolloutSpec:
    """What a run does: an upgrade to a version or to a manifest's template, or a rollback."""

    namespace: str = "kube-system"
    daemonset: str = images.CONTAINER
    mode: RolloutMode = RolloutMode.UPGRADE
    version: str | None = None
    manifest: Sequence[Object] | None = None
    image_repository: str | None = None
    #: Empty: every node that has a pod of the DaemonSet, or that an earlier run left without one.
    nodes: tuple[str, ...] = ()
    overrides: frozenset[str] = frozenset()
    lease_namespace: str = "kube-system"
    #: How many nodes at once, as Ansible's ``serial``; empty for one after the other.
    batches: tuple[object, ...] = ()


@dataclass(frozen=True)
class Revision:
    """A ControllerRevision; pods carry its ``hash`` in the label controller-revision-hash."""

    name: str
    number: int
    hash: str
    template: Object


@dataclass(frozen=True)
class DaemonSet:
    namespace: str
    name: str
    template: Object
    strategy: Object = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    #: The kinds of its owners.
    owners: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pod:
    """A pod of the DaemonSet on a node."""

    name: str
    node: str
    image: str
    revision: str
    ready: bool
    terminating: bool = False
    #: Whether it has the collection's finalizer.
    has_finalizer: bool = False

    @property
    def version(self) -> str | None:
        return images.image(self.image).tag


@dataclass(frozen=True)
class Node:
    name: str
    ready: bool = True
    unschedulable: bool = False
    kernel: str = ""
    cordoned_by: str | None = None
    verified: str | None = None
    upgraded_at: str | None = None
    #: Those that keep pods away, but for the one of a cordon.
    taints: tuple[Taint, ...] = ()


@dataclass(frozen=True)
class Cluster:
    """What was read of the cluster; what could not be read is None, and ``unread`` says why."""

    daemonset: DaemonSet | None
    revisions: tuple[Revision, ...] = ()
    pods: tuple[Pod, ...] = ()
    nodes: tuple[Node, ...] = ()
    #: Whether the Tigera operator's Installation exists.
    installation: bool = False
    #: The spec of each FelixConfiguration by its name.
    felix: Mapping[str, Object] | None = None
    #: vxlan, ipip or none.
    encapsulation: str | None = None
    #: By node, a text for each PodDisruptionBudget that never allows its drain.
    budgets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: Of each node, the pods to be evicted that a budget covers.
    covered: Mapping[str, Sequence[Covered]] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    @property
    def install(self) -> str:
        if self.daemonset is None:
            return "none"
        owned = "Installation" in self.daemonset.owners
        in_place = self.daemonset.namespace == "calico-system"
        return "operator" if owned or in_place or self.installation else "manifest"

    @property
    def newest(self) -> Revision | None:
        return max(self.revisions, key=lambda revision: revision.number, default=None)

    def revision(self, name: str | None) -> Revision | None:
        return next((known for known in self.revisions if known.name == name), None)

    def pod_on(self, node: str) -> Pod | None:
        """The pod on a node; one that is not terminating is preferred."""
        pods = self._pods_by_node.get(node, ())
        return min(pods, key=lambda pod: pod.terminating, default=None)

    def is_being_replaced(self, node: str) -> bool:
        """Whether a pod there has the finalizer; its successor may already exist."""
        return any(pod.has_finalizer for pod in self._pods_by_node.get(node, ()))

    @cached_property
    def _pods_by_node(self) -> Mapping[str, Sequence[Pod]]:
        found: dict[str, list[Pod]] = {}
        for pod in self.pods:
            found.setdefault(pod.node, []).append(pod)
        return found


@dataclass(frozen=True)
class Target:
    """What the DaemonSet becomes. ``revision`` is set once the DaemonSet is at the target."""

    template: Object
    version: str | None
    images: Mapping[str, str]
    patch: Mapping[str, Any]
    revision: Revision | None

    @property
    def release(self) -> Release | None:
        return parse(self.version) if self.version else None


def target(spec: RolloutSpec, cluster: Cluster) -> Target | None:
    """What ``spec`` makes of the DaemonSet.

    None if there is no DaemonSet, if it runs no Felix, or if a rollback finds no former revision.

    :raises Refusal: the manifest does not contain the DaemonSet.
    """
    daemonset = cluster.daemonset
    if daemonset is None or not images.has_felix(daemonset.template):
        return None
    if spec.mode is RolloutMode.ROLLBACK:
        former = former_revision(spec, cluster)
        return _of_template(former.template, cluster, former == cluster.newest) if former else None
    if spec.manifest is not None:
        template = _template_in(spec.manifest, daemonset)
        reached = images.contains(daemonset.template, template)
        return _of_template(template, cluster, reached)
    return _of_version(spec, daemonset, cluster)


def _of_version(spec: RolloutSpec, daemonset: DaemonSet, cluster: Cluster) -> Target:
    wanted = images.at_version(daemonset.template, spec.version or "", spec.image_repository)
    felix = images.image(wanted[images.CONTAINER])
    patch = images.images_patch(daemonset.template, wanted)
    reached = images.images(daemonset.template) == wanted
    return Target(
        template=daemonset.template,
        version=felix.tag,
        images=wanted,
        patch=patch,
        revision=_current(cluster, wanted, reached),
    )


def _of_template(template: Object, cluster: Cluster, reached: bool) -> Target:
    wanted = images.images(template)
    return Target(
        template=template,
        version=images.version(template),
        images=wanted,
        patch=images.template_patch(template),
        revision=_current(cluster, wanted, reached),
    )


def _current(cluster: Cluster, wanted: Mapping[str, str], reached: bool) -> Revision | None:
    """The newest revision, once the DaemonSet is at the target and its controller has noticed."""
    newest = cluster.newest
    if reached and newest is not None and images.images(newest.template) == wanted:
        return newest
    return None


def _template_in(objects: Sequence[Object], daemonset: DaemonSet) -> Object:
    """The pod template of ``daemonset`` in a manifest.

    :raises Refusal: the manifest does not contain it, or it runs no Felix.
    """
    where = f"DaemonSet {daemonset.namespace}/{daemonset.name}"
    flat = _flat(objects)
    for item in flat:
        if _is_daemonset(item, daemonset.namespace, daemonset.name):
            template: Object = (item.get("spec") or {}).get("template") or {}
            if not images.has_felix(template):
                raise Refusal(
                    f"manifest: its {where} has no container named {images.CONTAINER}; "
                    "use Calico's own manifest, with your settings in it"
                )
            return template
    kinds = sorted({str(item.get("kind")) for item in flat})
    raise Refusal(
        f"manifest: no {where} among its {len(flat)} objects ({', '.join(kinds) or 'none'}); "
        "give Calico's manifest for the eBPF dataplane as a list of all its objects"
    )


def _flat(objects: Sequence[Object]) -> list[Object]:
    """The objects, each List replaced by its items."""
    return [item for found in objects for item in (found.get("items") or [found])]


def _is_daemonset(item: Object, namespace: str, name: str) -> bool:
    metadata = item.get("metadata") or {}
    named = (metadata.get("namespace", namespace), metadata.get("name"))
    return item.get("kind") == "DaemonSet" and named == (namespace, name)


def on_delete(manifest: Sequence[Object], namespace: str, name: str) -> list[Object]:
    """The manifest's objects, the DaemonSet last and at OnDelete: applying them replaces no pod."""
    objects = _flat(manifest)
    others = [item for item in objects if not _is_daemonset(item, namespace, name)]
    own = [item for item in objects if _is_daemonset(item, namespace, name)]
    strategy = {"updateStrategy": {"type": "OnDelete"}}
    return others + [{**item, "spec": {**(item.get("spec") or {}), **strategy}} for item in own]


def saved_strategy(where: str, annotation: str) -> dict[str, Any]:
    """The update strategy from before the rollout, which the annotation holds.

    :raises Refusal: the annotation holds something else.
    """
    try:
        strategy = json.loads(annotation)
    except ValueError as error:
        raise Refusal(
            f"{where}: its annotation {UPDATE_STRATEGY} is not JSON ({error}). It holds the update "
            'strategy from before the rollout: set it to that, such as {"type": "RollingUpdate"}, '
            "or remove the annotation"
        ) from error
    if not isinstance(strategy, dict):
        raise Refusal(
            f"{where}: its annotation {UPDATE_STRATEGY} is {annotation}, not an update strategy "
            'such as {"type": "RollingUpdate"}: correct it, or remove the annotation'
        )
    return strategy


def former_revision(spec: RolloutSpec, cluster: Cluster) -> Revision | None:
    """The revision that a rollback returns to.

    It is the one in the DaemonSet's annotation. If an upgrade is about to begin and no pod has that
    revision any more, it is the newest one. Without an annotation, it is the one before the newest.
    """
    daemonset, newest = cluster.daemonset, cluster.newest
    if daemonset is None or newest is None:
        return None
    saved = cluster.revision(daemonset.annotations.get(FORMER_REVISION))
    if spec.mode is RolloutMode.UPGRADE:
        wanted = target(spec, cluster)
        begins = wanted is not None and wanted.revision is None
        if begins and not any(saved and pod.revision == saved.hash for pod in cluster.pods):
            return newest
    if saved is not None:
        return saved
    older = [known for known in cluster.revisions if known.number < newest.number]
    return max(older, key=lambda known: known.number, default=None)


def state(node: Node, cluster: Cluster, revision: Revision | None) -> NodeState:
    """A node's progress to the target's ``revision``, which is None until it exists."""
    pod, wanted = cluster.pod_on(node.name), revision.hash if revision else None
    runs = pod is not None and pod.ready and not pod.terminating and pod.revision == wanted
    if node.cordoned_by is not None or cluster.is_being_replaced(node.name):
        return NodeState.INTERRUPTED
    return NodeState.DONE if runs and node.verified == wanted else NodeState.TODO


def nodes_of(spec: RolloutSpec, cluster: Cluster) -> list[Node]:
    """The nodes of the run in its order; a rollback begins with the node upgraded last."""
    by_name = {node.name: node for node in cluster.nodes}
    cordoned = {node.name for node in cluster.nodes if node.cordoned_by is not None}
    names = spec.nodes or sorted(cordoned | {pod.node for pod in cluster.pods})
    chosen = [by_name[name] for name in dict.fromkeys(names) if name in by_name]
    if spec.mode is RolloutMode.UPGRADE:
        return chosen
    former = former_revision(spec, cluster)
    touched = [node for node in chosen if _touched(node, cluster, former)]
    # A node without a time was being upgraded when the run stopped.
    return sorted(touched, key=lambda node: node.upgraded_at or "9999", reverse=True)


def _touched(node: Node, cluster: Cluster, former: Revision | None) -> bool:
    pod = cluster.pod_on(node.name)
    if node.upgraded_at is not None or node.cordoned_by is not None or pod is None:
        return True
    if cluster.is_being_replaced(node.name) or former is None:
        return True
    return pod.revision != former.hash


def attach_type_on(node: Node, cluster: Cluster, wanted: Target) -> str | None:
    """How a release with TCX support attaches on ``node``; see ``versions.attach_type``."""
    pod = cluster.pod_on(node.name)
    running = parse(pod.version) if pod and pod.version else None
    daemonset = cluster.daemonset
    template = daemonset.template if daemonset and knows_tcx(running) else wanted.template
    configured = setting("bpfAttachType", "FELIX_BPFATTACHTYPE", node.name, template, cluster)
    return attach_type(None if configured is None else str(configured), parse_kernel(node.kernel))


def setting(name: str, variable: str, node: str, template: Object, cluster: Cluster) -> Any:
    """A Felix setting: from its environment, its node's FelixConfiguration, or the default one.

    None if it is set in none of them, or could not be read.
    """
    environment = images.environment(template)
    if variable in environment:
        return environment[variable]
    for configuration in (f"node.{node}", "default"):
        if name in ((cluster.felix or {}).get(configuration) or {}):
            return (cluster.felix or {})[configuration][name]
    return None
