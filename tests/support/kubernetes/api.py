# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the embedded and the real Kubernetes API have in common for the lab and its tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Api:
    """A running Kubernetes API: its address and credentials."""

    url: str
    token: str
    #: None for plain http.
    ca_file: str | None
    #: A file that any client can use.
    kubeconfig: Path
    #: Whether a DaemonSet controller and a disruption controller run.
    has_controllers: bool


def write_kubeconfig(path: Path, url: str, token: str, ca_file: str | None = None) -> Path:
    """Write a kubeconfig that only its owner can read; its path."""
    cluster = {"server": url, **({"certificate-authority": ca_file} if ca_file else {})}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "admin"}}],
        "current-context": "lab",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")  # JSON is YAML
    return path


def read_kubeconfig(path: Path) -> Api:
    """The API in a file that ``write_kubeconfig`` wrote; it has controllers."""
    config = json.loads(path.read_text(encoding="utf-8"))
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    trusted = cluster.get("certificate-authority")
    return Api(cluster["server"], user["token"], trusted, path, has_controllers=True)
