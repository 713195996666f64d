# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The DaemonSet is changed under the Lease, which is renewed before each change and in waits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import DataplaneError
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.annotations import (
    FORMER_REVISION,
    UPDATE_STRATEGY,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.api import Kube
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.clock import Clock
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.session import Session
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.daemonset import (
    RolloutDaemonSet,
)

ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}


@dataclass
class Cluster:
    """One DaemonSet, whose controller observes its last change at ``observes_at``; the events."""

    annotations: dict[str, str] = field(default_factory=dict)
    observes_at: float = 0.0
    now: float = 0.0
    events: list[str] = field(default_factory=list)
    patches: list[dict[str, Any]] = field(default_factory=list)

    def daemonset(self) -> RolloutDaemonSet:
        clock = Clock(now=lambda: self.now, sleep=self._sleep)
        session = Session(
            kube=Kube(self._send, clock=clock),
            renew_lease=lambda: self.events.append(f"renew {self.now:g}"),
            clock=clock,
        )
        return RolloutDaemonSet(session, "kube-system", "calico-node")

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def _send(
        self, method: str, path: str, query: Mapping[str, Any], content_type: str, body: Any
    ) -> bytes:
        if method == "PATCH":
            self.events.append("patch")
            self.patches.append(body)
        observed = 3 if self.now >= self.observes_at else 2
        status = {"observedGeneration": observed, "desiredNumberScheduled": 2}
        return json.dumps(
            {
                "metadata": {"generation": 3, "annotations": self.annotations},
                "spec": {"updateStrategy": ROLLING},
                "status": {**status, "updatedNumberScheduled": 2},
            }
        ).encode()


def test_staging_renews_the_lease_before_each_change() -> None:
    cluster = Cluster()
    result = cluster.daemonset().stage({"spec": {"template": {}}}, "calico-node-1")
    assert result == {"changed": True, "on_delete": True}
    assert cluster.events == ["renew 0", "patch", "renew 0", "patch"]
    annotations = cluster.patches[0]["metadata"]["annotations"]
    assert json.loads(annotations[UPDATE_STRATEGY]) == ROLLING
    assert annotations[FORMER_REVISION] == "calico-node-1"
    assert cluster.patches[1] == {"spec": {"template": {}}}


def test_a_staged_daemonset_is_not_staged_again() -> None:
    cluster = Cluster({UPDATE_STRATEGY: json.dumps(ROLLING)})
    assert cluster.daemonset().stage({}, "") == {"changed": False, "on_delete": True}
    assert cluster.events == []


def test_restoring_renews_the_lease_while_the_controller_is_waited_for() -> None:
    cluster = Cluster({UPDATE_STRATEGY: json.dumps(ROLLING)}, observes_at=2.0)
    assert cluster.daemonset().restore() == {"changed": True, "left": 0}
    renewed = [f"renew {moment:g}" for moment in (0, 0.5, 1, 1.5, 2)]
    assert cluster.events == [*renewed, "renew 2", "patch"]
    assert cluster.patches[0]["spec"] == {"updateStrategy": ROLLING}


def test_a_controller_that_does_not_observe_the_change_is_an_error() -> None:
    cluster = Cluster({UPDATE_STRATEGY: json.dumps(ROLLING)}, observes_at=100.0)
    with pytest.raises(DataplaneError, match=r"calico-node: its controller has not observed .* 60"):
        cluster.daemonset().restore()
    assert "patch" not in cluster.events
    assert cluster.events[-1] == "renew 60"
