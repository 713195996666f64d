# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the programs of the cluster are."""

from __future__ import annotations

import os
from pathlib import Path

#: What build.sh builds.
PROGRAMS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kubectl",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "runc",
    "busybox",
)
_VARIABLE = "CALICO_BPF_KUBERNETES"
_GO_MOD = Path(__file__).with_name("go.mod")
_PINNED = "require k8s.io/kubernetes v"
NOT_FOUND = (
    f"Kubernetes is not built, and {_VARIABLE} names no folder that has it:"
    " run tests/support/kubelet/build.sh"
)


def find_programs() -> Path | None:
    """The folder with all programs, if there is one.

    :raises FileNotFoundError: the variable names a folder where a program is missing.
    """
    named = os.environ.get(_VARIABLE)
    if named:
        if missing := _missing(Path(named)):
            raise FileNotFoundError(f"{_VARIABLE}: {named} lacks {', '.join(missing)}")
        return Path(named).absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    built = cache / f"dataplane-calico-bpf/kubernetes-{pinned_version()}"
    return None if _missing(built) else built


def pinned_version() -> str:
    """The release of Kubernetes in go.mod, without the v."""
    lines = _GO_MOD.read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix(_PINNED) for line in lines if line.startswith(_PINNED))


def _missing(folder: Path) -> list[str]:
    return [name for name in PROGRAMS if not os.access(folder / name, os.X_OK)]
