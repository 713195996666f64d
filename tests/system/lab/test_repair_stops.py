# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""repair.yml when a node is lost: it stops there, and a rerun resumes."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.lab.rollout import RETRY, new_rollout

pytestmark = pytest.mark.timeout(900)
QUICK: dict[str, Any] = {"qdisc_parity_settle": 0.3, "verify_window": 2.5 * RETRY}


def test_a_lost_node_stops_the_repair_without_any_use_of_the_api() -> None:
    with new_rollout("embedded", nodes=3, endpoints=1, heartbeat=3600) as rollout:
        cluster = rollout.cluster
        seeded = {node: set(cluster.seed_mismatch(node)) for node in cluster.nodes}
        cluster.api.kubeconfig.rename(cluster.folder / "out-of-reach")
        before = rollout.programs()

        cluster.node("worker-2").kill()
        code, output = cluster.playbook("repair.yml", QUICK)
        assert code != 0
        assert "worker-2 became unreachable in this run" in output
        assert rollout.broken() == {"worker-3": seeded["worker-3"]}
        kept = {where: ids for where, ids in before.items() if where[0] != "worker-2"}
        assert rollout.programs() == kept

        cluster.node("worker-2").start()
        code, output = cluster.playbook("repair.yml", QUICK)
        assert code == 0, output
        assert not rollout.broken()
