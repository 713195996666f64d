# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The containerd of a node, with runc."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.image import PAUSE
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.namespaces import Namespaces
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.server import Server

#: In the node's own /run.
SOCKET = "/run/containerd/containerd.sock"
#: Copies each image: it needs no kernel support, and works on every file system.
_SNAPSHOTTER = "native"
#: The namespace in which the kubelet looks for images.
_KUBERNETES = "k8s.io"
_PATIENCE = 60.0
#: restrict_oom_score_adj: without CAP_SYS_RESOURCE, as in many containers, runc fails otherwise.
_CONFIG = """
version = 2
root = "{folder}/root"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
]
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{folder}/cni-bin"
  conf_dir = "{folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "{snapshotter}"
  default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  BinaryName = "{runc}"
  SystemdCgroup = false
"""
#: Lets the node become Ready; only pods in the node's own network can run.
_NETWORK = {"cniVersion": "0.4.0", "name": "none", "plugins": [{"type": "none"}]}


class Containerd:
    """A containerd that can be started and killed."""

    def __init__(self, namespaces: Namespaces, folder: Path, programs: Path) -> None:
        self._namespaces = namespaces
        self._folder = folder
        self._programs = programs
        self._server: Server | None = None
        self._config = folder / "config.toml"
        (folder / "cni").mkdir(parents=True)
        (folder / "cni/10-none.conflist").write_text(json.dumps(_NETWORK))
        self._config.write_text(
            _CONFIG.format(
                folder=folder, pause=PAUSE, snapshotter=_SNAPSHOTTER, runc=programs / "runc"
            )
        )

    def begin(self) -> None:
        """Start it, without waiting."""
        words = [str(self._programs / "containerd"), "--config", str(self._config)]
        self._server = Server(
            "containerd",
            self._namespaces.words(*words),
            self._folder / "containerd.log",
            self._programs,
            entered=True,
        )

    def kill(self) -> None:
        """Kill it. Containers go on running: their shims are processes of their own."""
        if self._server:
            self._server.kill()

    def wait(self) -> None:
        """Wait until it answers.

        :raises RuntimeError: it does not.
        """
        assert self._server
        deadline = time.monotonic() + _PATIENCE
        while self._ctr("version"):
            self._server.check()
            if time.monotonic() > deadline:
                raise self._server.failure(f"did not answer within {_PATIENCE:.0f} s")
            time.sleep(0.05)

    def import_images(self, archive: Path) -> None:
        words = ["images", "import", "--snapshotter", _SNAPSHOTTER, str(archive)]
        if failed := self._ctr("--namespace", _KUBERNETES, *words):
            raise RuntimeError(f"ctr {' '.join(words)}: {failed}")

    def _ctr(self, *words: str) -> str:
        """Run a command of ctr; what it printed if it failed, else nothing."""
        command = self._namespaces.words(str(self._programs / "ctr"), "--address", SOCKET, *words)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return (done.stdout + done.stderr or "failed") if done.returncode else ""
