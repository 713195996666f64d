# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The preflight: blockers, warnings, and the progress of each node."""

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


def test_a_healthy_cluster_has_no_problems() -> None:
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
        {
            "daemonset": DaemonSet(
                namespace="kube-system",
                name="calico-node",
                template=bpf(),
                owners=("Installation",),
            )
        },
        {"daemonset": DaemonSet(namespace="calico-system", name="calico-node", template=bpf())},
    ],
)
def test_the_operators_daemonset_is_a_blocker(changes: dict[str, Any]) -> None:
    judged = judge(SPEC, cluster("a", **changes))
    assert blocked(judged) == [("operator_install", None)]
    (only,) = blockers(judged)
    assert "maxUnavailable 1" in only.message
    assert "qdisc_consistency" in only.message


def test_a_missing_daemonset_is_a_blocker() -> None:
    assert blocked(judge(SPEC, Cluster(daemonset=None))) == [("no_daemonset", None)]
    other = {"spec": {"containers": [{"name": "other", "image": "calico/node:v3.28.1"}]}}
    strange = cluster(
        "a", daemonset=DaemonSet(namespace="kube-system", name="calico-node", template=other)
    )
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
    daemonset = DaemonSet(
        namespace="kube-system", name="calico-node", template=template(OLD, **env)
    )
    judged = judge(SPEC, cluster("a", daemonset=daemonset, felix=felix))
    assert blocked(judged) == ([(code, None)] if refuses else [])
    assert warned(judged) == ([(code, None)] if code and not refuses else [])


def test_what_could_not_be_read_is_a_warning() -> None:
    judged = judge(SPEC, cluster("a", unread=("ippools may not be listed",)))
    assert blocked(judged) == []
    assert [each.message for each in warnings(judged)] == ["ippools may not be listed"]


def test_all_missing_permissions_are_one_blocker() -> None:
    assert not_permitted([]) == []
    missing = [Permission("patch", "nodes"), Permission("delete", "pods", "", "kube-system")]
    (only,) = not_permitted(missing)
    assert (only.code, only.blocks) == ("api_permission", True)
    assert "patch nodes in the whole cluster" in only.message
    assert "delete pods in namespace kube-system" in only.message


def test_permissions_are_checked_in_their_namespaces() -> None:
    asked = set(map(str, needed("calico", "leases")))
    assert "create pods/eviction in the whole cluster" in asked
    assert "list poddisruptionbudgets.policy in the whole cluster" in asked
    assert "patch daemonsets.apps in namespace calico" in asked
    assert "update leases.coordination.k8s.io in namespace leases" in asked
    spec = Permission("create", "pods/eviction").review()["spec"]["resourceAttributes"]
    assert spec == {"verb": "create", "resource": "pods", "subresource": "eviction"}


# --- the nodes ------------------------------------------------------------------------------------


def test_a_host_that_is_not_a_node() -> None:
    judged = judge(replace(SPEC, nodes=("b", "x", "a")), cluster("a", "b"))
    assert blocked(judged) == [("node_unknown", "x")]
    assert list(states(judged)) == ["b", "a"]


def at_a(**changes: Any) -> Cluster:
    """Two nodes, of which ``a`` is changed."""
    seen = cluster("a", "b")
    return replace(seen, nodes=(replace(seen.nodes[0], **changes), seen.nodes[1]))


def test_a_node_that_is_not_ready() -> None:
    assert blocked(judge(SPEC, at_a(ready=False))) == [("node_not_ready", "a")]
    # An interrupted run may be the cause.
    judged = judge(SPEC, at_a(ready=False, unschedulable=True, cordoned_by="run 1"))
    assert blocked(judged) == []
    assert warned(judged) == [("node_not_ready", "a")]


def test_only_the_nodes_of_this_run_count() -> None:
    assert blocked(judge(replace(SPEC, nodes=("b",)), at_a(ready=False))) == []


def test_a_cordon_of_someone_else_is_a_warning() -> None:
    assert warned(judge(SPEC, at_a(unschedulable=True))) == [("node_cordoned_by_another", "a")]
    ours = judge(SPEC, at_a(unschedulable=True, cordoned_by="run 1"))
    assert warned(ours) == []
    assert states(ours) == {"a": NodeState.INTERRUPTED, "b": NodeState.TODO}


def test_a_node_without_a_pod_and_one_whose_pod_is_not_ready() -> None:
    seen = cluster("a", "b")
    judged = judge(replace(SPEC, nodes=("a", "b")), replace(seen, pods=(pod("b", ready=False),)))
    assert blocked(judged) == [("no_pod", "a")]
    assert warned(judged) == [("pod_not_ready", "b")]


def test_a_budget_that_is_never_met() -> None:
    judged = judge(SPEC, cluster("a", "b", budgets={"b": ("shop/db: maxUnavailable 0",)}))
    assert blocked(judged) == [("budget_never_met", "b")]
    assert judged.nodes[1].problems == tuple(blockers(judged))
    assert "shop/db" in blockers(judged)[0].message


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "refused"),
    [("v3.29.5", [("image_suffix", None)] * 2), ("v3.29.5-0", [])],
)
def test_a_version_without_the_suffix_of_the_present_tag(
    version: str, refused: list[tuple[str, str | None]]
) -> None:
    judged = judge(replace(SPEC, version=version), cluster("a", version="v3.28.1-0"))
    assert blocked(judged) == refused
    if refused:
        message = blockers(judged)[1].message
        assert (
            "the image of calico-node has the tag v3.28.1-0, and would get calico/node:v3.29.5"
            in (message)
        )
        accepted = replace(SPEC, version=version, overrides=frozenset({"image_suffix"}))
        assert blocked(judge(accepted, cluster("a", version="v3.28.1-0"))) == []


def test_a_digest_that_a_version_removes_is_a_warning() -> None:
    digest = f"{OLD}@sha256:0a"
    judged = judge(SPEC, cluster("a", version=digest))
    assert blocked(judged) == []
    assert ("image_digest", None) in warned(judged)


# --- the upgrade path -----------------------------------------------------------------------------


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
def test_a_known_bad_path_is_refused_by_its_advisory(accepted: str) -> None:
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
def test_an_invalid_override_is_refused(code: str, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        check_overrides([code])


def test_every_acceptable_code_is_known() -> None:
    final = {"api_permission", "no_daemonset", "no_former_revision", "node_unknown"}
    check_overrides(CODES - final)
    check_overrides(["vxlan_mixed_releases", "tcx_downgrade"])


def test_an_advisory_names_the_nodes_it_applies_to() -> None:
    nodes = (Node("a", kernel="6.12.57+deb13-amd64"), Node("b", kernel="6.1.0"))
    judged = judge(RolloutSpec(version="v3.29.6"), cluster("a", "b", nodes=nodes))
    affected = {each.advisory.code: each.nodes for each in judged.advisories}
    assert affected["ctlb_kernel"] == ("a",)
    assert affected["parity_persists"] == ("a", "b")
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
    daemonset = DaemonSet(
        namespace="kube-system", name="calico-node", template=bpf("v3.31.7", **env)
    )
    nodes = (Node("a", kernel=kernel),)
    seen = cluster("a", version="v3.31.7", daemonset=daemonset, felix=felix, nodes=nodes)
    expected = [("known_bad_path", "tcx_downgrade")] if refuses else []
    assert blocked(judge(RolloutSpec(version="v3.30.7"), seen)) == expected


def test_vxlan_is_refused_but_not_via_the_fixed_release() -> None:
    seen = cluster("a", version="v3.30.4", encapsulation="vxlan")
    assert blocked(judge(RolloutSpec(version="v3.31.7"), seen)) == [
        ("known_bad_path", "vxlan_mixed_releases")
    ]
    assert blocked(judge(RolloutSpec(version="v3.30.7"), seen)) == []


# --- going on -------------------------------------------------------------------------------------


def test_a_run_resumes_where_it_stopped() -> None:
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


def test_a_pod_with_our_finalizer_is_an_interrupted_node() -> None:
    seen = upgraded()
    old = pod("b", terminating=True, has_finalizer=True)
    judged = judge(SPEC, replace(seen, pods=(seen.pods[0], old, seen.pods[2])))
    assert states(judged)["b"] is NodeState.INTERRUPTED


def test_a_node_with_an_old_pod_beside_its_successor_is_not_done() -> None:
    """From Kubernetes 1.27 on the successor does not wait for the finalizer to be removed."""
    seen = upgraded("a")
    assert states(judge(SPEC, seen))["a"] is NodeState.DONE
    old = pod("a", terminating=True, has_finalizer=True)
    seen = replace(seen, pods=(old, *seen.pods))
    assert states(judge(SPEC, seen))["a"] is NodeState.INTERRUPTED


@pytest.mark.parametrize(
    "changes", [{"verified": None}, {"verified": f"hash-{OLD}"}, {"cordoned_by": "run 1"}]
)
def test_a_done_node_is_verified_and_uncordoned(changes: dict[str, Any]) -> None:
    seen = upgraded("a")
    nodes = (replace(seen.nodes[0], **changes), *seen.nodes[1:])
    assert states(judge(SPEC, replace(seen, nodes=nodes)))["a"] is not NodeState.DONE


def test_a_new_upgrade_saves_the_revision_it_starts_from() -> None:
    everywhere = upgraded("a", "b", "c")
    judged = judge(RolloutSpec(version="v3.30.7"), everywhere)
    assert judged.former is not None
    assert judged.former.name == f"calico-node-{NEW}"
    # While a node is still at the noted one, that run is not over.
    judged = judge(RolloutSpec(version="v3.30.7"), upgraded("a", "b"))
    assert judged.former is not None
    assert judged.former.name == f"calico-node-{OLD}"


# --- by a manifest --------------------------------------------------------------------------------


def manifest(pods: dict[str, Any], name: str = "calico-node", **metadata: str) -> dict[str, Any]:
    """A manifest whose pod template is ``pods``."""
    spec = {"template": pods}
    return {"kind": "DaemonSet", "metadata": {"name": name, **metadata}, "spec": spec}


def test_the_daemonset_is_found_in_a_manifest() -> None:
    listed = {"kind": "List", "items": [manifest(bpf(NEW), namespace="kube-system")]}
    objects: list[Any] = [{"kind": "ConfigMap", "metadata": {"name": "calico-config"}}, listed]
    judged = judge(RolloutSpec(manifest=objects), cluster("a"))
    assert blocked(judged) == []
    assert judged.target is not None
    assert judged.target.version == NEW
    assert judged.target.patch["spec"]["template"]["$patch"] == "replace"
    assert "manifest_changed" not in {each.advisory.code for each in judged.advisories}


def test_a_manifest_that_changes_more_than_images_is_not_reached() -> None:
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
def test_a_manifest_without_the_daemonset_is_refused(objects: list[Any], said: str) -> None:
    with pytest.raises(Refusal, match=said):
        judge(RolloutSpec(manifest=objects), cluster("a"))


def test_a_digest_without_a_tag_is_an_unknown_version() -> None:
    pinned = bpf(NEW)
    pinned["spec"]["containers"][0]["image"] = "calico/node@sha256:0a"
    judged = judge(RolloutSpec(manifest=[manifest(pinned)]), cluster("a"))
    assert blocked(judged) == [("unknown_version", None)]
    assert "calico/node@sha256:0a" in blockers(judged)[0].message


# --- what is returned -----------------------------------------------------------------------------


def test_the_saved_strategy_is_read() -> None:
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


def test_the_remaining_time_and_the_versions() -> None:
    seen = upgraded("a")
    shown = preflight(judge(SPEC, seen), seen, SPEC, 300)
    assert shown["estimated_seconds"] == 600
    assert shown["versions"] == {OLD: 2, NEW: 1}
    assert [node["state"] for node in shown["nodes"]] == ["done", "todo", "todo"]
    assert [node["calico_version"] for node in shown["nodes"]] == [NEW, OLD, OLD]


def test_an_advisory_shows_whether_it_is_accepted() -> None:
    spec = RolloutSpec(version="v3.29.3", overrides=frozenset({"known_bad_path"}))
    seen = cluster("a")
    shown = preflight(judge(spec, seen), seen, spec, 0)["advisories"]
    assert {each["code"] for each in shown if each["accepted"]} == {"heartbeat_churn"}
