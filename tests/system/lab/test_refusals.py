# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of upgrade.yml that are refused or stopped: the output says why, and nothing is changed.

The refusals share one lab for each API, since nothing may be changed there. The embedded API is
used too where the two APIs answer differently.
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
#: Further DaemonSets by namespace, for cases that the lab's own does not cover: the version, and
#: changes of the environment.
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
    # No heartbeat during a test: every write comes from the run.
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
    """A DaemonSet whose pods exist in the API only: no Felix runs for them."""
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
    path = f"{APPS}/namespaces/{namespace}/daemonsets/calico-node"
    daemonset = lab.cluster.client.do("GET", path)
    return len(pods) == daemonset["status"].get("numberReady") == 2 and all(map(ready, pods))


# --- refusals -------------------------------------------------------------------------------------


def everything(lab: Rollout) -> Object:
    """Everything that a run could change, without the renewTime of a Lease."""
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


def uid(item: Object) -> str:
    return str(item["metadata"]["uid"])


def must_refuse(lab: Rollout, *says: str, args: tuple[str, ...] = (), **variables: Any) -> str:
    """Assert that a run is refused with these messages and changes nothing; its output."""
    before = everything(lab)
    code, output = lab.upgrade(*args, **variables)
    assert code == 2, output
    for each in says:
        assert each in output, output
    assert not re.search(r"(changed|unreachable)=[1-9]", output), output
    assert everything(lab) == before
    assert not lab.reports.exists()
    return output


# --- options --------------------------------------------------------------------------------------

OPTIONS: dict[str, tuple[Object, tuple[str, ...]]] = {
    "neither version nor manifest": (
        {"calico_bpf_version": ""},
        ("set calico_bpf_version or calico_bpf_manifest: neither is set. Nothing was started",),
    ),
    "an unknown override": (
        {"calico_bpf_overrides": ["everything"]},
        ("overrides: 'everything' is not the code of a blocker; codes: ", "ctlb_kernel"),
    ),
    "an override that cannot be accepted": (
        {"calico_bpf_overrides": ["node_unknown"]},
        ("overrides: node_unknown cannot be accepted: the run would fail later",),
    ),
    "an unknown version": (
        {"calico_bpf_version": "v9.9.9"},
        ("unknown_version: v9.9.9 is not a release of Calico", "Name a release by its tag"),
    ),
    "a tag that is not a version": (
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
    "a downgrade away from TCX": (
        {"calico_bpf_version": "v3.30.7", "calico_bpf_namespace": "tcx"},
        ("known_bad_path: Releases up to 3.30 do not know TCX", "Set bpfAttachType to TC"),
    ),
    "the DaemonSet of the operator": (
        {"calico_bpf_namespace": "calico-system"},
        (
            "operator_install: DaemonSet calico-system/calico-node is managed by the Tigera"
            " operator",
        ),
    ),
    "no eBPF": (
        {"calico_bpf_namespace": "iptables"},
        ("not_bpf: Felix does not run in eBPF mode on worker-1, worker-2, by FELIX_BPFENABLED",),
    ),
    "no DaemonSet": (
        {"calico_bpf_daemonset": "canal"},
        ("no_daemonset: there is no DaemonSet kube-system/canal", "kubectl get daemonsets"),
    ),
    "a window in the past": (
        {"calico_bpf_window": {"start": "2020-01-01 22:00", "end": "2020-01-02 04:00"}},
        ("the maintenance window closed at 2020-01-02 04:00 UTC", "nothing was started"),
    ),
    "a window in the future": (
        {
            "calico_bpf_window": {
                "start": "2999-01-01 22:00",
                "end": "2999-01-02 04:00",
                "timezone": "Europe/Berlin",
            }
        },
        ("the window opens at 2999-01-01 22:00 CET", "nothing was started"),
    ),
    "an unknown time zone": (
        {"calico_bpf_window": {"start": "22:00", "end": "04:00", "timezone": "Europe/Bern"}},
        ("timezone: 'Europe/Bern' is not a time zone known on this machine", "IANA"),
    ),
    "half a window": (
        {"calico_bpf_window": {"start": "22:00"}},
        ("calico_bpf_window is {'start': '22:00'} (it has no start, or no end); accepted: ",),
    ),
}


@real
@pytest.mark.parametrize("case", OPTIONS)
def test_options_are_refused(lab: Rollout, case: str) -> None:
    variables, says = OPTIONS[case]
    must_refuse(lab, *says, **variables)


@real
def test_a_manifest_without_the_daemon_set(lab: Rollout) -> None:
    manifest = lab.cluster.folder / "manifest.yml"
    manifest.write_text(json.dumps(manifests.agent(1)))
    wanted: Object = {"calico_bpf_version": "", "calico_bpf_manifest": str(manifest)}
    must_refuse(lab, "no DaemonSet kube-system/calico-node among its 1 objects", **wanted)
    wanted["calico_bpf_version"] = FIXED
    must_refuse(lab, "set calico_bpf_version or calico_bpf_manifest: both are set", **wanted)


@either
def test_an_accepted_advisory_is_shown_and_no_longer_refused(lab: Rollout) -> None:
    """By its own code and by known_bad_path. The closed window then stops the run."""
    closed = {"start": "2020-01-01 22:00", "end": "2020-01-02 04:00"}
    for code in ("ctlb_kernel", "known_bad_path"):
        wanted: Object = {"version": "v3.29.5", "calico_bpf_overrides": [code]}
        output = must_refuse(lab, "window closed", calico_bpf_window=closed, **wanted)
        assert "accepted by overrides: The programs of the connect-time load balancer" in output
        assert "Refused, and nothing was changed" not in output


@real
def test_no_node_is_started_without_enough_time_left(lab: Rollout) -> None:
    window = until(datetime.now(timezone.utc) + timedelta(minutes=9))
    says = "and the next step needs 15 min 0 s; it was not started"
    must_refuse(lab, says, calico_bpf_window=window)


def until(end: datetime) -> dict[str, str]:
    """A window that opened long ago and ends at that minute."""
    return {"start": "2020-01-01 00:00", "end": f"{end:%Y-%m-%d %H:%M}"}


# --- problems in the cluster ----------------------------------------------------------------------


@real
def test_a_host_that_is_not_a_node_of_the_cluster(lab: Rollout) -> None:
    more = lab.cluster.folder / "more.yml"
    host = {"lab_init_file": str(lab.cluster.folder / "nothing")}
    more.write_text(json.dumps({"calico_nodes": {"hosts": {"worker-9": host}}}))
    both = ("-i", str(lab.cluster.inventory), "-i", str(more))
    says = "node_unknown: worker-9 is in the inventory but is not a node of this cluster"
    must_refuse(lab, says, "kubectl get nodes", args=both)


@either
def test_all_problems_are_reported_together(lab: Rollout) -> None:
    with not_ready(lab, "worker-2"):
        says = "node_not_ready: node worker-2 is not Ready"
        must_refuse(lab, says, "kubectl describe node worker-2")
        must_refuse(
            lab, says, "known_bad_path: The programs of the connect-time", version="v3.29.5"
        )


@contextmanager
def not_ready(lab: Rollout, node: str) -> Iterator[None]:
    path = f"/api/v1/nodes/{node}/status"

    def set_ready(status: str) -> None:
        body = {"status": {"conditions": [{"type": "Ready", "status": status}]}}
        lab.cluster.client.do("PATCH", path, body, patch="strategic-merge")

    set_ready("False")
    try:
        yield
    finally:
        set_ready("True")


@real
def test_a_budget_that_is_never_met(lab: Rollout) -> None:
    client = lab.cluster.client
    policy = client.do("GET", "/apis/policy")["preferredVersion"]["version"]
    path = f"/apis/policy/{policy}/namespaces/demo/poddisruptionbudgets/web"
    spec = client.do("GET", path)["spec"]

    def demand(minimum: int) -> None:
        client.do("PATCH", path, {"spec": {"minAvailable": minimum}})
        lab.cluster.wait(lambda: observed(client.do("GET", path)), "the status of the budget")

    demand(2)
    says = "demo/web: minAvailable 2 of 2 pods, so none of them may ever be evicted"
    try:
        must_refuse(lab, "budget_never_met: node worker-1: ", says, "relax the budget")
    finally:
        demand(spec["minAvailable"])


def observed(budget: Object) -> bool:
    seen = budget.get("status", {}).get("observedGeneration")
    return bool(seen == budget["metadata"]["generation"])


@either
def test_a_user_without_permissions_or_with_too_few(lab: Rollout) -> None:
    evict = "the API does not permit: create pods/eviction in the whole cluster. Nothing"
    api = lab.cluster.api
    if isinstance(api, EmbeddedApi):
        api.access.denied.add(("create", "pods/eviction"))
        try:
            must_refuse(lab, "api_permission: ", evict)
        finally:
            api.access.denied.clear()
        return
    limited = as_user(lab)
    lease = "update leases.coordination.k8s.io in namespace"
    must_refuse(limited, "get nodes in the whole cluster", f"{lease} kube-system")
    must_refuse(limited, f"{lease} tcx", calico_bpf_namespace="tcx")
    permit(lab, without="pods/eviction")
    must_refuse(limited, "api_permission: ", evict, "Bind a ClusterRole")


def as_user(lab: Rollout) -> Rollout:
    """The same lab, whose playbooks run as the user "nobody"."""
    api = lab.cluster.api
    assert isinstance(api, ControlPlane)
    return Rollout(replace(lab.cluster, api=api.nobody))


def permit(lab: Rollout, without: str = "") -> None:
    """Grant the user "nobody" the permissions that the preflight checks, and no others."""
    granted = [each for each in needed("kube-system", "kube-system") if each.resource != without]
    user = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "nobody"}
    for namespace in ("", "kube-system"):
        kind = "Role" if namespace else "ClusterRole"
        where = f"{RBAC}/namespaces/{namespace}/" if namespace else f"{RBAC}/"
        rules = [
            {"apiGroups": [each.group], "resources": [each.resource], "verbs": [each.verb]}
            for each in granted
            if each.namespace == namespace
        ]
        reference = {"apiGroup": user["apiGroup"], "kind": kind, "name": "rollout"}
        role, bound = {"metadata": {"name": "rollout"}}, f"{kind.lower()}bindings"
        lab.cluster.client.do("POST", f"{where}{kind.lower()}s", {**role, "rules": rules})
        body = {**role, "roleRef": reference, "subjects": [user]}
        lab.cluster.client.do("POST", f"{where}{bound}", body)


# --- another run ----------------------------------------------------------------------------------


@either
def test_the_holder_of_the_lease_is_named(lab: Rollout) -> None:
    with another_run(lab):
        says = f"another rollout works on this cluster: {LEASE_NAME} is held by {HOLDER}, since"
        output = must_refuse(lab, says, "last renewed", "nothing was changed. Wait until it ends")
        assert "waiting to see whether it is renewed: it is taken over after 8 s" in output
        must_refuse(lab, says, args=("--check",))
        assert lab.holder() == HOLDER


@contextmanager
def another_run(lab: Rollout) -> Iterator[None]:
    """Another run takes the Lease, by force if it is held, and keeps it until the end."""
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


# --- runs that stop after their start -------------------------------------------------------------


def test_a_run_that_is_stopped_twice_resumes() -> None:
    """The window closes before the second node; then the Lease is taken by force at that node.

    The user has only the permissions that the preflight checks.
    """
    require_control_plane()
    with new_rollout("real", nodes=3, endpoints=1, version=OLD) as lab:
        permit(lab)
        limited = as_user(lab)
        at_rest = {at: ids for at, ids in lab.programs().items() if at[0] != "worker-1"}
        for stop, cordoned in ((the_window_closes, set()), (the_lease_is_lost, {"worker-2"})):
            says = stop(limited)
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
        code, output = limited.upgrade()
        assert code == 0, output
        lab.must_be_complete()
        assert lab.report()["verdict"] == "completed"


def the_window_closes(run: Rollout) -> str:
    """Close the window while the first node is delayed; the expected message."""
    too_late = datetime.now(timezone.utc) + timedelta(seconds=70)
    end = (too_late + timedelta(minutes=2)).replace(second=0, microsecond=0)
    duration = int((end - too_late).total_seconds())
    playbook = run.start(
        calico_bpf_window=until(end),
        calico_bpf_node_duration=duration,
        drain_timeout=150,  # the drain is delayed
    )
    with delayed(run, playbook, "[node 1/3 worker-1] drain: begun"):
        run.cluster.wait(lambda: datetime.now(timezone.utc) > too_late, "not enough time left", 120)
    code, output = playbook.wait()
    assert code == 2, output
    assert "No other node was touched after that; the DaemonSet is left at OnDelete" in output
    assert "worker-2] drain: begun" not in output
    says = f"the maintenance window closes at {end:%Y-%m-%d %H:%M} UTC"
    assert says in output
    return says


def the_lease_is_lost(run: Rollout) -> str:
    """Take the Lease while a drain waits for pods that do not end; the expected message."""
    playbook = run.start()
    with delayed(run, playbook, "[node 2/3 worker-2] drain: begun"):
        run.seen(playbook, "worker-2: waiting for ")
        with another_run(run):
            run.cluster.wait(lambda: everything(run) == everything(run), "the evictions are done")
            before = everything(run)
            code, output = playbook.wait()
            assert everything(run) == before
    assert code == 2, output
    assert "worker-2 stays as it is, cordoned if its drain had begun" in output
    says = f"lost the {LEASE_NAME} before the next change"
    assert f"held it, and it is now held by {HOLDER}" in output
    assert says in output
    return says


@contextmanager
def delayed(run: Rollout, playbook: Playbook, at: str) -> Iterator[None]:
    """Pause the kubelet once the playbook has shown ``at``."""
    run.seen(playbook, at)
    run.cluster.kubelet.paused.set()
    try:
        yield
    finally:
        run.cluster.kubelet.paused.clear()
