# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What upgrade.yml does not begin, or does not go on with: it says why, and has changed nothing.

The refusals share one lab for each API, since nothing may be changed there. The embedded one sees
those that an API has a part in which answers differently, or that its lab alone can show.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.permissions import needed
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes import control_plane
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.control_plane import (
    ControlPlane,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.embedded import EmbeddedApi
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import ready
from ansible_collections.dataplane.calico_bpf.tests.support.lab import manifests
from ansible_collections.dataplane.calico_bpf.tests.support.lab.lab_cluster import Playbook
from ansible_collections.dataplane.calico_bpf.tests.support.lab.rollout import (
    FIXED,
    LEASE,
    Rollout,
    new_rollout,
)

pytestmark = pytest.mark.timeout(900)
Object = dict[str, Any]

OLD = "v3.28.1"
APPS, RBAC = "/apis/apps/v1", "/apis/rbac.authorization.k8s.io/v1"
HOLDER = "ben@elsewhere"
LEASE_NAME = "Lease kube-system/calico-bpf-rollout"
#: Further DaemonSets, by their namespaces, for what the lab's own does not show: the version, and
#: what its environment says otherwise.
OTHERS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "tcx": ("v3.31.7", {}),
    "vxlan": ("v3.30.4", {"CALICO_IPV4POOL_VXLAN": "CrossSubnet"}),
    "iptables": (OLD, {"FELIX_BPFENABLED": "false"}),
    "calico-system": (OLD, {}),
}


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Rollout]:
    if request.param == "real":
        require_control_plane()
    # No heartbeat in the time of a test: whatever is written is somebody's doing.
    with new_rollout(request.param, nodes=2, endpoints=1, version=OLD, heartbeat=3600) as made:
        for namespace, (version, environment) in OTHERS.items():
            add_daemon_set(made, namespace, version, environment)
        for namespace in OTHERS:
            made.cluster.wait(partial(settled, made, namespace), f"the pods in {namespace}")
        yield made


def require_control_plane() -> None:
    if control_plane.find() is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing(control_plane.NOT_FOUND)


real = pytest.mark.parametrize("lab", ["real"], indirect=True)
either = pytest.mark.parametrize("lab", ["embedded", "real"], indirect=True)


def add_daemon_set(
    lab: Rollout, namespace: str, version: str, environment: Mapping[str, str]
) -> None:
    """One whose pods are of that version for the API alone: no Felix runs for them."""
    made = manifests.calico_node(version, None)
    labels = {"other": namespace}
    made["metadata"] = {"name": "calico-node", "namespace": namespace}
    made["spec"]["selector"] = {"matchLabels": labels}
    made["spec"]["template"]["metadata"] = {"labels": labels}
    container = made["spec"]["template"]["spec"]["containers"][0]
    kept = [each for each in container["env"] if each["name"] not in environment]
    container["env"] = [*kept, *({"name": n, "value": v} for n, v in environment.items())]
    lab.cluster.client.do("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    lab.cluster.client.do("POST", f"{APPS}/namespaces/{namespace}/daemonsets", made)


def settled(lab: Rollout, namespace: str) -> bool:
    pods = lab.cluster.pods(namespace)
    held = lab.cluster.client.do("GET", f"{APPS}/namespaces/{namespace}/daemonsets/calico-node")
    return len(pods) == held["status"].get("numberReady") == 2 and all(map(ready, pods))


# --- what a refusal is ----------------------------------------------------------------------------


def everything(lab: Rollout) -> Object:
    """Whatever a run could change. Of a Lease not when it was renewed: its holder goes on."""
    client = lab.cluster.client
    policy = client.do("GET", "/apis/policy")["preferredVersion"]["groupVersion"]
    kinds = ["/api/v1/nodes", "/api/v1/pods", f"/apis/{policy}/poddisruptionbudgets"]
    kinds += [f"{APPS}/{k}" for k in ("daemonsets", "replicasets", "controllerrevisions")]
    listed = [client.do("GET", kind)["items"] for kind in kinds]
    leases = client.do("GET", "/apis/coordination.k8s.io/v1/leases")["items"]
    nodes = lab.cluster.nodes.items()
    return {
        "objects": {uid(o): o["metadata"]["resourceVersion"] for kind in listed for o in kind},
        "leases": {uid(o): {**o["spec"], "renewTime": None} for o in leases},
        "filters": {name: {i: n.filters(i) for i in n.interfaces()} for name, n in nodes},
    }


def uid(held: Object) -> str:
    return str(held["metadata"]["uid"])


def refuses(lab: Rollout, *says: str, args: tuple[str, ...] = (), **variables: Any) -> str:
    """Have a run refused: it says all that, and everything is as it was; what it said."""
    before = everything(lab)
    code, told = lab.upgrade(*args, **variables)
    assert code == 2, told
    for each in says:
        assert each in told, told
    assert not re.search(r"(changed|unreachable)=[1-9]", told), told
    assert everything(lab) == before
    assert not lab.reports.exists()
    return told


# --- what is asked for ----------------------------------------------------------------------------

ASKED: dict[str, tuple[Object, tuple[str, ...]]] = {
    "neither version nor manifest": ({"calico_bpf_version": ""}, ("version, manifest",)),
    "no such override": (
        {"calico_bpf_overrides": ["everything"]},
        ("overrides: 'everything' is not the code of a blocker; codes: ", "ctlb_kernel"),
    ),
    "an override of what there is no way without": (
        {"calico_bpf_overrides": ["node_unknown"]},
        ("overrides: node_unknown cannot be accepted",),
    ),
    "a version that nobody knows": (
        {"calico_bpf_version": "v9.9.9"},
        ("unknown_version: v9.9.9 is not a release of Calico", "Name a release by its tag"),
    ),
    "no version": (
        {"calico_bpf_version": "latest"},
        ("unknown_version: latest is not a release of Calico",),
    ),
    "the kernel": (
        {"calico_bpf_version": "v3.29.5"},
        (
            "known_bad_path: The programs of the connect-time",
            "3.29.7",
            "put ctlb_kernel into overrides",
        ),
    ),
    "heartbeat churn": (
        {"calico_bpf_version": "v3.29.3", "calico_bpf_overrides": ["ctlb_kernel"]},
        ("known_bad_path: Every heartbeat", "put heartbeat_churn into overrides"),
    ),
    "VXLAN": (
        {"calico_bpf_version": "v3.31.7", "calico_bpf_namespace": "vxlan"},
        ("known_bad_path: While some nodes run 3.30.6", "Upgrade all nodes to 3.30.7 first"),
    ),
    "back from TCX": (
        {"calico_bpf_version": "v3.30.7", "calico_bpf_namespace": "tcx"},
        ("known_bad_path: Releases up to 3.30 do not know TCX", "Set bpfAttachType to TC"),
    ),
    "the operator's": (
        {"calico_bpf_namespace": "calico-system"},
        ("operator_install: DaemonSet calico-system/calico-node is the Tigera operator's",),
    ),
    "no eBPF": (
        {"calico_bpf_namespace": "iptables"},
        ("not_bpf: Felix does not run in eBPF mode on worker-1, worker-2, by FELIX_BPFENABLED",),
    ),
    "no DaemonSet": (
        {"calico_bpf_daemonset": "canal"},
        ("no_daemonset: there is no DaemonSet kube-system/canal", "kubectl get daemonsets"),
    ),
    "the window closed": (
        {"calico_bpf_window": {"start": "2020-01-01 22:00", "end": "2020-01-02 04:00"}},
        ("the maintenance window closed at 2020-01-02 04:00 UTC", "nothing was begun"),
    ),
    "the window not open yet": (
        {
            "calico_bpf_window": {
                "start": "2999-01-01 22:00",
                "end": "2999-01-02 04:00",
                "timezone": "Europe/Berlin",
            }
        },
        ("the window opens at 2999-01-01 22:00 CET", "nothing was begun"),
    ),
    "no such time zone": (
        {"calico_bpf_window": {"start": "22:00", "end": "04:00", "timezone": "Europe/Bern"}},
        ("timezone: 'Europe/Bern' is no time zone", "IANA"),
    ),
    "half a window": (
        {"calico_bpf_window": {"start": "22:00"}},
        ("required together: start, end",),
    ),
}


@real
@pytest.mark.parametrize("case", ASKED)
def test_what_is_asked_for_is_refused(lab: Rollout, case: str) -> None:
    variables, says = ASKED[case]
    refuses(lab, *says, **variables)


@real
def test_a_manifest_without_the_daemon_set(lab: Rollout) -> None:
    manifest = lab.cluster.folder / "manifest.yml"
    manifest.write_text(json.dumps(manifests.agent(1)))
    wanted: Object = {"calico_bpf_version": "", "calico_bpf_manifest": str(manifest)}
    refuses(lab, "no DaemonSet kube-system/calico-node among its 1 objects", **wanted)
    wanted["calico_bpf_version"] = FIXED
    refuses(lab, "mutually exclusive: version|manifest", **wanted)


@either
def test_what_was_accepted_is_told_and_no_longer_refused(lab: Rollout) -> None:
    """A known-bad path by its own code and by the general one; the window stops it then."""
    closed = {"start": "2020-01-01 22:00", "end": "2020-01-02 04:00"}
    for code in ("ctlb_kernel", "known_bad_path"):
        wanted: Object = {"version": "v3.29.5", "calico_bpf_overrides": [code]}
        told = refuses(lab, "window closed", calico_bpf_window=closed, **wanted)
        assert "accepted by overrides: The programs of the connect-time load balancer" in told
        assert "Refused, and nothing was changed" not in told


@real
def test_no_node_is_begun_for_which_the_time_is_short(lab: Rollout) -> None:
    window = until(datetime.now(timezone.utc) + timedelta(minutes=9))
    says = "and the next step needs 15 min 0 s: it was not begun"
    refuses(lab, says, calico_bpf_window=window)


def until(end: datetime) -> dict[str, str]:
    """A window that has been open for long; its end is of a whole minute."""
    return {"start": "2020-01-01 00:00", "end": f"{end:%Y-%m-%d %H:%M}"}


# --- what is found --------------------------------------------------------------------------------


@real
def test_a_host_that_is_no_node_of_the_cluster(lab: Rollout) -> None:
    more = lab.cluster.folder / "more.yml"
    host = {"lab_init_file": str(lab.cluster.folder / "nothing")}
    more.write_text(json.dumps({"calico_nodes": {"hosts": {"worker-9": host}}}))
    both = ("-i", str(lab.cluster.inventory), "-i", str(more))
    says = "node_unknown: worker-9 is in the inventory but is no node of this cluster"
    refuses(lab, says, "kubectl get nodes", args=both)


@either
def test_a_node_that_is_not_ready_and_all_else_are_told_at_once(lab: Rollout) -> None:
    with not_ready(lab, "worker-2"):
        says = "node_not_ready: node worker-2 is not Ready"
        refuses(lab, says, "kubectl describe node worker-2")
        refuses(lab, says, "known_bad_path: The programs of the connect-time", version="v3.29.5")


@contextmanager
def not_ready(lab: Rollout, node: str) -> Iterator[None]:
    path = f"/api/v1/nodes/{node}/status"

    def tell(status: str) -> None:
        body = {"status": {"conditions": [{"type": "Ready", "status": status}]}}
        lab.cluster.client.do("PATCH", path, body, patch="strategic-merge")

    tell("False")
    try:
        yield
    finally:
        tell("True")


@real
def test_a_budget_that_can_never_be_met(lab: Rollout) -> None:
    client = lab.cluster.client
    policy = client.do("GET", "/apis/policy")["preferredVersion"]["version"]
    path = f"/apis/policy/{policy}/namespaces/demo/poddisruptionbudgets/web"
    spec = client.do("GET", path)["spec"]

    def demand(minimum: int) -> None:
        client.do("PATCH", path, {"spec": {"minAvailable": minimum}})
        lab.cluster.wait(lambda: weighed(client.do("GET", path)), "the budget is weighed")

    demand(2)
    says = "demo/web: minAvailable 2 of 2 pods, so none of them may ever be evicted"
    try:
        refuses(lab, "budget_never_met: node worker-1: ", says, "relax the budget")
    finally:
        demand(spec["minAvailable"])


def weighed(budget: Object) -> bool:
    seen = budget.get("status", {}).get("observedGeneration")
    return bool(seen == budget["metadata"]["generation"])


@either
def test_a_user_who_may_do_nothing_or_not_enough(lab: Rollout) -> None:
    evict = "the API does not permit: create pods/eviction in the whole cluster. Nothing"
    api = lab.cluster.api
    if isinstance(api, EmbeddedApi):
        api.access.denied.add(("create", "pods/eviction"))
        try:
            refuses(lab, "api_permission: ", evict)
        finally:
            api.access.denied.clear()
        return
    poor = as_nobody(lab)
    lease = "update leases.coordination.k8s.io in namespace"
    refuses(poor, "get nodes in the whole cluster", f"{lease} kube-system")
    refuses(poor, f"{lease} tcx", calico_bpf_namespace="tcx")
    permit(lab, without="pods/eviction")
    refuses(poor, "api_permission: ", evict, "Bind a ClusterRole")


def as_nobody(lab: Rollout) -> Rollout:
    """The same lab, whose playbooks run as the user "nobody"."""
    api = lab.cluster.api
    assert isinstance(api, ControlPlane)
    return Rollout(replace(lab.cluster, api=api.nobody))


def permit(lab: Rollout, without: str = "") -> None:
    """Give "nobody" what a run is said to need, and no more."""
    asked = [each for each in needed("kube-system", "kube-system") if each.resource != without]
    user = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "nobody"}
    for namespace in ("", "kube-system"):
        kind = "Role" if namespace else "ClusterRole"
        where = f"{RBAC}/namespaces/{namespace}/" if namespace else f"{RBAC}/"
        rules = [
            {"apiGroups": [each.group], "resources": [each.resource], "verbs": [each.verb]}
            for each in asked
            if each.namespace == namespace
        ]
        reference = {"apiGroup": user["apiGroup"], "kind": kind, "name": "rollout"}
        role, bound = {"metadata": {"name": "rollout"}}, f"{kind.lower()}bindings"
        lab.cluster.client.do("POST", f"{where}{kind.lower()}s", {**role, "rules": rules})
        body = {**role, "roleRef": reference, "subjects": [user]}
        lab.cluster.client.do("POST", f"{where}{bound}", body)


# --- who else works on it -------------------------------------------------------------------------


@either
def test_another_who_holds_the_lease_is_named(lab: Rollout) -> None:
    with somebody_else(lab):
        says = f"another rollout works on this cluster: {LEASE_NAME} is held by {HOLDER}, since"
        told = refuses(lab, says, "last renewed", "nothing was changed. Wait until it ends")
        assert "watching whether that is alive" in told
        refuses(lab, says, args=("--check",))
        assert lab.holder() == HOLDER


@contextmanager
def somebody_else(lab: Rollout) -> Iterator[None]:
    """Another run takes the Lease, by force where somebody has it, and keeps it until the end."""
    client, stopping = lab.cluster.client, threading.Event()
    spec: Object = {"holderIdentity": HOLDER, "leaseDurationSeconds": 8, "leaseTransitions": 1}
    spec["acquireTime"] = spec["renewTime"] = micro_time()

    def renew() -> None:
        while not stopping.wait(1):
            client.do("PATCH", LEASE, {"spec": {"renewTime": micro_time()}})

    if client.ask("PATCH", LEASE, {"spec": spec}).code == 404:
        body = {"metadata": {"name": "calico-bpf-rollout"}, "spec": spec}
        client.do("POST", LEASE.rpartition("/")[0], body)
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
        client.do("DELETE", LEASE)


def micro_time() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


# --- what stops a run that has begun --------------------------------------------------------------


def test_a_run_that_is_stopped_twice_goes_on_where_it_was() -> None:
    """The window closes before the second node; then the Lease is taken by force at that node.

    All by a user who may do what the preflight asks for, and no more.
    """
    require_control_plane()
    with new_rollout("real", nodes=3, endpoints=1, version=OLD) as lab:
        permit(lab)
        nobody = as_nobody(lab)
        at_rest = {at: ids for at, ids in lab.programs().items() if at[0] != "worker-1"}
        for stop, cordoned in ((the_window_closes, set()), (the_lease_is_lost, {"worker-2"})):
            says = stop(nobody)
            assert lab.versions() == {"worker-1": FIXED, "worker-2": OLD, "worker-3": OLD}
            assert lab.cordoned() == cordoned
            assert lab.strategy() == "OnDelete"
            assert not lab.broken()
            assert at_rest.items() <= lab.programs().items()
            report = lab.report()
            assert report["verdict"] == "stopped"
            assert says in report["stop"]["message"]
            lab.await_free_lease()
        assert report["about"]["versions"] == {FIXED: 1, OLD: 2}
        code, told = nobody.upgrade()
        assert code == 0, told
        lab.must_be_complete()
        assert lab.report()["verdict"] == "completed"


def the_window_closes(run: Rollout) -> str:
    """While the first node is at work, which is held up for it; what it says."""
    too_late = datetime.now(timezone.utc) + timedelta(seconds=70)
    end = (too_late + timedelta(minutes=2)).replace(second=0, microsecond=0)
    duration = int((end - too_late).total_seconds())
    playbook = run.start(
        calico_bpf_window=until(end),
        calico_bpf_node_duration=duration,
        drain_timeout=150,  # the drain is what is held up
    )
    with held_up(run, playbook, "[node 1/3 worker-1] drain: begun"):
        run.cluster.wait(lambda: datetime.now(timezone.utc) > too_late, "the time is short", 120)
    code, told = playbook.wait()
    assert code == 2, told
    assert "No other node was touched after that; the DaemonSet is left at OnDelete" in told
    assert "worker-2] drain: begun" not in told
    says = f"the maintenance window closes at {end:%Y-%m-%d %H:%M} UTC"
    assert says in told
    return says


def the_lease_is_lost(run: Rollout) -> str:
    """While a drain waits for pods that nobody ends: nothing is changed any more; what it says."""
    playbook = run.start()
    with held_up(run, playbook, "[node 2/3 worker-2] drain: begun"):
        run.seen(playbook, "worker-2: waiting for ")
        with somebody_else(run):
            run.cluster.wait(lambda: everything(run) == everything(run), "the evictions took place")
            before = everything(run)
            code, told = playbook.wait()
            assert everything(run) == before
    assert code == 2, told
    assert "worker-2 stays as it is, cordoned if its drain had begun" in told
    says = f"lost the {LEASE_NAME} before the next change"
    assert f"is now held by {HOLDER}" in told
    assert says in told
    return says


@contextmanager
def held_up(run: Rollout, playbook: Playbook, at: str) -> Iterator[None]:
    """Nothing happens on the nodes from when the playbook says that."""
    run.seen(playbook, at)
    run.cluster.kubelet.paused.set()
    try:
        yield
    finally:
        run.cluster.kubelet.paused.clear()
