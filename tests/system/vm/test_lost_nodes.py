# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes lost in the middle of their upgrade as only machines can be: by power or by SSH."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import conditions
from ansible_collections.dataplane.calico_bpf.tests.support.lab.rollout import (
    FIXED,
    Rollout,
    new_rollout,
)
from ansible_collections.dataplane.calico_bpf.tests.support.vm.vm_nodes import (
    RETRY,
    WAITS,
    vm_nodes,
)

OLD = "v3.28.1"
Programs = Mapping[tuple[str, str], list[int]]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_rollout_stops_at_a_lost_node_and_resumes_when_it_is_back() -> None:
    """One reboots during its verification; the next loses SSH when it is cordoned."""
    with new_rollout("embedded", nodes=2, endpoints=1, retry=RETRY, **vm_nodes()) as lab:
        before = lab.programs()
        reboot_while_it_is_verified(lab, "worker-1")
        must_have_stopped_at(lab, "worker-1", {"worker-1": "unreachable", "worker-2": "untouched"})
        assert lab.versions()["worker-2"] == OLD
        assert of(before, "worker-2") == of(lab.programs(), "worker-2")

        lose_ssh_after_cordon(lab, "worker-2")
        must_have_stopped_at(lab, "worker-2", {"worker-1": "done", "worker-2": "unreachable"})
        assert lab.versions() == {"worker-1": FIXED, "worker-2": OLD}
        assert of(before, "worker-2") == of(lab.programs(), "worker-2")

        lab.cluster.node("worker-2").exec("systemctl", "start", "ssh")
        code, output = lab.start(**WAITS).wait(1800)
        assert code == 0, output
        lab.must_be_complete()


def reboot_while_it_is_verified(lab: Rollout, name: str) -> None:
    node, playbook = lab.cluster.node(name), lab.start(**WAITS)
    # The task before it asks the API, not the node.
    lab.seen(playbook, "verify : Watch Felix]", 900)
    node.reboot()
    code, output = playbook.wait(1800)
    assert code, output
    assert f"{name} became unreachable in this run" in output
    lab.cluster.wait(lambda: is_back(lab, name), "the node is Ready, and has its endpoint", 300)


def is_back(lab: Rollout, name: str) -> bool:
    node = lab.cluster.client.do("GET", f"/api/v1/nodes/{name}")
    return conditions(node).get("Ready") == "True" and bool(lab.cluster.node(name).agents())


def lose_ssh_after_cordon(lab: Rollout, name: str) -> None:
    """Its kubelet, and so its Felix, do not notice."""
    playbook = lab.start(**WAITS)
    lab.cluster.wait(lambda: name in lab.cordoned(), f"{name} is cordoned", 900)
    # pkill answers 1 where no connection is open at this moment: a later one is refused.
    lab.cluster.node(name).exec(
        "sh", "-c", "systemctl stop ssh && { pkill -u ansible sshd || [ $? = 1 ]; }"
    )
    code, output = playbook.wait(1800)
    assert code, output
    assert f"{name} became unreachable in this run" in output


def must_have_stopped_at(lab: Rollout, name: str, states: Mapping[str, str]) -> None:
    report = lab.report()
    assert report["verdict"] == "stopped"
    assert name in report["stop"]["message"]
    assert lab.states() == states
    assert lab.cordoned() == {name}
    assert lab.strategy() == "OnDelete"
    assert not lab.holder()


def of(programs: Programs, node: str) -> Programs:
    return {place: ids for place, ids in programs.items() if place[0] == node}
