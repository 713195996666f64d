# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Has a lab's nodes be virtual machines, of one kernel and the other in turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.lab.command import Kind
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import CHECKOUT
from ansible_collections.dataplane.calico_bpf.tests.support.vm.accelerator import accelerator
from ansible_collections.dataplane.calico_bpf.tests.support.vm.image import SERIES, image
from ansible_collections.dataplane.calico_bpf.tests.support.vm.vm import Vm

#: Felix's retry, and how long all pods may take to be Ready, where every instruction is emulated.
RETRY, _PATIENCE = 5.0, 300.0
#: The waits of a rollout there: above what was seen on a busy machine, and far below an hour.
WAITS: dict[str, Any] = {
    "calico_bpf_soak": 0,
    "calico_bpf_lease_duration": 60,
    "drain_timeout": 120,
    "node_upgrade_felix_timeout": 30,
    "qdisc_parity_settle": 1.0,
    "reattach_patience": 60,
    "reattach_timeout": 90,
    "verify_window": 2 * RETRY,
}


def vm_nodes() -> dict[str, Any]:
    """The arguments that ``lab_cluster`` is to have for that.

    :raises RuntimeError: there is no image, and it can't be built.
    """
    made = image()
    chosen = accelerator(made)

    def new_node(name: str, folder: Path) -> Vm:
        number = int(name.rpartition("-")[2])
        return Vm(name, folder, made, chosen, SERIES[(number - 1) % len(SERIES)])

    return {"new_node": new_node, "patience": _PATIENCE}


KIND = Kind(
    program=CHECKOUT / "tests/support/vm",
    files=CHECKOUT / ".build/vms",
    nodes=2,
    retry=RETRY,
    coming=1200.0,
    arguments=vm_nodes,
)
