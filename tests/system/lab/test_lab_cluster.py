# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab has real nodes, endpoints and Felix processes, and reproduces the fault of production."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.embedded import embedded_api
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import (
    conditions,
    ready,
)
from ansible_collections.dataplane.calico_bpf.tests.support.lab.lab_cluster import (
    LabCluster,
    lab_cluster,
)
from ansible_collections.dataplane.calico_bpf.tests.support.lab.node import Node
from ansible_collections.dataplane.calico_bpf.tests.support.lab.rollout import new_rollout
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import CHECKOUT

_RETRY = 0.5
_LAB = {"endpoints": 2, "retry": _RETRY, "heartbeat": 1}

_ECHO = """
import socket
served = socket.socket(type=socket.SOCK_DGRAM)
served.bind(("", 7))
print("ready", flush=True)
said, who = served.recvfrom(99)
served.sendto(said, who)
"""
_ASK = """
import socket, sys
asking = socket.socket(type=socket.SOCK_DGRAM)
asking.settimeout(5)
asking.sendto(b"hello", (sys.argv[1], 7))
print(asking.recv(99).decode())
"""
_PLAY = """
- hosts: calico_nodes
  gather_facts: false
  tasks:
    - ansible.builtin.ping:
    - ansible.builtin.command: hostname
      register: answer
    - ansible.builtin.assert:
        that: answer.stdout == inventory_hostname
    - ansible.builtin.copy:
        content: "{{ inventory_hostname }}"
        dest: /run/copied
        mode: "0600"
    - ansible.builtin.fetch:
        src: /run/copied
        dest: "{{ fetched }}"
"""


@pytest.fixture(scope="module", params=["embedded", "real"])
def cluster(request: pytest.FixtureRequest) -> Iterator[LabCluster]:
    """Each test leaves it healthy, so that they run in any order."""
    with new_rollout(request.param, **_LAB) as made:
        yield made.cluster


def play(cluster: LabCluster, tmp_path: Path) -> tuple[int, str]:
    playbook = tmp_path / "play.yml"
    playbook.write_text(_PLAY)
    return cluster.playbook(str(playbook), {"fetched": str(tmp_path / "fetched")})


def slots(node: Node, interface: str) -> list[list[tuple[int, int]]]:
    return [[f.slot for f in filters] for filters in node.filters(interface).values()]


def ready_node(cluster: LabCluster, name: str) -> str | None:
    return conditions(cluster.client.do("GET", f"/api/v1/nodes/{name}")).get("Ready")


def restarts(cluster: LabCluster, name: str) -> int:
    pod = cluster.calico_node(name)
    return int(pod["status"]["containerStatuses"][0]["restartCount"]) if pod else -1


# --- what there is --------------------------------------------------------------------------------


def test_each_endpoint_has_a_program_at_both_hooks(cluster: LabCluster) -> None:
    for node in cluster.nodes.values():
        assert len(node.agents()) == 2
        for interface in node.interfaces():
            assert [len(filters) for filters in node.filters(interface).values()] == [1, 1]
        assert len(node.felix_processes()) == 1
    assert sum(len(node.interfaces()) for node in cluster.nodes.values()) == 3 * 2 + 3
    assert cluster.dirty() == {}
    assert cluster.version() == "v3.28.1"


def test_a_node_reports_its_kernel(cluster: LabCluster) -> None:
    node = cluster.client.do("GET", "/api/v1/nodes/worker-1")
    assert node["status"]["nodeInfo"]["kernelVersion"] == os.uname().release
    beat = conditions_of(node)["lastHeartbeatTime"]

    def beaten() -> bool:
        held = cluster.client.do("GET", "/api/v1/nodes/worker-1")
        return bool(conditions_of(held)["lastHeartbeatTime"] > beat)

    cluster.wait(beaten, "the next heartbeat", 10)


def conditions_of(node: dict[str, Any]) -> dict[str, str]:
    ready_one: dict[str, str] = next(
        each for each in node["status"]["conditions"] if each["type"] == "Ready"
    )
    return ready_one


def test_pods_of_a_node_reach_each_other_through_their_endpoints(cluster: LabCluster) -> None:
    node = cluster.node("worker-2")
    here, there = (pod.split("/") for pod in list(node.addresses)[:2])
    netns = f"--net=/run/netns/{'.'.join(there)}"
    words = node.words("nsenter", netns, "python3", "-c", _ECHO)
    with subprocess.Popen(words, stdout=subprocess.PIPE) as echo:
        assert echo.stdout
        echo.stdout.readline()
        address = node.addresses["/".join(there)]
        assert node.pod_exec(*here, "python3", "-c", _ASK, address).strip() == "hello"


def test_a_pod_has_the_address_of_its_endpoint(cluster: LabCluster) -> None:
    for pod in cluster.pods("demo"):
        node = cluster.node(pod["spec"]["nodeName"])
        name = f"demo/{pod['metadata']['name']}"
        assert pod["status"]["podIP"] == node.addresses[name]


def test_the_log_of_felix_is_that_of_its_pod(cluster: LabCluster) -> None:
    pod = cluster.calico_node("worker-3")
    assert pod
    name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
    path = f"/api/v1/namespaces/kube-system/pods/{name}/log"
    log = cluster.client.do("GET", path, container="calico-node")
    assert "Program attached to TC." in log
    folder = f"/var/log/pods/kube-system_{name}_{uid}/calico-node"
    written = cluster.node("worker-3").path(folder) / f"{restarts(cluster, 'worker-3')}.log"
    first = log.splitlines()[0]
    assert written.read_text().splitlines()[0].endswith(f"Z stdout F {first}"), "as a CRI does"


def test_ansible_gets_into_the_nodes(cluster: LabCluster, tmp_path: Path) -> None:
    code, said = play(cluster, tmp_path)
    assert code == 0, said
    for name, node in cluster.nodes.items():
        assert node.path("/run/copied").read_text() == name
        assert (tmp_path / "fetched" / name / "run/copied").read_text() == name
    assert not Path("/run/copied").exists()


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_felix_that_dies_is_started_again(cluster: LabCluster) -> None:
    node, before = cluster.node("worker-1"), restarts(cluster, "worker-1")
    (felix,) = node.felix_processes()
    node.exec("kill", "-9", str(felix))
    cluster.wait(lambda: restarts(cluster, "worker-1") == before + 1, "a restart")
    cluster.wait(cluster.all_ready, "all are ready again")
    (again,) = node.felix_processes()
    assert again != felix


def test_a_dead_node_is_unreachable_and_comes_back(cluster: LabCluster, tmp_path: Path) -> None:
    node = cluster.node("worker-2")
    before, restarted = node.interfaces(), restarts(cluster, "worker-2")
    node.kill()
    cluster.wait(lambda: ready_node(cluster, "worker-2") == "Unknown", "the node is lost")
    code, said = play(cluster, tmp_path)
    assert code == 4, said
    assert "UNREACHABLE! => " in said
    assert [f"worker-{n}" for n in (1, 2, 3) if f"fatal: [worker-{n}]" in said] == ["worker-2"]
    node.start()
    cluster.wait(cluster.all_ready, "all its pods are ready again")
    cluster.wait(lambda: ready_node(cluster, "worker-2") == "True", "so is the node")
    assert restarts(cluster, "worker-2") == restarted + 1
    assert node.interfaces() == before
    for interface in before:
        assert [len(hook) for hook in slots(node, interface)] == [1, 1]


def test_a_lingering_felix_runs_beside_the_new_one(cluster: LabCluster) -> None:
    node = cluster.node("worker-3")
    node.faults.linger = 2.0
    pod = cluster.calico_node("worker-3")
    assert pod
    path = f"/api/v1/namespaces/kube-system/pods/{pod['metadata']['name']}"
    cluster.client.do("DELETE", path)
    cluster.wait(lambda: len(node.felix_processes()) == 2, "two Felixes: the grace period is 0")
    cluster.wait(lambda: len(node.felix_processes()) == 1, "the old one went")
    node.faults.linger = 0.0
    cluster.wait(cluster.all_ready, "the new one is ready")


def test_a_felix_with_a_grace_period_ends_within_it(cluster: LabCluster) -> None:
    pod = cluster.calico_node("worker-1")
    assert pod
    path = f"/api/v1/namespaces/kube-system/pods/{pod['metadata']['name']}"
    cluster.client.do("DELETE", path, {"gracePeriodSeconds": 60})
    cluster.wait(lambda: cluster.client.ask("GET", path).code == 404, "it is gone", 10)
    cluster.wait(cluster.all_ready, "the new one is ready")
    assert len(cluster.node("worker-1").felix_processes()) == 1


def test_a_felix_lost_by_its_runtime_keeps_working(cluster: LabCluster) -> None:
    node = cluster.node("worker-3")
    (old,) = node.felix_processes()
    node.faults.runtime_loses_felix = True
    pod = cluster.calico_node("worker-3")
    assert pod
    path = f"/api/v1/namespaces/kube-system/pods/{pod['metadata']['name']}"
    cluster.client.do("DELETE", path)
    cluster.wait(lambda: len(node.felix_processes()) == 2, "two Felixes")
    time.sleep(1)
    assert old in node.felix_processes()
    node.faults.runtime_loses_felix = False
    node.exec("kill", "-9", str(old))
    cluster.wait(lambda: len(node.felix_processes()) == 1, "one is left")
    cluster.wait(cluster.all_ready, "it is ready")


def test_a_felix_has_the_faults_that_are_switched_on(cluster: LabCluster) -> None:
    node = cluster.node("worker-1")
    broken = node.agents()[0]
    node.faults.felix(dirty=[broken])
    cluster.wait(lambda: cluster.dirty() == {"worker-1": [broken]}, "it is dirty")
    node.faults.felix()
    cluster.wait(cluster.all_ready, "it heals")
    assert cluster.dirty() == {}


# --- the field's fault ----------------------------------------------------------------------------


@pytest.mark.parametrize("api", ["embedded", "real"])
def test_a_plain_rolling_restart_leaves_endpoints_permanently_dirty(api: str) -> None:
    """#10143, by a grace period of 0: 3.28.1 killed in a pass, 3.29.1 never gets in step."""
    with new_rollout(api, **_LAB) as made:
        restart_in_a_rolling_way(made.cluster)


def restart_in_a_rolling_way(cluster: LabCluster) -> None:
    where = {"interface": "cali*", "hook": "ingress", "point": "between_hooks"}
    for node in cluster.nodes.values():
        node.faults.killed_in_pass = where
    cluster.set_version("v3.29.1")
    dirty = cluster.wait(cluster.dirty, "the first node is dirty")
    for node in cluster.nodes.values():
        node.faults.killed_in_pass = None
    ((name, (interface,)),) = dirty.items()
    priorities = [
        [priority for priority, _h in hook] for hook in slots(cluster.node(name), interface)
    ]
    assert priorities[0] != priorities[1]
    time.sleep(6 * _RETRY)
    assert cluster.dirty() == dirty
    assert not cluster.rolled_out()
    pod = cluster.calico_node(name)
    assert pod
    assert not ready(pod)
    images = [pod["spec"]["containers"][0]["image"] for pod in cluster.pods("kube-system")]
    assert sorted(image.rpartition(":")[2] for image in images) == ["v3.28.1"] * 2 + ["v3.29.1"]


def test_a_fixed_release_freezes_what_it_inherits() -> None:
    """#10376: the mismatch of 3.29.4 is still there with 3.29.5, and no longer moves."""
    with (
        embedded_api() as api,
        lab_cluster(api, 1, "v3.29.4", endpoints=3, retry=_RETRY, metrics=False) as cluster,
    ):
        node = cluster.node("worker-1")
        broken = cluster.seed_mismatch("worker-1", 2)
        cluster.set_version("v3.29.5")
        cluster.wait(lambda: cluster.dirty() == {"worker-1": broken}, "both are dirty")
        before = [slots(node, interface) for interface in broken]
        assert before == [[[(49152, 1)], [(49152, 2)]]] * 2
        time.sleep(4 * _RETRY)
        assert [slots(node, interface) for interface in broken] == before
        assert cluster.dirty() == {"worker-1": broken}


@pytest.mark.parametrize(("attach_type", "filters"), [(None, 0), ("TC", 1)])
def test_a_release_attaches_as_configured_by_its_environment(
    attach_type: str | None, filters: int
) -> None:
    with (
        embedded_api() as api,
        lab_cluster(api, 1, "v3.31.0", endpoints=1, attach_type=attach_type) as cluster,
    ):
        node = cluster.node("worker-1")
        (interface,) = node.agents()
        assert [len(hook) for hook in slots(node, interface)] == [filters] * 2
        assert len(list(node.path("/sys/fs/bpf").glob(f"tcx/{interface}_*"))) == 2 - 2 * filters
        if not filters:
            with pytest.raises(ValueError, match="no filter at each hook"):
                cluster.seed_mismatch("worker-1")


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "lab"
    yield folder
    command(folder, "down")


def command(files: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "tests/support/lab"), f"--files={files}", *words],
        capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def family(process: int) -> list[int]:
    """A process and its descendants."""
    children = Path(f"/proc/{process}/task").glob("*/children")
    below = [int(child) for each in children for child in each.read_text().split()]
    return [process, *(p for child in below for p in family(child))]


def await_end(processes: list[int]) -> None:
    deadline = time.monotonic() + 30
    while left := [process for process in processes if runs(process)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def runs(process: int) -> bool:
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(") ")[2][0] != "Z"


def test_up_and_down(files: Path) -> None:
    small = ("up", "--nodes", "2", "--endpoints", "1", "--broken", "1")
    code, said = command(files, *small)
    assert code == 0, said
    assert "2 nodes with Calico v3.28.1 are up" in said
    served = family(int((files / "lock").read_text()))
    code, said = command(files, *small)
    assert (code, "up already" in said) == (1, True)
    code, said = command(files, "status")
    assert said.count("calico-node v3.28.1 Ready") == 2
    words = ["sh", "-c", f". {files}/environment; ansible calico_nodes -m ping"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout.count("SUCCESS") == 2, done.stdout + done.stderr
    assert command(files, "down") == (0, "the lab is down\n")
    await_end(served)
    assert not files.exists()
    assert command(files, "status")[0] == 3


def test_a_killed_one_leaves_nothing(files: Path) -> None:
    code, said = command(files, "up", "--nodes", "1", "--endpoints", "1")
    assert code == 0, said
    served = family(int((files / "lock").read_text()))
    folder = (files / "inventory.yml").resolve().parent
    assert folder.exists()
    os.kill(served[0], signal.SIGKILL)
    await_end(served)
    assert command(files, "status")[0] == 3
    assert command(files, "down") == (0, "no lab was up\n")
    assert not folder.exists()
    assert not files.exists()


def test_wrong_arguments_are_refused(files: Path) -> None:
    code, said = command(files, "up", "--version", "v1.0.0", "--nodes", "1")
    assert code == 1
    assert "v1.0.0 is older" in said
    assert command(files, "up", "--broken", "99")[0] == 2
