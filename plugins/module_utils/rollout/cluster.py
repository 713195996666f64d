# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a rollout stands and where it is to go: the DaemonSet, its revisions, each node. Pure."""

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


class Mode(str, Enum):
    UPGRADE = "upgrade"
    ROLLBACK = "rollback"


class State(str, Enum):
    """``done``: verified at the target. ``interrupted``: an earlier run left it half way."""

    DONE = "done"
    TODO = "todo"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class RolloutSpec:
    """What a run is asked to do: by a version, by a manifest's objects, or back."""

    namespace: str = "kube-system"
    daemonset: str = images.CONTAINER
    mode: Mode = Mode.UPGRADE
    version: str | None = None
    manifest: Sequence[Object] | None = None
    image_repository: str | None = None
    #: Empty for every node that has a pod of the DaemonSet, or was left without one.
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
    #: Whether it bears our finalizer.
    held: bool = False

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
    """What was read of it; None is what could not be, as ``unread`` says."""

    daemonset: DaemonSet | None
    revisions: tuple[Revision, ...] = ()
    pods: tuple[Pod, ...] = ()
    nodes: tuple[Node, ...] = ()
    #: Whether an Installation of the operator's is there.
    installation: bool = False
    #: The spec of each FelixConfiguration by its name.
    felix: Mapping[str, Object] | None = None
    #: vxlan, ipip or none.
    encapsulation: str | None = None
    #: Of each node, the budgets that can never be met there, in words.
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
        return max(self.revisions, key=lambda each: each.number, default=None)

    def revision(self, name: str | None) -> Revision | None:
        return next((each for each in self.revisions if each.name == name), None)

    def pod_on(self, node: str) -> Pod | None:
        """The pod on a node, rather one that stays than one that terminates."""
        there = self._pods_by_node.get(node, ())
        return min(there, key=lambda pod: pod.terminating, default=None)

    def is_being_replaced(self, node: str) -> bool:
        """Whether a pod there bears our finalizer, perhaps beside its successor."""
        return any(pod.held for pod in self._pods_by_node.get(node, ()))

    @cached_property
    def _pods_by_node(self) -> Mapping[str, Sequence[Pod]]:
        found: dict[str, list[Pod]] = {}
        for pod in self.pods:
            found.setdefault(pod.node, []).append(pod)
        return found


@dataclass(frozen=True)
class Target:
    """What the DaemonSet is to become. ``revision`` is the one it has, if it is that already."""

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

    None where there is none, where it runs no Felix, or where there is nothing to go back to.

    :raises Refusal: the manifest does not hold the DaemonSet.
    """
    held = cluster.daemonset
    if held is None or not images.has_felix(held.template):
        return None
    if spec.mode is Mode.ROLLBACK:
        former = former_revision(spec, cluster)
        return _of_template(former.template, cluster, former == cluster.newest) if former else None
    if spec.manifest is not None:
        template = _template_in(spec.manifest, held)
        return _of_template(template, cluster, images.contains(held.template, template))
    return _of_version(spec, held, cluster)


def _of_version(spec: RolloutSpec, held: DaemonSet, cluster: Cluster) -> Target:
    wanted = images.at_version(held.template, spec.version or "", spec.image_repository)
    felix = images.image(wanted[images.CONTAINER])
    patch = images.images_patch(held.template, wanted)
    reached = images.images(held.template) == wanted
    return Target(held.template, felix.tag, wanted, patch, _current(cluster, wanted, reached))


def _of_template(template: Object, cluster: Cluster, reached: bool) -> Target:
    wanted = images.images(template)
    current = _current(cluster, wanted, reached)
    patch = images.template_patch(template)
    return Target(template, images.version(template), wanted, patch, current)


def _current(cluster: Cluster, wanted: Mapping[str, str], reached: bool) -> Revision | None:
    """The newest revision, once the DaemonSet is as wanted and its controller has seen that."""
    newest = cluster.newest
    if reached and newest is not None and images.images(newest.template) == wanted:
        return newest
    return None


def _template_in(objects: Sequence[Object], held: DaemonSet) -> Object:
    """The pod template of the DaemonSet ``held`` as a manifest has it.

    :raises Refusal: it is not there, or runs no Felix.
    """
    where = f"DaemonSet {held.namespace}/{held.name}"
    flat = _flat(objects)
    for each in flat:
        if _is_daemonset(each, held.namespace, held.name):
            template: Object = (each.get("spec") or {}).get("template") or {}
            if not images.has_felix(template):
                raise Refusal(
                    f"manifest: its {where} has no container named {images.CONTAINER}; "
                    "give Calico's own manifest, with your settings in it"
                )
            return template
    kinds = sorted({str(each.get("kind")) for each in flat})
    raise Refusal(
        f"manifest: no {where} among its {len(flat)} objects ({', '.join(kinds) or 'none'}); "
        "give Calico's manifest for the eBPF dataplane as a list of all its objects"
    )


def _flat(objects: Sequence[Object]) -> list[Object]:
    """The objects, with what is in a List in its place."""
    return [item for each in objects for item in (each.get("items") or [each])]


def _is_daemonset(each: Object, namespace: str, name: str) -> bool:
    metadata = each.get("metadata") or {}
    named = (metadata.get("namespace", namespace), metadata.get("name"))
    return each.get("kind") == "DaemonSet" and named == (namespace, name)


def on_delete(manifest: Sequence[Object], namespace: str, name: str) -> list[Object]:
    """The manifest's objects, the DaemonSet last and at OnDelete: applying it replaces no pod."""
    objects = _flat(manifest)
    others = [each for each in objects if not _is_daemonset(each, namespace, name)]
    own = [each for each in objects if _is_daemonset(each, namespace, name)]
    strategy = {"updateStrategy": {"type": "OnDelete"}}
    return others + [{**each, "spec": {**(each.get("spec") or {}), **strategy}} for each in own]


def noted_strategy(where: str, note: str) -> dict[str, Any]:
    """The update strategy from before the rollout, as the annotation notes it.

    :raises Refusal: someone else wrote the annotation.
    """
    try:
        strategy = json.loads(note)
    except ValueError as error:
        raise Refusal(
            f"{where}: its annotation {UPDATE_STRATEGY} is not JSON ({error}). It notes the update "
            'strategy from before the rollout: put that in, such as {"type": "RollingUpdate"}, or '
            "remove the annotation"
        ) from error
    if not isinstance(strategy, dict):
        raise Refusal(
            f"{where}: its annotation {UPDATE_STRATEGY} is {note}, not an update strategy such as "
            '{"type": "RollingUpdate"}: put that in, or remove the annotation'
        )
    return strategy


def former_revision(spec: RolloutSpec, cluster: Cluster) -> Revision | None:
    """The revision to go back to.

    The one noted at the DaemonSet, unless a new upgrade is about to begin from where all nodes
    stand now; without a note, the newest that is older than the present one.
    """
    held, newest = cluster.daemonset, cluster.newest
    if held is None or newest is None:
        return None
    noted = cluster.revision(held.annotations.get(FORMER_REVISION))
    if spec.mode is Mode.UPGRADE:
        wanted = target(spec, cluster)
        begins = wanted is not None and wanted.revision is None
        if begins and not any(noted and pod.revision == noted.hash for pod in cluster.pods):
            return newest
    if noted is not None:
        return noted
    older = [each for each in cluster.revisions if each.number < newest.number]
    return max(older, key=lambda each: each.number, default=None)


def state(node: Node, cluster: Cluster, revision: Revision | None) -> State:
    """How far a node is on its way to the target's ``revision``, None while that is not there."""
    pod, wanted = cluster.pod_on(node.name), revision.hash if revision else None
    runs = pod is not None and pod.ready and not pod.terminating and pod.revision == wanted
    if node.cordoned_by is not None or cluster.is_being_replaced(node.name):
        return State.INTERRUPTED
    return State.DONE if runs and node.verified == wanted else State.TODO


def nodes_of(spec: RolloutSpec, cluster: Cluster) -> list[Node]:
    """The nodes that the run is about, in its order; a rollback's newest first."""
    by_name = {node.name: node for node in cluster.nodes}
    ours = {node.name for node in cluster.nodes if node.cordoned_by is not None}
    names = spec.nodes or sorted(ours | {pod.node for pod in cluster.pods})
    chosen = [by_name[name] for name in dict.fromkeys(names) if name in by_name]
    if spec.mode is Mode.UPGRADE:
        return chosen
    former = former_revision(spec, cluster)
    touched = [node for node in chosen if _touched(node, cluster, former)]
    # One that has no time yet was being changed when the run stopped.
    return sorted(touched, key=lambda node: node.upgraded_at or "9999", reverse=True)


def _touched(node: Node, cluster: Cluster, former: Revision | None) -> bool:
    pod = cluster.pod_on(node.name)
    if node.upgraded_at is not None or node.cordoned_by is not None or pod is None:
        return True
    if cluster.is_being_replaced(node.name) or former is None:
        return True
    return pod.revision != former.hash


def attach_type_on(node: Node, cluster: Cluster, wanted: Target) -> str | None:
    """How a release that knows TCX attaches on ``node``, or would; see ``versions.attach_type``."""
    pod = cluster.pod_on(node.name)
    running = parse(pod.version) if pod and pod.version else None
    held = cluster.daemonset
    template = held.template if held and knows_tcx(running) else wanted.template
    configured = setting("bpfAttachType", "FELIX_BPFATTACHTYPE", node.name, template, cluster)
    return attach_type(None if configured is None else str(configured), parse_kernel(node.kernel))


def setting(name: str, variable: str, node: str, template: Object, cluster: Cluster) -> Any:
    """A setting of Felix's: its environment, else its node's configuration, else the default one.

    None where nobody sets it, or it is not known.
    """
    environment = images.environment(template)
    if variable in environment:
        return environment[variable]
    for each in (f"node.{node}", "default"):
        if name in ((cluster.felix or {}).get(each) or {}):
            return (cluster.felix or {})[each][name]
    return None
