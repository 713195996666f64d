# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each check of a preflight without its evidence: a problem or "not judged", never good."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import ApiError
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.api import Kube
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.cluster import (
    RolloutMode,
    RolloutSpec,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.preflight import (
    PreflightResult,
    judge,
    not_permitted,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.read_cluster import (
    missing_permissions,
    read_cluster,
)

Object = dict[str, Any]
UPGRADE = RolloutSpec(version="v3.29.7", nodes=("a",))
APPS = "/apis/apps/v1/namespaces/kube-system"
DAEMON_SET, REVISIONS = f"{APPS}/daemonsets/calico-node", f"{APPS}/controllerrevisions"
NODES, PODS = "/api/v1/nodes", "/api/v1/pods"
BUDGETS = "/apis/policy/v1/poddisruptionbudgets"
INSTALLATIONS = "/apis/operator.tigera.io/v1/installations"
FELIX = "felixconfigurations"
POOLS = "ippools"
CALICO = "/apis/crd.projectcalico.org/v1"
OURS = [{"kind": "DaemonSet", "name": "calico-node", "uid": "ours", "controller": True}]
READY = {"conditions": [{"type": "Ready", "status": "True"}], "phase": "Running"}
IMAGE = {"name": "calico-node", "image": "calico/node:v3.29.5"}


def answers() -> dict[str, Any]:
    """The answers of a healthy cluster in which every check is good."""
    template = {"spec": {"containers": [IMAGE]}}
    node_info = {"nodeInfo": {"kernelVersion": "5.15.0"}}
    labels = {"controller-revision-hash": "one"}
    calico = {"name": "calico-node-x", "namespace": "kube-system", "labels": labels}
    web = {"name": "web-1", "namespace": "shop", "labels": {"app": "web"}}
    status = {"observedGeneration": 1, "expectedPods": 2, "desiredHealthy": 1}
    return {
        DAEMON_SET: {
            "metadata": {"namespace": "kube-system", "name": "calico-node", "uid": "ours"},
            "spec": {"template": template},
        },
        REVISIONS: [
            {
                "metadata": {"name": "calico-node-1", "ownerReferences": OURS},
                "revision": 1,
                "data": {"spec": {"template": template}},
            }
        ],
        NODES: [
            {"metadata": {"name": name}, "status": {**READY, **node_info}} for name in ("a", "b")
        ],
        PODS: [
            {
                "metadata": {**calico, "ownerReferences": OURS},
                "spec": {"nodeName": "a", "containers": [IMAGE]},
                "status": READY,
            },
            {"metadata": web, "spec": {"nodeName": "a", "containers": []}, "status": READY},
        ],
        "/apis/policy": {"versions": [{"version": "v1"}]},
        BUDGETS: [
            {
                "metadata": {"name": "web", "namespace": "shop", "generation": 1},
                "spec": {"selector": {"matchLabels": {"app": "web"}}, "minAvailable": 1},
                "status": {**status, "currentHealthy": 2, "disruptionsAllowed": 1},
            }
        ],
        f"{CALICO}/{FELIX}": [{"metadata": {"name": "default"}, "spec": {"bpfEnabled": True}}],
        f"{CALICO}/{POOLS}": [{"metadata": {"name": "pool"}, "spec": {"vxlanMode": "Never"}}],
        INSTALLATIONS: 404,
    }


def kube(given: Mapping[str, Any]) -> Kube:
    """An API with these answers; a number is an HTTP status."""

    def send(
        method: str, path: str, query: Mapping[str, Any], content_type: str, body: Any
    ) -> bytes:
        answer = given.get(path, 404)
        if isinstance(answer, int):
            raise ApiError(f"{method} {path}", answer, "", "")
        return json.dumps({"items": answer} if isinstance(answer, list) else answer).encode()

    return Kube(send, patience=0)


def preflight(given: Mapping[str, Any], spec: RolloutSpec = UPGRADE) -> PreflightResult:
    return judge(spec, read_cluster(kube(given), spec))


def codes(judged: PreflightResult) -> list[str]:
    """The codes of all problems, and of the advisories that may apply."""
    doubted = [m.advisory for m in judged.advisories if m.advisory.text.startswith("May apply")]
    unknown = [m.advisory for m in judged.advisories if m.advisory.code == "unknown_origin"]
    return [p.code for p in judged.problems] + [a.code for a in (*doubted, *unknown)]


def test_with_all_evidence_every_check_is_good() -> None:
    assert codes(preflight(answers())) == []


Change = Callable[[Object], object]


def answer(path: str, value: Any) -> Change:
    return lambda given: given.update({path: value})


def without(path: str, *keys: Any) -> Change:
    """Remove a field of an answer, by the keys on the way to it."""

    def remove(given: Object) -> None:
        place = given[path]
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]

    return remove


def image(text: str) -> Change:
    def change(given: Object) -> None:
        given[PODS][0]["spec"]["containers"] = [{**IMAGE, "image": text}]

    return change


def every_group(plural: str, status: int) -> Change:
    groups = (CALICO, "/apis/projectcalico.org/v3")
    return lambda given: given.update({f"{group}/{plural}": status for group in groups})


REMOVED: dict[str, tuple[Change, str]] = {
    "no DaemonSet": (answer(DAEMON_SET, 404), "no_daemonset"),
    "no container": (without(DAEMON_SET, "spec", "template", "spec", "containers", 0),
                     "no_daemonset"),
    "no revision": (answer(REVISIONS, []), "no_former_revision"),
    "revisions of others": (without(REVISIONS, 0, "metadata", "ownerReferences"),
                            "no_former_revision"),
    "no node": (answer(NODES, []), "node_unknown"),
    "node without status": (without(NODES, 0, "status"), "node_not_ready"),
    "node without conditions": (without(NODES, 0, "status", "conditions"), "node_not_ready"),
    "node without kernel": (without(NODES, 0, "status", "nodeInfo"), "ctlb_kernel"),
    "no pod": (answer(PODS, []), "no_pod"),
    "pod without node": (without(PODS, 0, "spec", "nodeName"), "no_pod"),
    "pod without owner": (without(PODS, 0, "metadata", "ownerReferences"), "no_pod"),
    "pod without status": (without(PODS, 0, "status"), "pod_not_ready"),
    "pod without container": (without(PODS, 0, "spec", "containers", 0), "unknown_origin"),
    "image by digest only": (image("calico/node@sha256:0a"), "unknown_origin"),
    "budget without status": (without(BUDGETS, 0, "status"), "budget_not_judged"),
    "budget with an old status": (without(BUDGETS, 0, "status", "observedGeneration"),
                                  "budget_not_judged"),
    "Installations forbidden": (answer(INSTALLATIONS, 403), "unread"),
    "FelixConfigurations forbidden": (every_group(FELIX, 403), "not_bpf"),
    "no FelixConfigurations": (every_group(FELIX, 404), "not_bpf"),
    "FelixConfigurations empty": (answer(f"{CALICO}/{FELIX}", []), "not_bpf"),
    "FelixConfiguration without spec": (without(f"{CALICO}/{FELIX}", 0, "spec"), "not_bpf"),
    "IP pools forbidden": (every_group(POOLS, 403), "unread"),
}  # fmt: skip


@pytest.mark.parametrize("name", REMOVED)
def test_a_check_without_its_evidence_is_not_good(name: str) -> None:
    remove, code = REMOVED[name]
    given = copy.deepcopy(answers())
    remove(given)
    target = "v3.29.6" if code == "ctlb_kernel" else "v3.29.7"
    found = codes(preflight(given, RolloutSpec(version=target, nodes=("a",))))
    assert code in found


def test_an_unknown_encapsulation_is_not_good() -> None:
    """From 3.30.4 to 3.31.7 breaks with VXLAN."""
    given = answers()
    given[PODS][0]["spec"]["containers"] = [{**IMAGE, "image": "calico/node:v3.30.4"}]
    spec = RolloutSpec(version="v3.31.7", nodes=("a",))
    assert "vxlan_mixed_releases" not in codes(preflight(given, spec))
    given[f"{CALICO}/{POOLS}"] = []
    assert "vxlan_mixed_releases" in codes(preflight(given, spec))


@pytest.mark.parametrize("path", [DAEMON_SET, REVISIONS, NODES, PODS, BUDGETS, "/apis/policy"])
@pytest.mark.parametrize("status", [403, 500])
def test_an_answer_that_every_run_needs_fails_the_task(path: str, status: int) -> None:
    with pytest.raises(ApiError):
        preflight({**answers(), path: status})


@pytest.mark.parametrize("review", [{}, {"status": None}, {"status": {"denied": False}}])
def test_an_access_review_without_an_answer_permits_nothing(review: Object) -> None:
    reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    (problem,) = not_permitted(missing_permissions(kube({reviews: review}), UPGRADE))
    assert (problem.code, problem.blocks) == ("api_permission", True)


def test_a_run_without_nodes_is_not_good() -> None:
    """Without a list of nodes, the run takes those that have a pod."""
    given = {**answers(), PODS: []}
    assert "no_pod" in codes(preflight(given, RolloutSpec(version="v3.29.7")))


def test_a_rollback_without_revisions_is_refused() -> None:
    spec = RolloutSpec(mode=RolloutMode.ROLLBACK, nodes=("a",))
    judged = preflight({**answers(), REVISIONS: []}, spec)
    assert ("no_former_revision", True) in [(p.code, p.blocks) for p in judged.problems]
