# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node of the cluster: what a test may do to it, and see of it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.tests.support.kubelet import cgroups
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.containerd import Containerd
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.kubelet import Kubelet
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.namespaces import Namespaces


class Node:
    """A node with containerd and kubelet, from construction until ``kill``."""

    def __init__(self, name: str, folder: Path, cgroups_prefix: str, programs: Path) -> None:
        folder = folder / name
        folder.mkdir()
        self.name = name
        #: How the control plane and this machine reach it, from ``join`` on.
        self.address = ""
        #: The root of its cgroups, in each hierarchy.
        self.cgroup = f"{cgroups_prefix}{name}"
        cgroups.make_root(self.cgroup)
        self.namespaces = Namespaces(name, folder / "init.log")
        self.containerd = Containerd(self.namespaces, folder / "containerd", programs)
        self.kubelet = Kubelet(self.namespaces, folder / "kubelet", programs)

    def join(self, address: str, kubeconfig: Path, archive: Path) -> None:
        """Load the images and start the kubelet, without waiting for it."""
        self.address = address
        self.containerd.wait()
        self.containerd.import_images(archive)
        self.kubelet.configure(self.name, address, self.cgroup, kubeconfig)
        self.kubelet.begin()

    def kill(self) -> None:
        """End everything that runs in the node."""
        self.namespaces.kill()
        self.containerd.kill()  # which have ended by now, but were not waited for
        self.kubelet.kill()

    @property
    def pid(self) -> int:
        """The process id of the node's init, as this process sees it."""
        return self.namespaces.pid

    def words(self, *words: str) -> list[str]:
        """The command that runs a command in the node."""
        return self.namespaces.words(*words)

    def exec(self, *words: str) -> str:
        """Run a command in the node; its output.

        :raises RuntimeError: it failed; with what it printed.
        """
        return self.namespaces.exec(*words)

    def stop_kubelet(self) -> None:
        """Stop the kubelet. Containers go on running."""
        self.kubelet.stop()

    def start_kubelet(self) -> None:
        """Start the kubelet again, and wait until it is healthy."""
        self.kubelet.begin()
        self.kubelet.wait()

    def kill_containerd(self) -> None:
        """Kill containerd. Containers go on running."""
        self.containerd.kill()

    def start_containerd(self) -> None:
        """Start containerd again, and wait until it answers."""
        self.containerd.begin()
        self.containerd.wait()

    def pod_processes(self) -> dict[str, list[int]]:
        """The process ids of each pod's processes, as this process sees them, by pod UID."""
        found: dict[str, list[int]] = defaultdict(list)
        for pid in cgroups.processes(self.cgroup):
            if uid := cgroups.pod_uid(pid):
                found[uid].append(pid)
        return dict(found)
