# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The preflight: every reason why not, what is told only, and how far each node is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import Refusal
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.annotations import (
    UPDATE_STRATEGY,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.cluster import (
    Cluster,
    DaemonSet,
    Node,
    NodeState,
    RolloutSpec,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.permissions import (
    Permission,
    needed,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.preflight import (
    CODES,
    check_overrides,
    judge,
    not_permitted,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.serialize import (
    preflight,
)
from ansible_collections.dataplane.calico_bpf.tests.support.rollout.clusters import (
    NEW,
    OLD,
    SPEC,
    blocked,
    blockers,
    bpf,
    cluster,
    pod,
    states,
    template,
    upgraded,
    warned,
    warnings,
)


def test_nothing_speaks_against_a_healthy_cluster() -> None:
    judged = judge(SPEC, cluster("a", "b"))
    assert blocked(judged) == []
    assert warned(judged) == []
    assert states(judged) == {"a": NodeState.TODO, "b": NodeState.TODO}
    assert judged.target is not None
    assert judged.target.images["calico-node"] == f"calico/node:{NEW}"
    assert judged.target.revision is None
    assert judged.former is not None
    assert judged.former.name == f"calico-node-{OLD}"


# --- the cluster ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"installation": True},
        {"daemonset": DaemonSet("kube-system", "calico-node", bpf(), owners=("Installation",))},
        {"daemonset": DaemonSet("calico-system", "calico-node", bpf())},
    ],
)
def test_the_operators_daemonset_is_a_blocker(changes: dict[str, Any]) -> None:
    judged = judge(SPEC, cluster("a", **changes))
    assert blocked(judged) == [("operator_install", None)]
    (only,) = blockers(judged)
    assert "maxUnavailable 1" in only.message
    assert "qdisc_consistency" in only.message


def test_there_must_be_a_daemon_set() -> None:
    assert blocked(judge(SPEC, Cluster(None))) == [("no_daemonset", None)]
    other = {"spec": {"containers": [{"name": "other", "image": "calico/node:v3.28.1"}]}}
    strange = cluster("a", daemonset=DaemonSet("kube-system", "calico-node", other))
    assert blocked(judge(SPEC, strange)) == [("no_daemonset", None)]


@pytest.mark.parametrize(
    ("env", "felix", "code", "refuses"),
    [
        ({"FELIX_BPFENABLED": "false"}, None, "not_bpf", True),
        ({"FELIX_BPFENABLED": "no"}, {"default": {"bpfEnabled": True}}, "not_bpf", True),
        ({}, {"default": {"bpfEnabled": False}}, "not_bpf", True),
        ({}, {"default": {}}, "not_bpf", True),  # Felix's own default
        ({}, {}, "not_bpf", True),
        ({}, None, "not_bpf", False),  # not known
        ({}, {"default": {"bpfEnabled": True}}, None, False),
        ({}, {"default": {"bpfEnabled": True}, "node.a": {"bpfEnabled": False}}, "not_bpf", True),
        ({"FELIX_BPFENABLED": "1"}, {"default": {"bpfEnabled": False}}, None, False),
    ],
)
def test_felix_must_be_in_ebpf_mode(
    env: dict[str, str], felix: dict[str, Any] | None, code: str | None, refuses: bool
) -> None:
    held = DaemonSet("kube-system", "calico-node", template(OLD, **env))
    judged = judge(SPEC, cluster("a", daemonset=held, felix=felix))
    assert blocked(judged) == ([(code, None)] if refuses else [])
    assert warned(judged) == ([(code, None)] if code and not refuses else [])


def test_what_could_not_be_read_is_told() -> None:
    judged = judge(SPEC, cluster("a", unread=("ippools may not be listed",)))
    assert blocked(judged) == []
    assert [each.message for each in warnings(judged)] == ["ippools may not be listed"]


def test_all_missing_permissions_are_one_refusal() -> None:
    assert not_permitted([]) == []
    missing = [Permission("patch", "nodes"), Permission("delete", "pods", "", "kube-system")]
    (only,) = not_permitted(missing)
    assert (only.code, only.blocks) == ("api_permission", True)
    assert "patch nodes in the whole cluster" in only.message
    assert "delete pods in namespace kube-system" in only.message


def test_what_a_run_needs_is_asked_in_the_right_places() -> None:
    asked = set(map(str, needed("calico", "leases")))
    assert "create pods/eviction in the whole cluster" in asked
    assert "list poddisruptionbudgets.policy in the whole cluster" in asked
    assert "patch daemonsets.apps in namespace calico" in asked
    assert "update leases.coordination.k8s.io in namespace leases" in asked
    spec = Permission("create", "pods/eviction").review()["spec"]["resourceAttributes"]
    assert spec == {"verb": "create", "resource": "pods", "subresource": "eviction"}


# --- the nodes ------------------------------------------------------------------------------------


def test_a_host_that_is_no_node() -> None:
    judged = judge(replace(SPEC, nodes=("b", "x", "a")), cluster("a", "b"))
    assert blocked(judged) == [("node_unknown", "x")]
    assert list(states(judged)) == ["b", "a"]


def at_a(**changes: Any) -> Cluster:
    """Two nodes, of which ``a`` is changed."""
    seen = cluster("a", "b")
    return replace(seen, nodes=(replace(seen.nodes[0], **changes), seen.nodes[1]))


def test_a_node_that_is_not_ready() -> None:
    assert blocked(judge(SPEC, at_a(ready=False))) == [("node_not_ready", "a")]
    # What an earlier run left half way may be just why.
    judged = judge(SPEC, at_a(ready=False, unschedulable=True, cordoned_by="run 1"))
    assert blocked(judged) == []
    assert warned(judged) == [("node_not_ready", "a")]


def test_only_the_nodes_of_this_run_count() -> None:
    assert blocked(judge(replace(SPEC, nodes=("b",)), at_a(ready=False))) == []


def test_who_cordoned_a_node_makes_a_difference() -> None:
    assert warned(judge(SPEC, at_a(unschedulable=True))) == [("node_cordoned_by_another", "a")]
    ours = judge(SPEC, at_a(unschedulable=True, cordoned_by="run 1"))
    assert warned(ours) == []
    assert states(ours) == {"a": NodeState.INTERRUPTED, "b": NodeState.TODO}


def test_a_node_without_a_pod_and_one_with_a_sick_one() -> None:
    seen = cluster("a", "b")
    judged = judge(replace(SPEC, nodes=("a", "b")), replace(seen, pods=(pod("b", ready=False),)))
    assert blocked(judged) == [("no_pod", "a")]
    assert warned(judged) == [("pod_not_ready", "b")]


def test_a_budget_that_can_never_be_met() -> None:
    judged = judge(SPEC, cluster("a", "b", budgets={"b": ("shop/db: maxUnavailable 0",)}))
    assert blocked(judged) == [("budget_never_met", "b")]
    assert judged.nodes[1].problems == tuple(blockers(judged))
    assert "shop/db" in blockers(judged)[0].message


# --- the way --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["latest", "v3.33.0", "v3.31.0-rc1"])
def test_an_unknown_version(version: str) -> None:
    judged = judge(RolloutSpec(version=version), cluster("a"))
    assert blocked(judged) == [("unknown_version", None)]
    assert version in blockers(judged)[0].message
    accepted = judge(
        RolloutSpec(version=version, overrides=frozenset({"unknown_version"})), cluster("a")
    )
    assert blocked(accepted) == []
    assert warnings(accepted)[0].message.startswith("accepted by overrides: ")


@pytest.mark.parametrize("accepted", ["heartbeat_churn", "known_bad_path"])
def test_a_bad_way_is_refused_by_its_advisory(accepted: str) -> None:
    spec = RolloutSpec(version="v3.29.3")
    assert blocked(judge(spec, cluster("a"))) == [("known_bad_path", "heartbeat_churn")]
    judged = judge(replace(spec, overrides=frozenset({accepted})), cluster("a"))
    assert blocked(judged) == []
    assert warned(judged) == [("known_bad_path", "heartbeat_churn")]


def test_an_override_accepts_nothing_else() -> None:
    spec = RolloutSpec(version="v3.29.3", overrides=frozenset({"ctlb_kernel"}))
    seen = cluster("a", nodes=(Node("a", kernel="6.12.1"),))
    assert blocked(judge(spec, seen)) == [("known_bad_path", "heartbeat_churn")]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("node_unkown", "not the code of a blocker"),
        ("api_permission", "cannot be accepted"),
        ("", "not the code of a blocker"),
    ],
)
def test_an_override_that_makes_no_sense(code: str, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        check_overrides([code])


def test_every_code_that_may_be_accepted_is_known() -> None:
    final = {"api_permission", "no_daemonset", "no_former_revision", "node_unknown"}
    check_overrides(CODES - final)
    check_overrides(["vxlan_mixed_releases", "tcx_downgrade"])


def test_an_advisory_names_the_nodes_it_is_about() -> None:
    nodes = (Node("a", kernel="6.12.57+deb13-amd64"), Node("b", kernel="6.1.0"))
    judged = judge(RolloutSpec(version="v3.29.6"), cluster("a", "b", nodes=nodes))
    told = {each.advisory.code: each.nodes for each in judged.advisories}
    assert told["ctlb_kernel"] == ("a",)
    assert told["parity_persists"] == ("a", "b")
    assert blocked(judged) == [("known_bad_path", "ctlb_kernel")]


@pytest.mark.parametrize(
    ("env", "felix", "kernel", "refuses"),
    [
        ({}, None, "6.6.0", True),  # the release's own default
        ({}, None, "6.5.0", False),
        ({}, {"default": {"bpfEnabled": True, "bpfAttachType": "TC"}}, "6.6.0", False),
        ({}, {"node.a": {"bpfAttachType": "TC"}}, "6.6.0", False),
        ({"FELIX_BPFATTACHTYPE": "TC"}, {"default": {"bpfAttachType": "TCX"}}, "6.6.0", False),
        ({"FELIX_BPFATTACHTYPE": "TCX"}, {"default": {"bpfAttachType": "TC"}}, "6.6.0", True),
    ],
)
def test_no_downgrade_away_from_tcx(
    env: dict[str, str], felix: dict[str, Any] | None, kernel: str, refuses: bool
) -> None:
    held = DaemonSet("kube-system", "calico-node", bpf("v3.31.7", **env))
    nodes = (Node("a", kernel=kernel),)
    seen = cluster("a", version="v3.31.7", daemonset=held, felix=felix, nodes=nodes)
    expected = [("known_bad_path", "tcx_downgrade")] if refuses else []
    assert blocked(judge(RolloutSpec(version="v3.30.7"), seen)) == expected


def test_vxlan_is_refused_and_the_way_round_is_not() -> None:
    seen = cluster("a", version="v3.30.4", encapsulation="vxlan")
    assert blocked(judge(RolloutSpec(version="v3.31.7"), seen)) == [
        ("known_bad_path", "vxlan_mixed_releases")
    ]
    assert blocked(judge(RolloutSpec(version="v3.30.7"), seen)) == []


# --- going on -------------------------------------------------------------------------------------


def test_a_run_goes_on_where_it_stopped() -> None:
    seen = upgraded("a")
    half = replace(seen.nodes[1], cordoned_by="run 1", unschedulable=True)
    judged = judge(SPEC, replace(seen, nodes=(seen.nodes[0], half, seen.nodes[2])))
    assert states(judged) == {"a": NodeState.DONE, "b": NodeState.INTERRUPTED, "c": NodeState.TODO}
    assert blocked(judged) == []
    assert judged.target is not None
    assert judged.target.revision is not None
    assert judged.target.revision.name == f"calico-node-{NEW}"
    assert judged.former is not None
    assert judged.former.name == f"calico-node-{OLD}"


def test_a_pod_that_we_hold_is_an_interrupted_node() -> None:
    seen = upgraded()
    held = pod("b", terminating=True, has_finalizer=True)
    judged = judge(SPEC, replace(seen, pods=(seen.pods[0], held, seen.pods[2])))
    assert states(judged)["b"] is NodeState.INTERRUPTED


def test_a_leftover_beside_a_verified_successor_is_not_done() -> None:
    """From Kubernetes 1.27 on the successor does not wait for the finalizer to be removed."""
    seen = upgraded("a")
    assert states(judge(SPEC, seen))["a"] is NodeState.DONE
    held = pod("a", terminating=True, has_finalizer=True)
    seen = replace(seen, pods=(held, *seen.pods))
    assert states(judge(SPEC, seen))["a"] is NodeState.INTERRUPTED


@pytest.mark.parametrize(
    "changes", [{"verified": None}, {"verified": f"hash-{OLD}"}, {"cordoned_by": "run 1"}]
)
def test_done_is_verified_and_open_again(changes: dict[str, Any]) -> None:
    seen = upgraded("a")
    nodes = (replace(seen.nodes[0], **changes), *seen.nodes[1:])
    assert states(judge(SPEC, replace(seen, nodes=nodes)))["a"] is not NodeState.DONE


def test_a_new_upgrade_goes_back_to_where_it_began_not_to_an_older_note() -> None:
    everywhere = upgraded("a", "b", "c")
    judged = judge(RolloutSpec(version="v3.30.7"), everywhere)
    assert judged.former is not None
    assert judged.former.name == f"calico-node-{NEW}"
    # While a node is still at the noted one, that run is not over.
    judged = judge(RolloutSpec(version="v3.30.7"), upgraded("a", "b"))
    assert judged.former is not None
    assert judged.former.name == f"calico-node-{OLD}"


# --- by a manifest --------------------------------------------------------------------------------


def manifest(held: dict[str, Any], name: str = "calico-node", **metadata: str) -> dict[str, Any]:
    spec = {"template": held}
    return {"kind": "DaemonSet", "metadata": {"name": name, **metadata}, "spec": spec}


def test_a_manifests_daemon_set_is_found_among_its_objects() -> None:
    listed = {"kind": "List", "items": [manifest(bpf(NEW), namespace="kube-system")]}
    objects: list[Any] = [{"kind": "ConfigMap", "metadata": {"name": "calico-config"}}, listed]
    judged = judge(RolloutSpec(manifest=objects), cluster("a"))
    assert blocked(judged) == []
    assert judged.target is not None
    assert judged.target.version == NEW
    assert judged.target.patch["spec"]["template"]["$patch"] == "replace"
    assert "manifest_changed" not in {each.advisory.code for each in judged.advisories}


def test_a_manifest_that_changes_more_than_images_is_not_there_yet() -> None:
    spec = RolloutSpec(manifest=[manifest(bpf(NEW, FELIX_LOGSEVERITYSCREEN="Info"))])
    judged = judge(spec, upgraded("a", "b", "c"))
    assert judged.target is not None
    assert judged.target.revision is None
    same = judge(RolloutSpec(manifest=[manifest(bpf(NEW))]), upgraded("a", "b", "c"))
    assert set(states(same).values()) == {NodeState.DONE}


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        ([], "no DaemonSet kube-system/calico-node among its 0 objects"),
        ([manifest(bpf(NEW), name="canal")], "no DaemonSet"),
        ([manifest(bpf(NEW), namespace="elsewhere")], "no DaemonSet"),
        ([{"kind": "Deployment", "metadata": {"name": "calico-node"}}], "Deployment"),
        ([manifest({"spec": {"containers": []}})], "no container named calico-node"),
    ],
)
def test_a_manifest_without_it_is_bad_input(objects: list[Any], said: str) -> None:
    with pytest.raises(Refusal, match=said):
        judge(RolloutSpec(manifest=objects), cluster("a"))


def test_a_digest_alone_is_an_unknown_version() -> None:
    pinned = bpf(NEW)
    pinned["spec"]["containers"][0]["image"] = "calico/node@sha256:0a"
    judged = judge(RolloutSpec(manifest=[manifest(pinned)]), cluster("a"))
    assert blocked(judged) == [("unknown_version", None)]
    assert "calico/node@sha256:0a" in blockers(judged)[0].message


# --- what is returned -----------------------------------------------------------------------------


def test_the_strategy_from_before_is_read_back() -> None:
    seen = upgraded("a")
    assert seen.daemonset is not None
    for note, expected in ((None, None), ('{"type": "OnDelete"}', {"type": "OnDelete"})):
        annotations = {UPDATE_STRATEGY: note} if note else {}
        noted = replace(seen, daemonset=replace(seen.daemonset, annotations=annotations))
        shown = preflight(judge(SPEC, noted), noted, SPEC, 300)
        assert shown["daemonset"]["former_update_strategy"] == expected
    noted = replace(seen, daemonset=replace(seen.daemonset, annotations={UPDATE_STRATEGY: "On"}))
    with pytest.raises(Refusal, match="is not JSON"):
        preflight(judge(SPEC, noted), noted, SPEC, 300)


def test_what_is_left_is_estimated_and_versions_are_counted() -> None:
    seen = upgraded("a")
    shown = preflight(judge(SPEC, seen), seen, SPEC, 300)
    assert shown["estimated_seconds"] == 600
    assert shown["versions"] == {OLD: 2, NEW: 1}
    assert [node["state"] for node in shown["nodes"]] == ["done", "todo", "todo"]
    assert [node["calico_version"] for node in shown["nodes"]] == [NEW, OLD, OLD]


def test_an_advisory_says_whether_it_is_accepted() -> None:
    spec = RolloutSpec(version="v3.29.3", overrides=frozenset({"known_bad_path"}))
    seen = cluster("a")
    told = preflight(judge(spec, seen), seen, spec, 0)["advisories"]
    assert {each["code"] for each in told if each["accepted"]} == {"heartbeat_churn"}
