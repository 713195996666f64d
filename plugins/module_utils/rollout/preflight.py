# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a run may start: every reason against it, each with what to do. Pure.

``judge`` is the entry point.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..calico import advisories, images
from ..calico.advisories import Advisory, AdvisorySeverity, UpgradePath
from ..calico.versions import parse, parse_kernel
from ..errors import Refusal
from ..kube.pdb import not_judged
from .cluster import (
    Cluster,
    Node,
    NodeState,
    Revision,
    RolloutMode,
    RolloutSpec,
    Target,
    attach_type_on,
    former_revision,
    nodes_of,
    setting,
    state,
    target,
)
from .permissions import Permission
from .room import batches, tight_batch

#: The codes of all blockers, except those of advisories.
CODES = frozenset(
    {
        "api_permission",
        "no_daemonset",
        "no_former_revision",
        "operator_install",
        "not_bpf",
        "node_unknown",
        "node_not_ready",
        "no_pod",
        "budget_never_met",
        "no_room",
        "image_suffix",
        "unknown_version",
        "known_bad_path",
    }
)
#: Cannot be accepted: the run would only fail later.
_FINAL = frozenset({"api_permission", "no_daemonset", "no_former_revision", "node_unknown"})
#: The codes that block a rollback too. All others must not prevent the return to the old version.
_STOPS_ROLLBACK = _FINAL | {"operator_install", "tcx_downgrade"}
_TRUE = frozenset({"true", "1", "yes", "y", "t"})


@dataclass(frozen=True)
class Problem:
    """One reason against the run, with what to do. One that does not block is a warning."""

    code: str
    message: str
    node: str | None = None
    #: The advisory behind a known_bad_path.
    advisory: str | None = None
    blocks: bool = True

    @property
    def codes(self) -> frozenset[str]:
        return frozenset(filter(None, (self.code, self.advisory)))


@dataclass(frozen=True)
class MatchedAdvisory:
    """An advisory, and the nodes whose upgrade it applies to."""

    advisory: Advisory
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class NodeStatus:
    """A node, its progress and its problems."""

    node: Node
    state: NodeState
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class PreflightResult:
    target: Target | None
    former: Revision | None
    nodes: tuple[NodeStatus, ...]
    advisories: tuple[MatchedAdvisory, ...]
    problems: tuple[Problem, ...]


def check_overrides(overrides: Iterable[str]) -> None:
    """:raises Refusal: an override is not the code of a blocker, or cannot be accepted."""
    for each in sorted(overrides):
        if each in _FINAL:
            raise Refusal(f"overrides: {each} cannot be accepted: the run would fail later")
        if each not in CODES | advisories.CODES:
            known = ", ".join(sorted((CODES - _FINAL) | advisories.CODES))
            raise Refusal(f"overrides: {each!r} is not the code of a blocker; codes: {known}")


def not_permitted(missing: Sequence[Permission]) -> list[Problem]:
    """One problem that lists all missing permissions; none if none is missing."""
    if not missing:
        return []
    listed = "; ".join(map(str, missing))
    text = (
        f"the API does not permit: {listed}. Nothing was changed. Bind a ClusterRole with these "
        "to the user or service account of this run, then rerun"
    )
    return [Problem("api_permission", text)]


def judge(spec: RolloutSpec, cluster: Cluster) -> PreflightResult:
    """The result of all checks before a run.

    :raises Refusal: the manifest does not contain the DaemonSet.
    """
    wanted, former = target(spec, cluster), former_revision(spec, cluster)
    nodes = nodes_of(spec, cluster)
    matched = advise(spec, cluster, wanted) if wanted else []
    found = [*_check_install(spec, cluster, wanted), *_check_bpf(cluster, nodes)]
    found += _check_extent(spec, cluster, wanted, former)
    found += _check_images(spec, cluster, wanted)
    found += [
        _from_advisory(each)
        for each in matched
        if each.advisory.severity is AdvisorySeverity.REFUSE
    ]
    found += [Problem("unread", text, blocks=False) for text in cluster.unread]
    found += _unknown_nodes(spec, cluster)
    statuses = []
    for node in nodes:
        at = state(node, cluster, wanted.revision if wanted else None)
        problems = [_adjusted(each, spec) for each in _check_node(node, at, cluster)]
        statuses.append(NodeStatus(node, at, tuple(problems)))
        found += problems
    found += _check_room(spec, cluster, statuses)
    adjusted = tuple(_adjusted(each, spec) for each in found)
    return PreflightResult(wanted, former, tuple(statuses), tuple(matched), adjusted)


def _adjusted(problem: Problem, spec: RolloutSpec) -> Problem:
    """The problem; a warning if it is accepted, or if it must not prevent a rollback."""
    if not problem.blocks or problem.code in _FINAL:
        return problem
    if problem.codes & spec.overrides:
        text = f"accepted by overrides: {problem.message}"
        return replace(problem, blocks=False, message=text)
    if spec.mode is RolloutMode.ROLLBACK and not problem.codes & _STOPS_ROLLBACK:
        return replace(problem, blocks=False)
    return problem


def _check_install(spec: RolloutSpec, cluster: Cluster, wanted: Target | None) -> Iterator[Problem]:
    where = f"{spec.namespace}/{spec.daemonset}"
    daemonset = cluster.daemonset
    if cluster.install == "operator" or (daemonset is None and cluster.installation):
        yield Problem(
            "operator_install",
            f"DaemonSet {where} is managed by the Tigera operator, which allows RollingUpdate only "
            "and reverts every manual change, so this collection cannot upgrade the nodes one by "
            "one. Nothing was changed. Instead: repair the endpoints of all nodes in place "
            "(qdisc_consistency, state=consistent), let the operator roll out the upgrade with "
            "spec.nodeUpdateStrategy maxUnavailable 1 in the Installation, and audit each node "
            "after its upgrade",
        )
    if daemonset is None:
        yield Problem(
            "no_daemonset",
            f"there is no DaemonSet {where}. Set namespace and daemonset to those of calico-node "
            "(kubectl get daemonsets -A -l k8s-app=calico-node)",
        )
    elif not images.has_felix(daemonset.template):
        yield Problem(
            "no_daemonset",
            f"DaemonSet {where} has no container named {images.CONTAINER}, so it does not run "
            "Felix. Set namespace and daemonset to those of the DaemonSet that does",
        )
    elif wanted is None:
        yield Problem(
            "no_former_revision",
            f"DaemonSet {where} has no former revision to roll back to: its annotation does not "
            "name an existing ControllerRevision, and no older one exists. Run an upgrade to the "
            "former version or manifest instead",
        )


def _check_extent(
    spec: RolloutSpec, cluster: Cluster, wanted: Target | None, former: Revision | None
) -> Iterator[Problem]:
    """What a run must know of the DaemonSet before it begins: its pods, and a way back."""
    if wanted is None:
        return
    where = f"DaemonSet {spec.namespace}/{spec.daemonset}"
    if not cluster.pods and not spec.nodes:
        yield Problem(
            "no_pod",
            f"{where} has no pod on any node, so there is nothing to check or to upgrade. See "
            "kubectl describe daemonset, or name the nodes of the run",
        )
    if former is None:
        yield Problem(
            "no_former_revision",
            f"{where} has no ControllerRevision, so a rollback of this run would have nothing to "
            "return to. Check that the DaemonSet controller runs (kube-controller-manager)",
            blocks=False,
        )


def _check_images(spec: RolloutSpec, cluster: Cluster, wanted: Target | None) -> Iterator[Problem]:
    """What a version alters of the images besides the version."""
    if wanted is None or cluster.daemonset is None or not spec.version:
        return
    template = cluster.daemonset.template
    for container, tag in images.lost_suffixes(template, wanted.images).items():
        yield Problem(
            "image_suffix",
            f"the image of {container} has the tag {tag}, and would get "
            f"{wanted.images[container]}, without the suffix. Some distributions publish a release "
            "only with one: name the whole tag as the version if yours does, or accept this code",
        )
    pinned = images.lost_digests(template, wanted.images)
    if pinned:
        yield Problem(
            "image_digest",
            f"the image of {', '.join(pinned)} is pinned by a digest, and the new one is not. "
            "Apply a manifest with digests to keep that",
            blocks=False,
        )


def _check_bpf(cluster: Cluster, nodes: Sequence[Node]) -> Iterator[Problem]:
    if cluster.daemonset is None or not images.has_felix(cluster.daemonset.template):
        return
    template = cluster.daemonset.template
    for enabled, names in _enabled(cluster, nodes).items():
        where = f"on {', '.join(names)}"
        if enabled is None:
            yield Problem(
                "not_bpf",
                f"whether Felix runs in eBPF mode {where} is not known: FELIX_BPFENABLED is not "
                "in the DaemonSet, and no FelixConfiguration could be read. This collection is of "
                "use only in eBPF mode",
                blocks=False,
            )
        elif not enabled:
            source = (
                "FELIX_BPFENABLED in the DaemonSet"
                if "FELIX_BPFENABLED" in images.environment(template)
                else "bpfEnabled in the FelixConfiguration"
            )
            yield Problem(
                "not_bpf",
                f"Felix does not run in eBPF mode {where}, by {source}: it attaches no TC programs "
                "that could be checked. Use a plain rollout there, or exclude these nodes",
            )


def _enabled(cluster: Cluster, nodes: Sequence[Node]) -> Mapping[bool | None, list[str]]:
    """Nodes by whether eBPF mode is on; the default is off."""
    by: dict[bool | None, list[str]] = {}
    template = cluster.daemonset.template if cluster.daemonset else {}
    for node in nodes:
        value = setting("bpfEnabled", "FELIX_BPFENABLED", node.name, template, cluster)
        unknown = value is None and (
            cluster.felix is None or "FELIX_BPFENABLED" in images.environment(template)
        )
        by.setdefault(None if unknown else str(value).lower() in _TRUE, []).append(node.name)
    return by


def _unknown_nodes(spec: RolloutSpec, cluster: Cluster) -> Iterator[Problem]:
    known = {node.name for node in cluster.nodes}
    for name in spec.nodes:
        if name not in known:
            yield Problem(
                "node_unknown",
                f"{name} is in the inventory but is not a node of this cluster. Use the names that "
                "kubectl get nodes shows, or remove the host from the inventory",
                name,
            )


def _check_node(node: Node, at: NodeState, cluster: Cluster) -> Iterator[Problem]:
    """The problems of one node. Those left by an interrupted run are warnings."""
    interrupted = at is NodeState.INTERRUPTED
    if not node.ready:
        yield Problem(
            "node_not_ready",
            f"node {node.name} is not Ready: a change there could not be verified. See "
            f"kubectl describe node {node.name}, and fix the node first",
            node.name,
            blocks=not interrupted,
        )
    pod = cluster.pod_on(node.name)
    if pod is None:
        yield Problem(
            "no_pod",
            f"node {node.name} has no pod of the DaemonSet: it is not selected (nodeSelector, "
            "taints), or the pod is not created yet. Exclude the node, or fix that first",
            node.name,
            blocks=not interrupted,
        )
    elif not pod.ready and not interrupted:
        yield Problem(
            "pod_not_ready",
            f"pod {pod.name} on node {node.name} is not Ready: endpoints out of parity are "
            "repaired first; for other causes see its log",
            node.name,
            blocks=False,
        )
    if node.unschedulable and node.cordoned_by is None:
        yield Problem(
            "node_cordoned_by_another",
            f"node {node.name} was cordoned by someone else: it is drained and upgraded like any "
            "other, and STAYS CORDONED afterwards",
            node.name,
            blocks=False,
        )
    if at is not NodeState.DONE:
        for text in cluster.budgets.get(node.name, ()):
            yield Problem("budget_never_met", f"node {node.name}: {text}", node.name)
        if budgets := not_judged(cluster.covered.get(node.name, ())):
            yield Problem(
                "budget_not_judged",
                f"node {node.name}: whether {', '.join(budgets)} can be met is not known, since "
                "the API has no current status of it. Check that the disruption controller runs "
                "(kube-controller-manager); the drain waits for it",
                node.name,
                blocks=False,
            )


def _check_room(
    spec: RolloutSpec, cluster: Cluster, statuses: Sequence[NodeStatus]
) -> Iterator[Problem]:
    """A batch whose drains cannot complete, since no other node takes its pods."""
    planned = batches(spec.batches, [each.node.name for each in statuses])
    done = {each.node.name for each in statuses if each.state is NodeState.DONE}
    tight = tight_batch(planned, done, cluster)
    if tight is None:
        return
    listed = ", ".join(tight.nodes)
    budgets = "; ".join(each.text for each in tight.obstacles)
    text = f"with {listed} drained, no node is left for the evicted pods: {budgets}."
    if tight.cordoned:
        names = [node.name for node in tight.cordoned]
        text += (
            f" Cordoned by an earlier run of this collection: {', '.join(names)}. Uncordon those"
            f" whose calico-node was not replaced (kubectl uncordon {' '.join(names)}): each is"
            " cordoned again when its drain begins"
        )
    else:
        text += " Add a node, or uncordon one"
    if len(tight.nodes) > 1:
        text += ", and set smaller calico_bpf_batches"
    yield Problem("no_room", text)


def advise(spec: RolloutSpec, cluster: Cluster, wanted: Target) -> list[MatchedAdvisory]:
    """The advisories for all nodes, since all share one template; the gravest first."""
    found: dict[str, tuple[Advisory, list[str]]] = {}
    for node, path in _paths(cluster, wanted):
        for each in _selected(spec, path, wanted):
            known, names = found.setdefault(each.code, (each, []))
            graver = advisories.gravest_first((known, each))[0]
            names += [node] if node else []
            found[each.code] = (graver, names)
    ordered = advisories.gravest_first([advisory for advisory, _names in found.values()])
    return [MatchedAdvisory(each, tuple(found[each.code][1])) for each in ordered]


def _selected(spec: RolloutSpec, path: UpgradePath, wanted: Target) -> list[Advisory]:
    if wanted.release is None:
        shown = wanted.version or " ".join(wanted.images.values())
        return [advisories.unknown_version(shown)]
    chosen = advisories.select(path)
    if spec.mode is RolloutMode.UPGRADE and spec.manifest is None:
        return chosen
    return [each for each in chosen if not each.another_minor]


def _paths(cluster: Cluster, wanted: Target) -> Iterator[tuple[str | None, UpgradePath]]:
    """The upgrade path of each node; that of the DaemonSet if it has no pods."""
    by_name = {node.name: node for node in cluster.nodes}
    placed = [pod for pod in cluster.pods if pod.node in by_name]
    for pod in placed:
        node = by_name[pod.node]
        yield (
            node.name,
            UpgradePath(
                parse(pod.version or ""),
                wanted.release,
                parse_kernel(node.kernel),
                cluster.encapsulation,
                attach_type_on(node, cluster, wanted),
            ),
        )
    if not placed and cluster.daemonset:
        present = images.version(cluster.daemonset.template)
        yield None, UpgradePath(parse(present or ""), wanted.release, None, cluster.encapsulation)


def _from_advisory(matched: MatchedAdvisory) -> Problem:
    advisory = matched.advisory
    if advisory.code == "unknown_version":
        return Problem("unknown_version", str(advisory))
    where = f" (nodes {', '.join(matched.nodes)})" if matched.nodes else ""
    text = (
        f"{advisory}{where}. Nothing was changed. To upgrade nevertheless, put {advisory.code} "
        "into overrides"
    )
    return Problem("known_bad_path", text, advisory=advisory.code)
