# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A complete lab: nodes with real endpoints and Felixes, a Kubernetes API, and an inventory."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.felix.releases import Behaviour, Release
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.api import Api
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import ready
from ansible_collections.dataplane.calico_bpf.tests.support.lab import manifests
from ansible_collections.dataplane.calico_bpf.tests.support.lab.felix_container import FelixSettings
from ansible_collections.dataplane.calico_bpf.tests.support.lab.node import Node
from ansible_collections.dataplane.calico_bpf.tests.support.lab.run_folder import (
    remove_leftovers,
    run_folder,
)
from ansible_collections.dataplane.calico_bpf.tests.support.lab.runtime import LabKubelet
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import (
    CHECKOUT,
    compile_program,
)

_SEED = "ansible_collections.dataplane.calico_bpf.tests.support.lab.seed"
_DAEMON_SET = f"/apis/apps/v1/namespaces/{manifests.SYSTEM}/daemonsets/calico-node"
_DIRTY = re.compile(r'leaving it dirty .* ?name="([^"]+)"')


@dataclass
class Playbook:
    """A running ansible-playbook in its own session, which writes its output to ``log``."""

    process: subprocess.Popen[bytes]
    log: Path

    def signal(self, number: signal.Signals) -> None:
        """Signal its process group, as a terminal does on ctrl-C, unless it has ended."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def wait(self, seconds: float = 600) -> tuple[int, str]:
        """How it ended and all it said.

        :raises subprocess.TimeoutExpired: it did not end in time, and was ended.
        """
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.process.wait()
            raise
        return code, self.log.read_text()


@dataclass
class LabCluster:
    """A running lab. An API serves one lab: its objects end with the API."""

    api: Api
    client: Client
    folder: Path
    nodes: Mapping[str, Node]
    kubelet: LabKubelet
    settings: FelixSettings
    _played: list[Playbook] = field(default_factory=list)

    def node(self, name: str) -> Node:
        return self.nodes[name]

    # --- Ansible ------------------------------------------------------------------------------

    @property
    def inventory(self) -> Path:
        return self.folder / "inventory.yml"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of ansible-playbook."""
        return {
            "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".build/collections"),
            "ANSIBLE_CONNECTION_PLUGINS": str(CHECKOUT / "tests/support/lab/connection"),
            "ANSIBLE_INVENTORY": str(self.inventory),
            "ANSIBLE_LOCALHOST_WARNING": "False",
            "K8S_AUTH_KUBECONFIG": str(self.api.kubeconfig),
        }

    def start_playbook(
        self, name: str, extra_vars: Mapping[str, Any] | None = None, *args: str
    ) -> Playbook:
        """Start one of the collection's playbooks, or any file by its absolute path."""
        log = self.folder / f"playbook-{len(self._played)}.log"
        words = [f"{sys.prefix}/bin/ansible-playbook", str(CHECKOUT / "playbooks" / name)]
        given = {"calico_bpf_report_dir": str(self.folder / "reports"), **(extra_vars or {})}
        words += ["--extra-vars", json.dumps(given), *args]
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", **self.environment}
        environment["TMPDIR"] = str(self.folder)  # for the cache of kubernetes.core
        with log.open("wb") as out:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment,
                start_new_session=True,
            )
        self._played.append(Playbook(process, log))
        return self._played[-1]

    def end_playbooks(self) -> None:
        for each in self._played:
            each.signal(signal.SIGKILL)
            each.process.wait()

    def playbook(
        self, name: str, extra_vars: Mapping[str, Any] | None = None, *args: str
    ) -> tuple[int, str]:
        return self.start_playbook(name, extra_vars, *args).wait()

    # --- Felix --------------------------------------------------------------------------------

    def version(self) -> str:
        """The version in the DaemonSet's template."""
        spec = self.client.do("GET", _DAEMON_SET)["spec"]["template"]["spec"]
        return str(spec["containers"][0]["image"].rpartition(":")[2])

    def set_version(self, version: str) -> None:
        """Like ``kubectl set image``: with RollingUpdate it starts a plain rolling update."""
        self.client.do("PATCH", _DAEMON_SET, manifests.images(version), patch="strategic-merge")

    def rolled_out(self) -> bool:
        """Whether each node's pod has the newest revision and is Ready."""
        held = self.client.do("GET", _DAEMON_SET)
        status, wanted = held["status"], len(self.nodes)
        counts = [status.get(f"{n}NumberScheduled", 0) for n in ("desired", "updated")]
        seen = status.get("observedGeneration") == held["metadata"]["generation"]
        return bool(seen and [*counts, status["numberReady"]] == [wanted] * 3)

    def calico_node(self, node: str) -> dict[str, Any] | None:
        """The calico-node pod of a node that is not terminating."""
        return next((pod for pod in self.pods("kube-system") if _is_calico(pod, node)), None)

    def pods(self, namespace: str) -> list[dict[str, Any]]:
        path = f"/api/v1/namespaces/{namespace}/pods"
        pods: list[dict[str, Any]] = self.client.do("GET", path)["items"]
        return pods

    def dirty(self) -> dict[str, list[str]]:
        """The endpoints that each node's Felix leaves dirty; nodes without any are left out.

        A Felix that is ready has none; of any other the log tells, as far as its last retry.
        """
        found = {name: self._dirty(name) for name in self.nodes}
        return {name: dirty for name, dirty in found.items() if dirty}

    def _dirty(self, node: str) -> list[str]:
        pod = self.calico_node(node)
        if pod is None or ready(pod):
            return []
        since = time.time() - 1.5 * self.settings.retry - 1
        log = self.kubelet.timed_log("kube-system", pod["metadata"]["name"])
        found = (_DIRTY.search(line) for at, line in log if at > since)
        return sorted({each[1] for each in found if each})

    def seed_mismatch(self, node: str, count: int = 1, hook: str = "egress") -> list[str]:
        """Re-attach one hook once more at so many endpoints of the agents, like Felix.

        :returns: their interfaces.
        :raises ValueError: there are not so many with filters.
        """
        behaviour = Release.of(self.version()).behaviour("TC")
        adds = (
            behaviour if behaviour is Behaviour.ADD_WITHOUT_COMPARE else Behaviour.ADD_THEN_DELETE
        )  # later endpoints keep their filters
        chosen = self.nodes[node].agents()[:count]
        if len(chosen) < count:
            raise ValueError(f"{node} has only {len(chosen)} endpoints that stay")
        for interface in chosen:
            if not all(self.nodes[node].filters(interface).values()):
                raise ValueError(f"{node}: {interface} has no filter at each hook")
        there = self.nodes[node]
        program = there.inside(self.settings.objects / "allow.o")
        there.run_python(_SEED, adds.value, str(program), hook, *chosen)
        return chosen

    # --- waiting ------------------------------------------------------------------------------

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
        """The first true answer of a condition.

        :raises TimeoutError: there is none in time.
        """
        deadline = time.monotonic() + seconds
        while not (answer := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not in {seconds:.0f} s: {what}")
            time.sleep(0.05)
        return answer

    def all_ready(self) -> bool:
        """Whether all wanted pods exist and are Ready."""
        pods = [*self.pods(manifests.SYSTEM), *self.pods(manifests.DEMO)]
        sets = self._sets("daemonsets"), self._sets("replicasets")
        wanted = sum(s["status"].get("desiredNumberScheduled", 0) for s in sets[0])
        wanted += sum(s["spec"]["replicas"] for s in sets[1])
        observed = all("observedGeneration" in s["status"] for each in sets for s in each)
        return observed and len(pods) == wanted and all(map(ready, pods))

    def _sets(self, kind: str) -> list[dict[str, Any]]:
        sets: list[dict[str, Any]] = self.client.do("GET", f"/apis/apps/v1/{kind}")["items"]
        return sets


@contextmanager
def lab_cluster(
    api: Api,
    nodes: int = 3,
    version: str = "v3.28.1",
    endpoints: int = 4,
    *,
    attach_type: str | None = None,
    retry: float = 10.0,
    heartbeat: float = 10.0,
    metrics: bool = True,
    new_node: Callable[[str, Path], Node] = Node,
    patience: float = 60.0,
) -> Iterator[LabCluster]:
    """Nodes worker-1 and so on, each with so many ``endpoints`` that a drain leaves, all Ready.

    Needs root. Times in seconds; ``attach_type`` as FELIX_BPFATTACHTYPE, None for the release's
    default; ``new_node`` makes a node of its name and folder, and pods have ``patience`` and more
    to be Ready. All of it goes at the end, or with this process.

    :raises ValueError: no Felix of that version is known.
    :raises RuntimeError, TimeoutError: it does not come up.
    """
    Release.of(version)
    remove_leftovers()
    with run_folder() as folder, ExitStack() as stack:
        names = [f"worker-{number}" for number in range(1, nodes + 1)]
        made = {name: new_node(name, folder / name) for name in names}
        for node in made.values():
            stack.callback(node.kill)
        settings = FelixSettings(folder / "objects", retry, metrics)
        kubelet = LabKubelet(api, made, settings, heartbeat)
        cluster = LabCluster(api, Client(api), folder, made, kubelet, settings)
        stack.callback(cluster.end_playbooks)
        _start(cluster)
        with kubelet:
            _apply(cluster, version, endpoints, attach_type)
            _await_all(cluster, patience)
            yield cluster


def _await_all(cluster: LabCluster, patience: float) -> None:
    try:
        cluster.wait(cluster.all_ready, "all pods are Ready", patience + 4 * len(cluster.nodes))
    except TimeoutError as error:
        pods = [*cluster.pods(manifests.SYSTEM), *cluster.pods(manifests.DEMO)]
        names = [pod["metadata"]["name"] for pod in pods if not ready(pod)]
        logs = [log.read_text()[-2000:] for log in cluster.folder.glob("*/felix.out")]
        raise TimeoutError(f"{error}: not {', '.join(names)}\n{''.join(logs)}") from None


def _start(cluster: LabCluster) -> None:
    for node in cluster.nodes.values():
        node.begin()
    cluster.settings.objects.mkdir()
    compile_program(CHECKOUT / "bpf/endpoint.c", cluster.settings.objects / "allow.o")
    for node in cluster.nodes.values():
        node.start()
    hosts = {name: node.inventory for name, node in cluster.nodes.items()}
    inventory = {"calico_nodes": {"hosts": hosts}}
    cluster.inventory.write_text(json.dumps(inventory, indent=2) + "\n")  # JSON is YAML


def _apply(cluster: LabCluster, version: str, endpoints: int, attach_type: str | None) -> None:
    create = cluster.client.do
    create("POST", "/api/v1/namespaces", {"metadata": {"name": manifests.DEMO}})
    apps, demo = "/apis/apps/v1/namespaces", manifests.DEMO
    node = manifests.calico_node(version, attach_type)
    create("POST", f"{apps}/{manifests.SYSTEM}/daemonsets", node)
    for number in range(1, endpoints + 1):
        create("POST", f"{apps}/{demo}/daemonsets", manifests.agent(number))
    replicas = min(3, len(cluster.nodes))
    create("POST", f"{apps}/{demo}/replicasets", manifests.web(replicas))
    group = create("GET", "/apis/policy")
    policy = group["preferredVersion"]["version"]
    path = f"/apis/policy/{policy}/namespaces/{demo}/poddisruptionbudgets"
    create("POST", path, manifests.budget(policy, replicas - 1))


def _is_calico(pod: Mapping[str, Any], node: str) -> bool:
    labels, metadata = pod["metadata"].get("labels", {}), pod["metadata"]
    here = pod["spec"].get("nodeName") == node and "deletionTimestamp" not in metadata
    return here and labels.get("k8s-app") == "calico-node"
