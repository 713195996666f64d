# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What rollout_info and calico_advisory_info return: plain lists and dicts. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ..calico import images
from ..calico.advisories import Advisory, AdvisorySeverity, UpgradePath
from ..calico.versions import Release, behaviour, calico_version, parse
from ..kube.annotations import UPDATE_STRATEGY
from .cluster import Cluster, DaemonSet, Revision, RolloutSpec, State, Target, noted_strategy
from .permissions import Permission
from .preflight import Judgement, MatchedAdvisory, NodeStatus, Problem, not_permitted

Result = dict[str, Any]


def advisory(each: Advisory, accepted: Iterable[str] = ()) -> Result:
    return {
        "code": each.code,
        "severity": each.weight.value,
        "text": each.text,
        "advice": each.advice,
        "fixed_in": list(each.fixed_in),
        "refs": list(each.refs),
        "accepted": each.code in set(accepted),
    }


def advised(path: UpgradePath, chosen: Sequence[Advisory]) -> Result:
    """What calico_advisory_info returns."""
    worst = min((list(AdvisorySeverity).index(each.weight) for each in chosen), default=None)
    return {
        "advisories": [advisory(each) for each in chosen],
        "severity": "none" if worst is None else list(AdvisorySeverity)[worst].value,
        "from_behaviour": _behaviour(path.origin),
        "to_behaviour": _behaviour(path.target),
        "attach_type": path.attach_type,
    }


def _behaviour(release: Release | None) -> str | None:
    found = behaviour(release)
    return found.value if found else None


def forbidden(missing: Sequence[Permission]) -> Result:
    """Of a cluster that may not even be looked at."""
    nothing = Judgement(None, None, (), (), tuple(not_permitted(missing)))
    return preflight(nothing, Cluster(None), RolloutSpec(), 0, missing)


def preflight(
    judged: Judgement,
    cluster: Cluster,
    spec: RolloutSpec,
    node_duration: int,
    missing: Sequence[Permission] = (),
) -> Result:
    """What rollout_info returns. ``node_duration`` is in seconds."""
    nodes = [_node(each, cluster) for each in judged.nodes]
    left = sum(each.state is not State.DONE for each in judged.nodes)
    return {
        "changed": False,
        "install": cluster.install,
        "daemonset": _daemon_set(cluster.daemonset, cluster),
        "target": _target(judged.target),
        "former_revision": _revision(judged.former),
        "nodes": nodes,
        "versions": dict(Counter(pod.version or "unknown" for pod in cluster.pods)),
        "advisories": [
            {**advisory(told.advisory, _accepted(told, spec)), "nodes": list(told.nodes)}
            for told in judged.advisories
        ],
        # At the top level Ansible takes a key named warnings for its own.
        "problems": _problems(judged.problems),
        "permissions": [str(each) for each in missing],
        "encapsulation": cluster.encapsulation,
        "estimated_seconds": left * node_duration,
    }


def _accepted(told: MatchedAdvisory, spec: RolloutSpec) -> set[str]:
    general = told.advisory.weight is AdvisorySeverity.REFUSE and "known_bad_path" in spec.overrides
    return {told.advisory.code} if general else set(spec.overrides)


def _problems(problems: Iterable[Problem]) -> Result:
    by_weight: dict[str, list[Result]] = {"blockers": [], "warnings": []}
    for problem in problems:
        by_weight["blockers" if problem.blocks else "warnings"].append(
            {
                "code": problem.code,
                "node": problem.node,
                "advisory": problem.advisory,
                "message": problem.message,
            }
        )
    return {**by_weight}


def _daemon_set(held: DaemonSet | None, cluster: Cluster) -> Result | None:
    if held is None:
        return None
    newest = cluster.newest
    return {
        "namespace": held.namespace,
        "name": held.name,
        "version": images.version(held.template),
        "images": images.images(held.template),
        "update_strategy": dict(held.strategy),
        "former_update_strategy": _former_strategy(held),
        "revision": newest.name if newest else None,
        "revision_hash": newest.hash if newest else None,
    }


def _former_strategy(held: DaemonSet) -> Result | None:
    """:raises Refusal: someone else wrote the note."""
    noted = held.annotations.get(UPDATE_STRATEGY)
    where = f"DaemonSet {held.namespace}/{held.name}"
    return None if noted is None else noted_strategy(where, noted)


def _target(wanted: Target | None) -> Result | None:
    if wanted is None:
        return None
    return {
        "version": wanted.version,
        "calico_version": calico_version(wanted.release),
        "images": dict(wanted.images),
        "patch": dict(wanted.patch),
        "revision": wanted.revision.name if wanted.revision else None,
        "revision_hash": wanted.revision.hash if wanted.revision else None,
    }


def _revision(held: Revision | None) -> str | None:
    return held.name if held else None


def _node(standing: NodeStatus, cluster: Cluster) -> Result:
    node, pod = standing.node, cluster.pod_on(standing.node.name)
    version = pod.version if pod else None
    return {
        "name": node.name,
        "ready": node.ready,
        "unschedulable": node.unschedulable,
        "kernel": node.kernel,
        "pod": pod.name if pod else None,
        "pod_ready": pod.ready if pod else False,
        "version": version,
        "revision": pod.revision if pod else None,
        "calico_version": calico_version(parse(version or "")),
        "state": standing.state.value,
        "cordoned_by": node.cordoned_by,
        "verified": node.verified,
        "upgraded_at": node.upgraded_at,
        "problems": _problems(standing.problems),
    }
