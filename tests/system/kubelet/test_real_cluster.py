# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real cluster starts, survives what tests do to it, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.kubelet import programs
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.daemonset import (
    CalicoNode,
    Settings,
    uid_of,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.felix_watch import FelixWatch
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.real_cluster import (
    RealCluster,
    real_cluster,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.server import run
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.waiting import wait_until
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: Where kubelet, containerd and controller manager write unless they are kept from it.
_DEFAULT_FOLDERS = (
    "/etc/cni",
    "/opt/cni",
    "/opt/containerd",
    "/run/containerd",
    "/usr/libexec/kubernetes",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
)
_SYSCTLS = ("kernel/panic", "kernel/panic_on_oops", "vm/overcommit_memory", "vm/panic_on_oom")


# --- what tests do to a cluster -------------------------------------------------------------------


def test_every_node_has_a_felix_that_the_others_do_not_see(kubernetes: Path) -> None:
    with real_cluster(nodes=2) as cluster:
        CalicoNode(Client(cluster.api)).create(Settings())
        with FelixWatch(cluster.nodes.values()) as watch:
            assert len(watch.alive()) == 2
            assert watch.most == 1  # of one node
        for name, node in cluster.nodes.items():
            processes = node.exec("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
            assert processes.count("calico-node -felix") == 1, name
            assert node.exec("hostname").strip() == name


def test_a_stopped_kubelet_leaves_the_pod_running(
    cluster: RealCluster, calico_node: CalicoNode
) -> None:
    node = cluster.nodes["n1"]
    calico_node.create(Settings())
    before = calico_node.ready_pod("n1")
    with FelixWatch([node]) as watch:
        (felix,) = watch.alive(uid_of(before))
        node.stop_kubelet()
        with pytest.raises(OSError, match="refused"):
            node.kubelet.probe()
        node.start_kubelet()
    assert [change.sign for change in watch.changes] == ["+"], str(watch)
    assert felix in node.pod_processes()[uid_of(before)]
    (after,) = calico_node.pods()
    assert uid_of(after) == uid_of(before)
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0


def test_a_pod_deleted_while_the_kubelet_is_stopped_keeps_its_felix(
    cluster: RealCluster, calico_node: CalicoNode
) -> None:
    node = cluster.nodes["n1"]
    calico_node.create(Settings())
    old = calico_node.ready_pod("n1")
    node.stop_kubelet()
    with FelixWatch([node]) as watch:
        calico_node.delete_pod(old)
        calico_node.wait_gone(old)
        assert watch.alive(uid_of(old))
        node.start_kubelet()
        watch.wait_ended(uid_of(old))
    calico_node.wait_ready()


def test_a_killed_containerd_leaves_the_pod_running(
    cluster: RealCluster, calico_node: CalicoNode
) -> None:
    node = cluster.nodes["n1"]
    calico_node.create(Settings())
    pod = calico_node.ready_pod("n1")
    with FelixWatch([node]) as watch:
        node.kill_containerd()
        node.start_containerd()
    assert [change.sign for change in watch.changes] == ["+"], str(watch)
    log = f"/api/v1/namespaces/kube-system/pods/{pod['metadata']['name']}/log"
    client = Client(cluster.api)
    # The kubelet takes some seconds to connect again.
    wait_until(lambda: client.ask("GET", log).body == "calico-node started\n", "the log")
    calico_node.delete_pod(pod)  # the new containerd ends the containers of the old one
    calico_node.successor(pod)
    calico_node.wait_ready()


# --- what it leaves -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Marks:
    """Names that identify the leftovers of a cluster."""

    folder: str
    cgroups: str
    address: str

    @classmethod
    def of(cls, cluster: RealCluster) -> Marks:
        node = cluster.nodes["n1"]
        prefix = node.cgroup.removesuffix(node.name)
        return cls(str(cluster.folder), prefix, node.address.rpartition(".")[0] + ".")


def _traces(marks: Marks) -> dict[str, list[str]]:
    """The leftovers of a cluster on the machine, except in the mount namespaces of nodes."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    words = (marks.folder, marks.cgroups)
    found = {
        "processes": [line for line in _processes() if any(word in line for word in words)],
        "cgroups": [path for path, *_folders in os.walk("/sys/fs/cgroup") if marks.cgroups in path],
        "links": [
            line
            for command in ("address", "route")
            for line in run("ip", "-oneline", command, "show").splitlines()
            if marks.address in line
        ],
        "sockets": [line for line in run("ss", "-Hltun").splitlines() if marks.address in line],
        "mounts": [line for line in mounts if any(word in line for word in words)],
        "files": [marks.folder] if Path(marks.folder).exists() else [],
    }
    return {kind: traces for kind, traces in found.items() if traces}


def _processes() -> Iterator[str]:
    """Every process: its command line and cgroups."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            yield " ".join(
                (entry / file).read_text(errors="replace").replace("\0", " ")
                for file in ("cmdline", "cgroup")
            )


def _machine() -> dict[str, Any]:
    """The state of the machine itself, which is the same before, during and after."""
    return {
        "folders": [folder for folder in _DEFAULT_FOLDERS if Path(folder).exists()],
        "sysctls": [Path("/proc/sys", name).read_text() for name in _SYSCTLS],
        "hostname": os.uname().nodename,
    }


@contextmanager
def _busy_cluster() -> Iterator[RealCluster]:
    """A cluster with two nodes and a Felix that ignores SIGTERM."""
    with real_cluster(nodes=2) as cluster:
        CalicoNode(Client(cluster.api)).create(Settings(ignore_term=True))
        yield cluster


def test_nothing_is_left_when_a_test_fails(kubernetes: Path) -> None:
    machine = _machine()
    with suppress(ZeroDivisionError), _busy_cluster() as cluster:
        marks = Marks.of(cluster)
        assert set(_traces(marks)) == {"processes", "cgroups", "links", "sockets", "files"}
        assert _machine() == machine
        raise ZeroDivisionError
    assert _traces(marks) == {}
    assert _machine() == machine


_HOLD = f"""
import json, signal
from dataclasses import asdict
from {__name__} import Marks, _busy_cluster
with _busy_cluster() as cluster:
    print(json.dumps(asdict(Marks.of(cluster))), flush=True)
    signal.pause()
"""


def test_nothing_outlives_a_process_that_is_killed(kubernetes: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD], stdout=subprocess.PIPE, text=True, env=environment
    ) as holder:
        try:
            assert holder.stdout
            marks = Marks(**json.loads(holder.stdout.readline()))
            assert set(_traces(marks)) >= {"processes", "cgroups", "links", "files"}
        finally:
            holder.kill()
    wait_until(lambda: not _traces(marks), f"nothing is left of {asdict(marks)}", 30)


# --- what is not there, or does not work ----------------------------------------------------------


def _programs(folder: Path, kubernetes: Path, **scripts: str) -> Path:
    """A folder with all programs, of which some are shell scripts."""
    folder.mkdir()
    for name in programs.PROGRAMS:
        if script := scripts.get(name.replace("-", "_")):
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
        else:
            (folder / name).symlink_to(kubernetes / name)
    return folder


def test_a_named_folder_must_be_complete(
    kubernetes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = _programs(tmp_path / "programs", kubernetes)
    monkeypatch.setenv("CALICO_BPF_KUBERNETES", str(named))
    assert programs.find_programs() == named
    (named / "runc").unlink()
    with pytest.raises(FileNotFoundError, match=r"CALICO_BPF_KUBERNETES: .* lacks runc"):
        programs.find_programs()


@pytest.mark.parametrize("name", ["kube-apiserver", "kubelet"])
def test_a_server_that_ends_is_reported(
    kubernetes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    script = {name.replace("-", "_"): "echo bad flag; exit 3"}
    named = _programs(tmp_path / "programs", kubernetes, **script)
    monkeypatch.setenv("CALICO_BPF_KUBERNETES", str(named))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(RuntimeError, match=rf"{name} ended with 3; .*\nbad flag"), real_cluster():
        pass
    assert [left.name for left in tmp_path.iterdir()] == ["programs"]
    assert not [line for line in _processes() if str(tmp_path) in line]
