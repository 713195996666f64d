# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""upgrade.yml without faults: what it does, in which order, and what it never does."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import ready
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.serving import BOTH
from ansible_collections.dataplane.calico_bpf.tests.support.lab import manifests
from ansible_collections.dataplane.calico_bpf.tests.support.lab.rollout import (
    DAEMON_SET,
    FIXED,
    Rollout,
    new_rollout,
)
from ansible_collections.dataplane.calico_bpf.tests.support.lab.snapshot import snapshot

pytestmark = pytest.mark.timeout(900)
Object = dict[str, Any]

OLD = "v3.28.1"
PHASES = ("drain", "qdisc_parity", "node_upgrade", "reattach", "verify", "resume")
PREFIX = "dataplane.calico-bpf/"
#: No heartbeat in the time of a test: what is seeded stays as it is, what is written is ours.
STILL: dict[str, Any] = {"version": OLD, "heartbeat": 3600}


# --- the whole of it ------------------------------------------------------------------------------


@pytest.mark.parametrize("api", BOTH)
def test_an_upgrade_and_a_second_run_that_changes_nothing(api: str) -> None:
    with new_rollout(api, nodes=3, endpoints=2, **STILL) as rollout:
        seeded = {
            "worker-1": rollout.cluster.seed_mismatch("worker-1"),
            "worker-3": rollout.cluster.seed_mismatch("worker-3", 2, "ingress"),
        }
        before, strategy = rollout.cluster.pods("demo"), update_strategy(rollout)
        with watched(rollout) as watch:
            code, output = rollout.upgrade()
        assert code == 0, output
        assert not watch.wrong
        assert watch.moments > 20
        assert "OnDelete" in watch.strategies
        rollout.must_be_complete()
        assert update_strategy(rollout) == strategy
        assert pods_left(before, rollout.cluster.pods("demo")) == {"agent"}
        all_phases_are_shown(output, 3)
        nodes_are_annotated_as_verified(rollout)
        the_report_is_complete(rollout, seeded)
        assert re.fullmatch(r"https?://[\w.]+:\d+", rollout.report()["api_server"])
        nothing_is_changed_by_a_second_run(rollout)


def update_strategy(rollout: Rollout) -> Any:
    return rollout.cluster.client.do("GET", DAEMON_SET)["spec"]["updateStrategy"]


def pods_left(before: list[Object], after: list[Object]) -> set[str]:
    """The apps with pods that still exist, which are those that a drain does not evict."""
    left = {pod["metadata"]["uid"] for pod in after}
    same = [pod["metadata"] for pod in before if pod["metadata"]["uid"] in left]
    return {metadata["name"].partition("-")[0] for metadata in same}


def all_phases_are_shown(output: str, total: int) -> None:
    begun = re.findall(r"^\[node (\d)/(\d) (\S+)\] (\w+): begun$", output, re.M)
    numbers = range(1, total + 1)
    assert begun == [(str(n), str(total), f"worker-{n}", p) for n in numbers for p in PHASES]
    done = re.findall(r"^\[node \d/\d \S+\] \w+: done in [\d.]+ s$", output, re.M)
    assert len(done) == len(begun)
    assert re.search(r"^worker-1: waiting for 1 pod to go: demo/web-", output, re.M)


def nodes_are_annotated_as_verified(rollout: Rollout) -> None:
    for name in rollout.cluster.nodes:
        pod = rollout.cluster.calico_node(name)
        assert pod
        annotations = rollout.cluster.client.do("GET", f"/api/v1/nodes/{name}")["metadata"]
        annotated = {k: v for k, v in annotations["annotations"].items() if k.startswith(PREFIX)}
        at = annotated.pop(f"{PREFIX}upgraded-at")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", at)
        revision = pod["metadata"]["labels"]["controller-revision-hash"]
        assert annotated == {f"{PREFIX}verified": revision}


def the_report_is_complete(rollout: Rollout, seeded: dict[str, list[str]]) -> None:
    report = rollout.report()
    assert (report["verdict"], report["title"]) == ("completed", f"Upgrade to {FIXED}")
    assert report["stop"] is None
    assert report["about"]["versions"] == {OLD: 3}
    assert {advisory["code"] for advisory in report["about"]["advisories"]} > {"parity_persists"}
    ended = ""
    for node in report["nodes"]:
        assert (node["state"], node["cordoned"]) == ("done", False)
        assert (node["version_before"], node["version_after"]) == (OLD, FIXED)
        assert tuple(phase["phase"] for phase in node["phases"]) == PHASES
        assert {phase["state"] for phase in node["phases"]} == {"done"}
        assert ended <= node["begun"] < node["ended"]  # one at a time
        ended = node["ended"]
        assert repaired(node) == set(seeded.get(node["name"], ()))
        checks = phase_of(node, "verify")["checks"]
        assert len(checks) == 11
        assert {check["result"] for check in checks} == {"good"}
    assert [node["name"] for node in report["nodes"]] == list(rollout.cluster.nodes)
    totals = report["totals"]
    assert [totals[key] for key in ("found", "repaired", "left")] == [3, 3, 0]
    assert totals["evicted"] >= 3
    html = next(rollout.reports.glob("*/report.html")).read_text()
    for interface in (name for names in seeded.values() for name in names):
        assert interface in html
    assert not re.findall(r"<(?:script|link|img|iframe)\b|@import|url\(", html)


def phase_of(node: Object, name: str) -> Object:
    """The result of a phase in the report."""
    result: Object = next(p["result"] for p in node["phases"] if p["phase"] == name)
    return result


def repaired(node: Object, *phases: str) -> set[str]:
    """The interfaces that were repaired on a node, in those phases or in all."""
    parities = [phase_of(node, name)["parity"] for name in phases or PHASES]
    endpoints = [endpoint for parity in parities if parity for endpoint in parity["endpoints"]]
    return {endpoint["interface"] for endpoint in endpoints if endpoint["verdict"] == "repaired"}


def nothing_is_changed_by_a_second_run(rollout: Rollout) -> None:
    before = snapshot(rollout)
    code, output = rollout.upgrade()
    assert code == 0, output
    assert len(re.findall(r"changed=0 .* failed=0", output)) == 3, output
    assert snapshot(rollout).without_lease == before.without_lease
    assert rollout.states() == dict.fromkeys(rollout.cluster.nodes, "skipped")
    assert rollout.report()["next"] == ["Nothing is left to do."]


class Watch(threading.Thread):
    """Polls a rollout; ``wrong`` collects violations of its invariants."""

    def __init__(self, rollout: Rollout, at_once: int) -> None:
        super().__init__(name="watch", daemon=True)
        self._rollout, self._at_once = rollout, at_once
        self.moments = 0
        self.wrong: set[str] = set()
        self.strategies: list[str] = []
        self._ended = threading.Event()

    def end(self) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while not self._ended.wait(0.1):
            self.wrong |= set(self._look())
            self.moments += 1

    def _look(self) -> Iterator[str]:
        cluster = self._rollout.cluster
        calico = cluster.pods("kube-system")
        self.strategies.append(self._rollout.strategy())
        up = [pod for pod in calico if ready(pod)]
        down = set(cluster.nodes) - {pod["spec"].get("nodeName") for pod in up}
        if len(down) > self._at_once:
            yield f"no calico-node is Ready on {sorted(down)}"
        versions = {pod["spec"]["containers"][0]["image"] for pod in calico}
        if len(versions) > 1 and self.strategies[-1] != "OnDelete":
            yield f"{self.strategies[-1]} while there are {sorted(versions)}"
        if len(cordoned := self._rollout.cordoned()) > self._at_once:
            yield f"{sorted(cordoned)} are cordoned"
        web = [pod for pod in cluster.pods("demo") if pod["metadata"]["name"].startswith("web-")]
        if sum(ready(pod) for pod in web) < min(3, len(cluster.nodes)) - 1:
            yield "fewer web pods are Ready than their budget demands"
        for name, node in cluster.nodes.items():
            if len(node.felix_processes()) > 1:
                yield f"two Felixes work on {name}"


@contextmanager
def watched(rollout: Rollout, at_once: int = 1) -> Iterator[Watch]:
    """Watch a rollout that may change ``at_once`` nodes at a time."""
    watch = Watch(rollout, at_once)
    watch.start()
    try:
        yield watch
    finally:
        watch.end()


@pytest.mark.parametrize("attach_type", ["TC", "TCX"])
def test_an_upgrade_to_a_release_with_tcx(attach_type: str) -> None:
    with new_rollout("embedded", nodes=1, endpoints=2, attach_type=attach_type, **STILL) as rollout:
        broken = rollout.cluster.seed_mismatch("worker-1")
        code, output = rollout.upgrade(version="v3.31.7")
        assert code == 0, output
        (node,) = rollout.report()["nodes"]
        assert repaired(node) == set(broken)
        assert {check["result"] for check in phase_of(node, "verify")["checks"]} == {"good"}
        worker = rollout.cluster.node("worker-1")
        hooks = [len(at) for name in worker.agents() for at in worker.filters(name).values()]
        links = [len(list(worker.path("/sys/fs/bpf/tcx").glob(f"{n}_*"))) for n in worker.agents()]
        if attach_type == "TC":
            rollout.must_be_complete("v3.31.7")
        assert (hooks, links) == ([1] * 4, [0] * 2) if attach_type == "TC" else ([0] * 4, [2] * 2)
        assert (rollout.strategy(), rollout.cordoned()) == ("RollingUpdate", set())


# --- check mode -----------------------------------------------------------------------------------


def test_check_mode_predicts_exactly_what_a_real_run_does() -> None:
    """Including a node that an administrator cordoned, which stays cordoned."""
    with new_rollout("embedded", nodes=2, endpoints=2, **STILL) as rollout:
        broken = {"worker-1": 1, "worker-2": 2}
        seeded = {n: rollout.cluster.seed_mismatch(n, count) for n, count in broken.items()}
        cordon(rollout, "worker-2")
        before = snapshot(rollout)
        former = {name: rollout.cluster.calico_node(name) for name in rollout.cluster.nodes}
        code, output = rollout.upgrade("--check")
        assert code == 0, output
        assert snapshot(rollout) == before
        assert not rollout.reports.exists()
        assert "worker-2 was cordoned by someone else" in output
        assert "worker-1] resume: done (check mode): would uncordon it\n" in output
        assert "worker-2] resume: done (check mode): would leave it as it is\n" in output
        code, really = rollout.upgrade()
        assert code == 0, really
        assert rollout.cordoned() == {"worker-2"}
        assert "(check mode)" not in really
        for node in rollout.report()["nodes"]:
            name = node["name"]
            pod = former[name]
            assert pod
            evicted = ", ".join(phase_of(node, "drain")["drain"]["evicted"])
            would = f"{name}] {{}}: done (check mode): would {{}}".format
            assert evicted
            assert would("drain", f"evict {evicted}\n") in output
            assert repaired(node) == repaired(node, "qdisc_parity") == set(seeded[name])
            assert would("qdisc_parity", f"repair {', '.join(sorted(seeded[name]))}\n") in output
            replaced = f"replace {pod['metadata']['name']}, which runs {OLD}\n"
            assert would("node_upgrade", replaced) in output
            assert (
                phase_of(node, "node_upgrade")["other"]["former"]["name"] == pod["metadata"]["name"]
            )
        cordon(rollout, "worker-2", False)
        rollout.must_be_complete()


def cordon(rollout: Rollout, node: str, unschedulable: bool = True) -> None:
    body = {"spec": {"unschedulable": unschedulable or None}}
    rollout.cluster.client.do("PATCH", f"/api/v1/nodes/{node}", body)


# --- a part of it ---------------------------------------------------------------------------------


def test_an_upgrade_by_limit_and_a_rollback_of_all_nodes(tmp_path: Path) -> None:
    """The inventory names the nodes differently than the cluster."""
    with new_rollout("embedded", nodes=2, endpoints=1, **STILL) as rollout:
        names = ("-i", str(inventory_of_its_own(rollout, tmp_path)))
        strategy = update_strategy(rollout)
        code, output = rollout.upgrade(*names, "--limit", "host-2")
        assert code == 0, output
        assert rollout.versions() == {"worker-1": OLD, "worker-2": FIXED}
        assert rollout.strategy() == "OnDelete"
        assert "stays at OnDelete: 1 of its pods do not have the newest revision" in output
        assert rollout.states() == {"worker-2": "done"}
        report = rollout.report()
        assert report["verdict"] == "partial"
        assert "Nothing is left to do." not in report["next"]
        assert "1 calico-node pod has an older revision" in report["next"][0]
        assert not rollout.cordoned()
        assert not rollout.holder()

        code, output = rollout.upgrade(*names)
        assert code == 0, output
        assert rollout.states() == {"worker-1": "done", "worker-2": "skipped"}
        assert "[node 1/2 worker-1] drain: begun" in output
        rollout.must_be_complete()

        code, output = rollout.rollback(*names)
        assert code == 0, output
        rollout.must_be_complete(OLD)
        assert update_strategy(rollout) == strategy
        report = rollout.report()
        assert (report["verdict"], report["title"]) == ("completed", f"Rollback to {OLD}")
        begun = {node["begun"]: node["name"] for node in report["nodes"]}
        assert [begun[at] for at in sorted(begun)] == [
            "worker-1",
            "worker-2",
        ]  # the last upgraded first
        after = {(node["version_before"], node["version_after"]) for node in report["nodes"]}
        assert after == {(FIXED, OLD)}


def inventory_of_its_own(rollout: Rollout, folder: Path) -> Path:
    inventory = json.loads(rollout.cluster.inventory.read_text())
    nodes = inventory["calico_nodes"]
    nodes["hosts"] = {
        name.replace("worker", "host"): {**variables, "calico_bpf_node": name}
        for name, variables in nodes["hosts"].items()
    }
    path = folder / "inventory.yml"
    path.write_text(json.dumps(inventory))
    return path


def test_verify_alone_and_a_soak_after_a_batch_of_two() -> None:
    """--tags verify, with probes that fail and that succeed; then [2, 1] on three nodes."""
    with new_rollout("embedded", nodes=3, endpoints=1, **STILL) as rollout:
        before = snapshot(rollout)
        felix = {"url": "http://localhost:9099/readiness"}
        code, output = rollout.upgrade(
            "--tags", "verify", verify_probes=[felix, {"host": "127.0.0.1", "port": 1}]
        )
        assert code == 2, output
        assert "worker-1 does not verify: probe 127.0.0.1:1" in output
        assert "drain" not in re.findall(r"^\[node .*?\] (\w+): begun", output, re.M)
        assert snapshot(rollout).without_lease == before.without_lease
        code, output = rollout.upgrade("--tags", "verify", verify_probes=[felix])
        assert code == 0, output
        assert snapshot(rollout).without_lease == before.without_lease
        assert rollout.report()["verdict"] == "completed"

        more: Object = {
            "calico_bpf_batches": [2, 1],
            "calico_bpf_soak": 3,
            "verify_probes": [felix],
        }
        with watched(rollout, 2) as watch:
            playbook = rollout.start(**more)
            rollout.seen(playbook, "TASK [Soak | Let the canaries run]")
            holder = rollout.holder()
            rollout.seen(playbook, "TASK [Soak | Verify them once more]")
            assert holder
            assert rollout.holder() == holder
            assert rollout.versions()["worker-3"] == OLD
            code, output = playbook.wait()
        assert code == 0, output
        assert not watch.wrong
        rollout.must_be_complete()
        first, second, third = rollout.report()["nodes"]
        assert second["begun"] < first["ended"] < third["begun"]
        soak = output[output.index("TASK [Soak | Verify") : output.index("worker-3] drain: begun")]
        assert re.findall(r"ok: \[(\S+)\]", soak[soak.index(": Watch Felix]") :])[:2] in (
            ["worker-1", "worker-2"],
            ["worker-2", "worker-1"],
        )
        names = [check["name"] for check in phase_of(third, "verify")["checks"]]
        assert f"probe {felix['url']}" in names


def test_batches_by_percent_without_evictions() -> None:
    with new_rollout("embedded", nodes=4, endpoints=1, **STILL) as rollout:
        pods = {pod["metadata"]["uid"] for pod in rollout.cluster.pods("demo")}
        with watched(rollout, 2) as watch:
            code, output = rollout.upgrade(calico_bpf_batches=[1, "50%"], drain_evict=False)
        assert code == 0, output
        assert not watch.wrong
        rollout.must_be_complete()
        assert {pod["metadata"]["uid"] for pod in rollout.cluster.pods("demo")} == pods
        one, two, three, four = rollout.report()["nodes"]
        assert one["ended"] <= two["begun"]
        assert three["begun"] < two["ended"] < four["begun"]


# --- from a manifest ------------------------------------------------------------------------------


def test_applying_a_manifest_replaces_no_pod_by_itself() -> None:
    """On the real API, which implements apply; some objects have no namespace."""
    with new_rollout("real", nodes=2, endpoints=1, **STILL) as rollout:
        strategy, manifest = update_strategy(rollout), rollout.cluster.folder / "calico.yml"
        manifest.write_text(user_manifest())
        wanted = {"version": "", "calico_bpf_manifest": str(manifest)}
        with watched(rollout) as watch:
            code, output = rollout.upgrade(**wanted)
        assert code == 0, output
        assert not watch.wrong
        assert "OnDelete" in watch.strategies
        rollout.must_be_complete()
        assert update_strategy(rollout) == strategy
        client = rollout.cluster.client
        config = client.do("GET", "/api/v1/namespaces/kube-system/configmaps/calico-config")
        assert config["data"] == {"veth_mtu": "0"}
        spec = client.do("GET", DAEMON_SET)["spec"]["template"]["spec"]
        assert {"name": "FELIX_BPFLOGLEVEL", "value": "Off"} in spec["containers"][0]["env"]
        before = snapshot(rollout)
        code, output = rollout.upgrade(**wanted)
        assert code == 0, output
        assert len(re.findall(r"changed=0 .* failed=0", output)) == 2, output
        assert snapshot(rollout).without_lease == before.without_lease


def user_manifest() -> str:
    """A user's manifest: the one of the release, with RollingUpdate and a setting of their own."""
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "calico-config"},
        "data": {"veth_mtu": "0"},
    }
    daemon_set = manifests.calico_node(FIXED, None)
    del daemon_set["metadata"]["namespace"]
    spec = daemon_set["spec"]["template"]["spec"]
    spec["containers"][0]["env"].append({"name": "FELIX_BPFLOGLEVEL", "value": "Off"})
    listed = {"apiVersion": "v1", "kind": "List", "items": [daemon_set]}
    return "\n---\n".join(["# Calico", json.dumps(config), json.dumps(listed), ""])
