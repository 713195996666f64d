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
from .cluster import Cluster, DaemonSet, NodeState, Revision, RolloutSpec, Target, saved_strategy
from .permissions import Permission
from .preflight import MatchedAdvisory, NodeStatus, PreflightResult, Problem, not_permitted

Result = dict[str, Any]


def advisory(found: Advisory, accepted: Iterable[str] = ()) -> Result:
    return {
        "code": found.code,
        "severity": found.severity.value,
        "text": found.text,
        "advice": found.advice,
        "fixed_in": list(found.fixed_in),
        "refs": list(found.refs),
        "accepted": found.code in set(accepted),
    }


def advised(path: UpgradePath, chosen: Sequence[Advisory]) -> Result:
    """What calico_advisory_info returns."""
    worst = min((list(AdvisorySeverity).index(found.severity) for found in chosen), default=None)
    return {
        "advisories": [advisory(found) for found in chosen],
        "severity": "none" if worst is None else list(AdvisorySeverity)[worst].value,
        "from_behaviour": _behaviour(path.origin),
        "to_behaviour": _behaviour(path.target),
        "attach_type": path.attach_type,
    }


def _behaviour(release: Release | None) -> str | None:
    found = behaviour(release)
    return found.value if found else None


def forbidden(missing: Sequence[Permission]) -> Result:
    """What rollout_info returns if the user may not read the cluster."""
    nothing = PreflightResult(None, None, (), (), tuple(not_permitted(missing)))
    return preflight(nothing, Cluster(daemonset=None), RolloutSpec(), 0, missing)


def preflight(
    judged: PreflightResult,
    cluster: Cluster,
    spec: RolloutSpec,
    node_duration: int,
    missing: Sequence[Permission] = (),
) -> Result:
    """What rollout_info returns. ``node_duration`` is in seconds."""
    nodes = [_node(status, cluster) for status in judged.nodes]
    left = sum(status.state is not NodeState.DONE for status in judged.nodes)
    return {
        "changed": False,
        "install": cluster.install,
        "daemonset": _daemon_set(cluster.daemonset, cluster),
        "target": _target(judged.target),
        "former_revision": _revision(judged.former),
        "nodes": nodes,
        "versions": dict(Counter(pod.version or "unknown" for pod in cluster.pods)),
        "advisories": [
            {**advisory(matched.advisory, _accepted(matched, spec)), "nodes": list(matched.nodes)}
            for matched in judged.advisories
        ],
        # Ansible would treat a top-level key named warnings as its own.
        "problems": _problems(judged.problems),
        "permissions": [str(permission) for permission in missing],
        "encapsulation": cluster.encapsulation,
        "estimated_seconds": left * node_duration,
    }


def _accepted(matched: MatchedAdvisory, spec: RolloutSpec) -> set[str]:
    refuses = matched.advisory.severity is AdvisorySeverity.REFUSE
    general = refuses and "known_bad_path" in spec.overrides
    return {matched.advisory.code} if general else set(spec.overrides)


def _problems(problems: Iterable[Problem]) -> Result:
    by_severity: dict[str, list[Result]] = {"blockers": [], "warnings": []}
    for problem in problems:
        by_severity["blockers" if problem.blocks else "warnings"].append(
            {
                "code": problem.code,
                "node": problem.node,
                "advisory": problem.advisory,
                "message": problem.message,
            }
        )
    return {**by_severity}


def _daemon_set(daemonset: DaemonSet | None, cluster: Cluster) -> Result | None:
    if daemonset is None:
        return None
    newest = cluster.newest
    return {
        "namespace": daemonset.namespace,
        "name": daemonset.name,
        "version": images.version(daemonset.template),
        "images": images.images(daemonset.template),
        "update_strategy": dict(daemonset.strategy),
        "former_update_strategy": _former_strategy(daemonset),
        "revision": newest.name if newest else None,
        "revision_hash": newest.hash if newest else None,
    }


def _former_strategy(daemonset: DaemonSet) -> Result | None:
    """:raises Refusal: the annotation does not hold a strategy."""
    saved = daemonset.annotations.get(UPDATE_STRATEGY)
    where = f"DaemonSet {daemonset.namespace}/{daemonset.name}"
    return None if saved is None else saved_strategy(where, saved)


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


def _revision(revision: Revision | None) -> str | None:
    return revision.name if revision else None


def _node(status: NodeStatus, cluster: Cluster) -> Result:
    node, pod = status.node, cluster.pod_on(status.node.name)
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
        "state": status.state.value,
        "cordoned_by": node.cordoned_by,
        "verified": node.verified,
        "upgraded_at": node.upgraded_at,
        "problems": _problems(status.problems),
    }
