# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The preflight of a rollback: where it goes back to, and in which order."""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.cluster import (
    DaemonSet,
    NodeState,
    RolloutMode,
    RolloutSpec,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.preflight import (
    judge,
)
from ansible_collections.dataplane.calico_bpf.tests.support.rollout.clusters import (
    NEW,
    OLD,
    blocked,
    bpf,
    cluster,
    pod,
    revision,
    states,
    upgraded,
    warned,
)

BACK = RolloutSpec(mode=RolloutMode.ROLLBACK)


def test_a_rollback_starts_with_the_node_upgraded_last() -> None:
    seen = upgraded("a", "b")
    judged = judge(BACK, seen)
    assert list(states(judged)) == ["b", "a"]
    assert blocked(judged) == []
    assert judged.target is not None
    assert judged.target.version == OLD
    assert judged.target.patch["spec"]["template"]["$patch"] == "replace"
    half = replace(seen.nodes[2], cordoned_by="run 1")
    judged = judge(BACK, replace(seen, nodes=(*seen.nodes[:2], half)))
    assert states(judged) == {"c": NodeState.INTERRUPTED, "b": NodeState.TODO, "a": NodeState.TODO}
    assert list(states(judged)) == ["c", "b", "a"]


def test_without_an_annotation_a_rollback_returns_to_the_previous_revision() -> None:
    seen = upgraded("a")
    unnoted = replace(seen, revisions=(revision(0, "v3.27.0"), *seen.revisions))
    unnoted = replace(unnoted, daemonset=DaemonSet("kube-system", "calico-node", bpf(NEW)))
    judged = judge(BACK, unnoted)
    assert judged.former is not None
    assert judged.former.name == f"calico-node-{OLD}"


def test_after_a_rollback_the_revision_is_the_former_one() -> None:
    seen = upgraded("a")
    assert seen.daemonset is not None
    # The controller gives the old revision a new number.
    revisions = (revision(3, OLD), revision(2, NEW))
    held = replace(seen.daemonset, template=bpf(OLD))
    back = replace(seen.nodes[0], verified=f"hash-{OLD}")
    seen = replace(seen, daemonset=held, revisions=revisions, nodes=(back, *seen.nodes[1:]))
    judged = judge(BACK, replace(seen, pods=tuple(pod(n) for n in "abc")))
    assert judged.target is not None
    assert judged.target.revision == revisions[0]
    assert states(judged) == {"a": NodeState.DONE}


def test_a_rollback_needs_a_former_revision() -> None:
    assert blocked(judge(BACK, cluster("a"))) == [("no_former_revision", None)]


def test_most_problems_do_not_block_a_rollback() -> None:
    """Faults of the former release and present problems are only warnings."""
    seen = upgraded("a", former="v3.29.1")
    nodes = (replace(seen.nodes[0], ready=False), *seen.nodes[1:])
    judged = judge(BACK, replace(seen, nodes=nodes, budgets={"a": ("shop/db: never",)}))
    assert blocked(judged) == []
    assert warned(judged) == [
        ("known_bad_path", "heartbeat_churn"),
        ("node_not_ready", "a"),
        ("budget_never_met", "a"),
    ]


def test_a_rollback_away_from_tcx_is_blocked() -> None:
    seen = upgraded("a", former="v3.30.7", version="v3.31.7")
    nodes = tuple(replace(node, kernel="6.8.0") for node in seen.nodes)
    assert blocked(judge(BACK, replace(seen, nodes=nodes))) == [("known_bad_path", "tcx_downgrade")]
    seen = replace(seen, nodes=nodes, felix={"default": {"bpfAttachType": "TC"}})
    assert blocked(judge(BACK, seen)) == []
