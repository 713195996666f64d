# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the pods that a batch evicts find room, and what is said where they do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.pdb import (
    Budget,
    Covered,
    Toleration,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.cluster import (
    Cluster,
    Node,
    RolloutMode,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.preflight import judge
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.room import batches
from ansible_collections.dataplane.calico_bpf.tests.support.rollout.clusters import (
    SPEC,
    blocked,
    blockers,
    cluster,
    upgraded,
    warned,
)

TAINT = ("node-role.kubernetes.io/control-plane", "", "NoSchedule")
RULE = (
    "demo/web: minAvailable 2; {} of 3 pods are healthy, 2 are required: {} of the {} here may be"
    " evicted now"
)
#: An earlier run cordoned it, and a person.
CORDONED: Mapping[str, Any] = {"unschedulable": True, "cordoned_by": "anna"}
FOREIGN: Mapping[str, Any] = {"unschedulable": True}


def web(healthy: int = 3) -> Budget:
    """Two of three pods must be healthy."""
    status = {"expectedPods": 3, "desiredHealthy": 2, "currentHealthy": healthy}
    return Budget(
        {
            "metadata": {"namespace": "demo", "name": "web"},
            "spec": {"minAvailable": 2},
            "status": {**status, "disruptionsAllowed": healthy - 2},
        },
        True,
    )


def one_each(
    nodes: Sequence[Node], healthy: int = 3, tolerations: tuple[Toleration, ...] = ()
) -> Cluster:
    """A pod of the budget on each of the first nodes, as many as are healthy."""
    names = [node.name for node in nodes]
    covered = {n: (Covered(f"demo/{n}", True, (web(healthy),), tolerations),) for n in names}
    held = {name: covered[name] for name in names[:healthy]}
    return cluster(*names, nodes=tuple(nodes), covered=held)


def a_b_c(**changes: Mapping[str, Any]) -> list[Node]:
    return [replace(Node(name), **changes.get(name, {})) for name in "abc"]


@pytest.mark.parametrize(
    ("serial", "expected"),
    [
        ([], ["a", "b", "c", "d", "e"]),
        ([1], ["a", "b", "c", "d", "e"]),
        ([1, "50%"], ["a", "bc", "de"]),
        ([1, "10%", "25%"], ["a", "b", "c", "d", "e"]),
        (["2", "3"], ["ab", "cde"]),
        ([9], ["abcde"]),
        ([0], ["abcde"]),
        (["100%"], ["abcde"]),
    ],
)
def test_batches_are_those_of_ansible(serial: list[object], expected: list[str]) -> None:
    assert ["".join(batch) for batch in batches(serial, "abcde")] == expected


@pytest.mark.parametrize("serial", [(), (1,), (2, 1), (1, "50%")])
def test_a_batch_that_leaves_a_node_has_room(serial: tuple[object, ...]) -> None:
    assert blocked(judge(replace(SPEC, batches=serial), one_each(a_b_c()))) == []


def test_a_batch_of_all_nodes_has_no_room() -> None:
    judged = judge(replace(SPEC, batches=(3,)), one_each(a_b_c()))
    (only,) = blockers(judged)
    assert (only.code, only.node) == ("no_room", None)
    assert only.message == (
        "with a, b, c drained, no node is left for the evicted pods:"
        f" {RULE.format(3, 1, 3)}. Add a node, or uncordon one, and set smaller calico_bpf_batches"
    )


def test_the_cordons_of_an_earlier_run_are_named() -> None:
    """It was killed when it had evicted one pod, which has no node to start on."""
    seen = one_each(a_b_c(b=CORDONED, c=CORDONED), healthy=2)
    (only,) = blockers(judge(replace(SPEC, batches=(1,)), seen))
    assert only.message == (
        f"with a drained, no node is left for the evicted pods: {RULE.format(2, 0, 1)}."
        " Cordoned by an earlier run of this collection: b, c. Uncordon those whose calico-node was"
        " not replaced (kubectl uncordon b c): each is cordoned again when its drain begins"
    )
    judged = judge(replace(SPEC, batches=(1,), overrides=frozenset({"no_room"})), seen)
    assert (blocked(judged), warned(judged)) == ([], [("no_room", None)])


def test_a_cordon_that_an_earlier_batch_removes_is_not_a_problem() -> None:
    nodes = a_b_c(c=FOREIGN)
    nodes[0] = replace(nodes[0], unschedulable=True, cordoned_by="anna")
    seen = one_each(nodes)
    both_here = {"b": (*seen.covered["a"], *seen.covered["b"])}
    assert blocked(judge(SPEC, replace(seen, covered=both_here))) == []
    only_b = replace(SPEC, nodes=("b",))
    assert blocked(judge(only_b, replace(seen, covered=both_here))) == [("no_room", None)]


def test_one_pod_that_can_be_evicted_needs_no_room() -> None:
    nodes = a_b_c(b=FOREIGN, c=FOREIGN)
    seen = one_each(nodes)
    assert blocked(judge(SPEC, replace(seen, covered={"a": seen.covered["a"]}))) == []


@pytest.mark.parametrize(
    ("tolerations", "expected"),
    [
        ((), [("no_room", None)]),
        ((Toleration("other", "", "", True),), [("no_room", None)]),
        ((Toleration(TAINT[0], "x", "", False),), [("no_room", None)]),
        ((Toleration(TAINT[0], "", "NoExecute", True),), [("no_room", None)]),
        ((Toleration(TAINT[0], "", "NoSchedule", True),), []),
        ((Toleration(TAINT[0], "", "", False),), []),
        ((Toleration("", "", "", True),), []),
    ],
)
def test_a_tainted_node_takes_pods_that_tolerate_it(
    tolerations: tuple[Toleration, ...], expected: list[tuple[str, str | None]]
) -> None:
    tainted = a_b_c(c={"taints": (TAINT,)})
    seen = one_each(tainted, tolerations=tolerations)
    on_c = {"b": (*seen.covered["b"], *seen.covered["c"]), "a": seen.covered["a"]}
    spec = replace(SPEC, batches=(2,), nodes=("a", "b"))
    assert blocked(judge(spec, replace(seen, covered=on_c))) == expected


def test_a_node_that_is_not_ready_takes_no_pods() -> None:
    seen = one_each(a_b_c(c={"ready": False}))
    both = {"a": (*seen.covered["a"], *seen.covered["c"]), "b": seen.covered["b"]}
    spec = replace(SPEC, batches=(2,), nodes=("a", "b"))
    assert blocked(judge(spec, replace(seen, covered=both))) == [("no_room", None)]


def test_missing_room_does_not_block_a_rollback() -> None:
    seen = upgraded("a", "b", "c")
    nodes = [replace(node, unschedulable=True, cordoned_by="anna") for node in seen.nodes]
    covered = {"c": one_each(nodes, healthy=2).covered["a"]}  # the first of the way back
    judged = judge(
        replace(SPEC, version=None, mode=RolloutMode.ROLLBACK),
        replace(seen, nodes=tuple(nodes), covered=covered),
    )
    assert blocked(judged) == []
    assert ("no_room", None) in warned(judged)
