# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container images of the lab, made without a container engine: busybox and a stand-in Felix.

One archive in Docker's format holds them all; ``ctr images import`` takes it.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

#: The image of each pod's sandbox.
PAUSE = "localhost/pause:1"
_SOURCE = Path(__file__).with_name("calico_node.c")
_FOLDERS = ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "var")
_APPLETS = ("cat", "echo", "env", "ip", "kill", "ls", "ps", "rm", "sh", "sleep", "touch", "true")
_FILES = {"etc/passwd": "root:x:0:0::/:/bin/sh\n", "etc/group": "root:x:0:\n"}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def image_of(version: str) -> str:
    """The name of the image that stands in for a release of calico/node."""
    return f"localhost/calico/node:{version}"


def write_archive(archive: Path, busybox: Path, versions: Sequence[str]) -> None:
    """Write an archive with the image of the sandboxes and one for each version."""
    program = _compile(archive.with_suffix(".calico-node"))
    layer = _layer({"bin/busybox": busybox.read_bytes(), "bin/calico-node": program.read_bytes()})
    manifest = []
    with tarfile.open(archive, "w") as tar:
        _add(tar, "layer.tar", layer)
        for name in (PAUSE, *map(image_of, versions)):
            config = _config(name, layer)
            config_name = f"{hashlib.sha256(config).hexdigest()}.json"
            _add(tar, config_name, config)
            manifest.append({"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]})
        _add(tar, "manifest.json", json.dumps(manifest).encode())


def _compile(program: Path) -> Path:
    words = ["gcc", "-static", "-Os", "-Wall", "-Werror", "-o", str(program), str(_SOURCE)]
    subprocess.run(words, check=True)
    return program


def _layer(programs: dict[str, bytes]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for folder in _FOLDERS:
            _add(tar, folder, kind=tarfile.DIRTYPE)
        for name, data in programs.items():
            _add(tar, name, data)
        for applet in _APPLETS:
            _add(tar, f"bin/{applet}", kind=tarfile.SYMTYPE, target="busybox")
        for name, text in _FILES.items():
            _add(tar, name, text.encode())
    return output.getvalue()


def _config(name: str, layer: bytes) -> bytes:
    """The image's configuration; the label makes each image another one, as releases are."""
    config = {
        "architecture": _ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {
            "Env": ["PATH=/bin"],
            "Cmd": ["sleep", "2147483647"],
            "Labels": {"name": name},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    return json.dumps(config).encode()


def _add(
    tar: tarfile.TarFile,
    name: str,
    data: bytes = b"",
    kind: bytes = tarfile.REGTYPE,
    target: str = "",
) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size, entry.type, entry.linkname = 0o755, len(data), kind, target
    tar.addfile(entry, io.BytesIO(data))
