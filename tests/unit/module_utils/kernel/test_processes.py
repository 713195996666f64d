# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which command lines are Felix's, and which pod a cgroup is of."""

from __future__ import annotations

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.processes import (
    is_felix,
    pod_uid_in,
)

UID = "2f0f5d4e-8a51-4b43-9f0e-1d4f6f0a7c11"
SLICE = f"kubepods-burstable-pod{UID.replace('-', '_')}.slice"
OTHER = "00000000-1111-2222-3333-444444444444"


# --- command lines: node/filesystem/etc/service/available/felix/run -------------------------------


@pytest.mark.parametrize(
    "line", ["calico-node -felix", "/bin/calico-node --felix", "calico component felix"]
)
def test_felix(line: str) -> None:
    assert is_felix(line.split())


@pytest.mark.parametrize(
    "line",
    [
        "calico-node -felix-ready -bird-ready",
        "/bin/calico-node -felix-live",
        "calico-node -confd",
        "runsv felix",
        "grep calico-node -felix",
        "calico component confd",
        "",
    ],
)
def test_other_processes_are_not_felix(line: str) -> None:
    assert not is_felix(line.split(" "))


# --- cgroups: pkg/kubelet/cm in Kubernetes --------------------------------------------------------


@pytest.mark.parametrize(
    "cgroups",
    [
        f"0::/kubepods/burstable/pod{UID}/4f1c\n",
        f"12:pids:/kubepods/pod{UID}/4f1c\n11:cpu,cpuacct:/kubepods/pod{UID}/4f1c\n",
        f"0::/kubepods.slice/kubepods-burstable.slice/{SLICE}/cri-containerd-4f1c.scope\n",
        f"0::/kubepods.slice/kubepods-burstable.slice/{SLICE}/crio-4f1c.scope/container\n",
        f"0::/kubelet.slice/kubelet-kubepods.slice/kubelet-{SLICE}/cri-containerd-4f1c.scope\n",
        f"0::/kubepods/pod{OTHER}/4f1c/kubepods/burstable/pod{UID}/4f1c\n",
    ],
)
def test_the_pod_of_a_cgroup(cgroups: str) -> None:
    assert pod_uid_in(cgroups) == UID


@pytest.mark.parametrize(
    "cgroups",
    [
        "0::/system.slice/containerd.service\n",
        "0::/\n",
        "",
        f"0::/system.slice/pod{UID}x.service\n",
        f"0::/user.slice/tripod{UID}\n",
    ],
)
def test_a_cgroup_of_no_pod(cgroups: str) -> None:
    assert pod_uid_in(cgroups) is None
