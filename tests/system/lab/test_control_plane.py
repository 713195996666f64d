# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real control plane comes up, works, and leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes import (
    control_plane as planes,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.api import Api
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.control_plane import (
    ControlPlane,
    control_plane,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.ports import free_ports


@pytest.fixture(scope="module")
def binaries() -> Path:
    """The servers, which CI must have."""
    found = planes.find()
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(planes.NOT_FOUND)
        pytest.skip(planes.NOT_FOUND)
    return found


@pytest.fixture(scope="module")
def plane(binaries: Path) -> Iterator[ControlPlane]:
    with control_plane() as started:
        yield started


def _until(holds: Callable[[], Any], what: str) -> Any:
    """The result of the condition once it is true."""
    deadline = time.monotonic() + 30
    while not (found := holds()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


def _client(api: Api, group: str = "CoreV1Api") -> Any:
    connect: Any = config.new_client_from_config
    return getattr(client, group)(connect(str(api.kubeconfig)))


def _namespace(api: Api, name: str) -> Any:
    return _client(api).create_namespace({"metadata": {"name": name}})


# --- the servers ----------------------------------------------------------------------------------


def test_the_server_is_of_the_folder_that_was_found(plane: ControlPlane, binaries: Path) -> None:
    words = [str(binaries / "kube-apiserver"), "--version"]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert said.split()[-1] == _client(plane, "VersionApi").get_code().git_version


def test_namespaces_come_and_go(plane: ControlPlane) -> None:
    assert _namespace(plane, "passing").status.phase == "Active"
    core = _client(plane)
    core.delete_namespace("passing")

    def gone() -> bool:
        return "passing" not in [each.metadata.name for each in core.list_namespace().items]

    if plane.has_controllers:
        _until(gone, "the namespace is gone")


def test_a_daemonset_gives_each_node_a_pod_that_is_bound_by_hand(plane: ControlPlane) -> None:
    if not plane.has_controllers:
        pytest.skip("there is no kube-controller-manager beside the kube-apiserver")
    core, apps = _client(plane), _client(plane, "AppsV1Api")
    for node in ("one", "two"):
        core.create_node({"metadata": {"name": node}})
    _namespace(plane, "agents")
    apps.create_namespaced_daemon_set("agents", _daemonset("agent"))

    pods = _until(lambda: _listed(core, 2), "a pod for each node")
    nodes = {_wanted_node(pod): pod for pod in pods}
    assert set(nodes) == {"one", "two"}
    for node, pod in nodes.items():
        _bind(core, pod, node)
    assert {pod.spec.node_name for pod in _listed(core, 2)} == {"one", "two"}

    for pod in pods:
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        core.patch_namespaced_pod_status(pod.metadata.name, "agents", {"status": status})

    def ready() -> bool:
        return bool(apps.read_namespaced_daemon_set("agent", "agents").status.number_ready == 2)

    _until(ready, "the controller counts both as ready")


def _daemonset(name: str) -> dict[str, Any]:
    """For a privileged pod, like calico-node."""
    labels = {"app": name}
    container = {"name": "main", "image": "none", "securityContext": {"privileged": True}}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": pod},
    }


def _listed(core: Any, count: int) -> list[Any]:
    pods: list[Any] = core.list_namespaced_pod("agents").items
    return pods if len(pods) == count else []


def _wanted_node(pod: Any) -> str:
    required = pod.spec.affinity.node_affinity.required_during_scheduling_ignored_during_execution
    name: str = required.node_selector_terms[0].match_fields[0].values[0]
    return name


def _bind(core: Any, pod: Any, node: str) -> None:
    target = {"apiVersion": "v1", "kind": "Node", "name": node}
    body = {"metadata": {"name": pod.metadata.name}, "target": target}
    # The client cannot read the Status that is the answer.
    core.create_namespaced_binding(pod.metadata.namespace, body, _preload_content=False)


def test_a_user_without_rights_is_denied(plane: ControlPlane) -> None:
    core = _client(plane.nobody)
    for attempt in (core.list_node, lambda: _namespace(plane.nobody, "refused")):
        with pytest.raises(client.ApiException) as refused:
            attempt()
        assert refused.value.status == 403
        assert 'User \\"nobody\\" cannot' in str(refused.value.body)


def test_a_user_without_rights_may_review_its_access(plane: ControlPlane) -> None:
    attributes = {"resourceAttributes": {"verb": "patch", "resource": "nodes"}}
    for api, allowed in ((plane, True), (plane.nobody, False)):
        reviews = _client(api, "AuthorizationV1Api")
        assert (
            reviews.create_self_subject_access_review({"spec": attributes}).status.allowed
            is allowed
        )


# --- leftovers ------------------------------------------------------------------------------------


def _processes(folder: Path) -> dict[int, str]:
    """Processes that name the folder: their ids and programs."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (entry / "cmdline").read_text().split("\0")
            if any(str(folder) in word for word in words):
                found[int(entry.name)] = Path(words[0]).name
    return found


def _listeners() -> dict[str, set[int]]:
    """The processes that listen, by address and port."""
    shown = subprocess.run(["ss", "-Hltunp"], check=True, capture_output=True, text=True).stdout
    return {
        line.split()[4]: {int(process) for process in re.findall(r"pid=(\d+)", line)}
        for line in shown.splitlines()
    }


def _addresses(processes: dict[int, str]) -> set[str]:
    return {address for address, holders in _listeners().items() if holders & set(processes)}


def test_it_listens_on_loopback_only(plane: ControlPlane) -> None:
    addresses = _addresses(_processes(plane.kubeconfig.parent))
    assert len(addresses) == (4 if plane.has_controllers else 3)
    assert {address.rpartition(":")[0] for address in addresses} == {"127.0.0.1"}


def test_other_users_cannot_read_its_secrets(plane: ControlPlane) -> None:
    assert plane.kubeconfig.parent.stat().st_mode & 0o777 == 0o700


def test_nothing_is_left_behind(binaries: Path) -> None:
    with control_plane() as plane:
        folder = plane.kubeconfig.parent
        processes = _processes(folder)
        addresses = _addresses(processes)
    assert {"etcd", "kube-apiserver"} < set(processes.values())
    assert _processes(folder) == {}
    assert not addresses & set(_listeners())
    assert not folder.exists()


_HOLD = """
import signal
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes import control_plane
with control_plane.control_plane() as plane:
    print(plane.kubeconfig.parent, flush=True)
    signal.pause()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_its_parent(end: signal.Signals, binaries: Path) -> None:
    words = [sys.executable, "-c", _HOLD]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        try:
            assert parent.stdout
            folder = Path(parent.stdout.readline().strip())
            assert folder.is_absolute()
            processes = _processes(folder)
            addresses = _addresses(processes)
            parent.send_signal(end)
            parent.wait()
        finally:
            parent.kill()
    assert {"etcd", "kube-apiserver"} < set(processes.values())
    _until(lambda: not _processes(folder), "all processes are gone")
    _until(lambda: not addresses & set(_listeners()), "all ports are free")
    _until(lambda: not folder.exists(), "the folder is gone")


def test_its_ports_are_outside_the_ephemeral_range() -> None:
    first, _last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert max(ports) < first
    with socket.create_server(("127.0.0.1", ports[0])):
        pass


# --- missing or broken servers --------------------------------------------------------------------


def _fake(folder: Path, **programs: str) -> Path:
    """A folder with shell scripts for servers."""
    folder.mkdir()
    for name, script in programs.items():
        program = folder / name.replace("_", "-")
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    return folder


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment that names no servers; its cache."""
    monkeypatch.delenv("CALICO_BPF_CONTROL_PLANE", raising=False)
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "cache/dataplane-calico-bpf").mkdir(parents=True)
    return tmp_path


def test_the_folder_that_is_named_first_is_used(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert planes.find() is None
    with pytest.raises(FileNotFoundError, match="make control-plane"), control_plane():
        pass
    for where in ("bin", "cache/dataplane-calico-bpf/control-plane-1.20.2"):
        folder = _fake(bare / where, etcd="", kube_apiserver="")
        assert planes.find() == folder
    for variable in ("KUBEBUILDER_ASSETS", "CALICO_BPF_CONTROL_PLANE"):
        folder = _fake(bare / variable, etcd="", kube_apiserver="")
        monkeypatch.setenv(variable, str(folder))
        assert planes.find() == folder


def test_a_named_folder_must_be_complete(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(_fake(bare / "some", kube_apiserver="")))
    with pytest.raises(FileNotFoundError, match=r"KUBEBUILDER_ASSETS: .*/some has no etcd"):
        planes.find()


def test_a_server_that_ends_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = _fake(tmp_path / "bad", etcd="exec sleep 60", kube_apiserver="echo bad flag; exit 3")
    monkeypatch.setenv("CALICO_BPF_CONTROL_PLANE", str(folder))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with (
        pytest.raises(RuntimeError, match=r"kube-apiserver ended with 3; .*\nbad flag"),
        control_plane(),
    ):
        pass
    assert [left.name for left in tmp_path.iterdir()] == ["bad"]
    assert _processes(tmp_path) == {}


def test_a_server_that_hangs_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = _fake(
        tmp_path / "bad", etcd="exec sleep 60", kube_apiserver="echo stuck; exec sleep 60"
    )
    monkeypatch.setenv("CALICO_BPF_CONTROL_PLANE", str(folder))
    monkeypatch.setattr(planes, "_PATIENCE", 0.5)
    with (
        pytest.raises(RuntimeError, match=r"kube-apiserver was not ready .*\nstuck"),
        control_plane(),
    ):
        pass
