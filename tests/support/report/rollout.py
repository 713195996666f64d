# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Journals of rollouts: events at the times of a clock that the test advances."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.event import Event, Status

RUN = "anna@bastion 2026-11-23T22:00Z 3f2a"
PHASES = (
    "preflight", "drain", "qdisc_parity", "node_upgrade", "reattach", "verify", "resume",
)  # fmt: skip
OLD, NEW = "v3.28.1", "v3.29.5"


@dataclass
class Rollout:
    """Collects events; each ``say`` takes ``after`` seconds since the one before."""

    run: str = RUN
    check: bool = False
    clock: datetime = datetime(2026, 11, 23, 22, 0, 0)
    events: list[Event] = field(default_factory=list)

    def say(
        self, status: str, node: str = "", phase: str = "", after: float = 1, **more: Any
    ) -> None:
        self.clock += timedelta(seconds=after)
        at = self.clock.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        event = Event(
            run=self.run,
            status=Status(status),
            node=node,
            phase=phase,
            check=self.check,
            at=at,
            **more,
        )
        self.events.append(event)

    def begin(self, *nodes: str, **about: Any) -> None:
        named = [{"name": n, "version": OLD} for n in nodes]
        self.say("begun", begin={"title": "Calico v3.28.1 to v3.29.5", "nodes": named, **about})

    def phase(self, node: str, phase: str, seconds: float = 10, **more: Any) -> None:
        self.say("begun", node, phase, after=0)
        self.say("done", node, phase, after=seconds, **more)

    def node(self, node: str, **more: Any) -> None:
        """All phases of a node to which nothing happens."""
        for seconds, phase in enumerate(PHASES, start=5):
            result = {"result": result_of(phase)} if phase != "preflight" else {}
            self.phase(node, phase, seconds, **result, **more)


def result_of(phase: str) -> dict[str, Any]:
    """What each role of the upgrade returns."""
    return {
        "drain": {
            "cordoned": True,
            "evicted": ["shop/web-1", "shop/web-2"],
            "skipped": [{"pod": "kube-system/calico-node-x", "why": "of a DaemonSet"}],
            "remaining": [],
            "waited_seconds": 12.5,
        },
        "qdisc_parity": parity(endpoint("cali1", "repaired"), endpoint("cali2", "drifted")),
        "node_upgrade": {
            "replaced": True,
            "former": {"name": "calico-node-old", "images": {"calico-node": f"calico/node:{OLD}"}},
            "pod": {"name": "calico-node-new", "images": {"calico-node": f"r:5000/c/node:{NEW}"}},
            "parity": {},
        },
        "reattach": parity(endpoint("cali2", "repaired")),
        "verify": {
            "checks": [
                {"name": "readiness", "result": "good", "seen": "ready", "wanted": "ready"},
                {"name": "dirty endpoints", "result": "good", "seen": 0, "wanted": 0},
            ]
        },
        "resume": {"uncordoned": True},
    }[phase]


def endpoint(interface: str, verdict: str = "drifted") -> dict[str, Any]:
    """As qdisc_consistency returns it."""
    found = {
        "code": "handle_mismatch",
        "hook": None,
        "message": "ingress is at pref 49152 handle 1, egress at pref 49152 handle 2",
        "severity": "drift",
        "repairable": True,
    }
    step = {
        "action": "add", "hook": "egress", "priority": 49152, "handle": 1, "chain": 0,
        "program_id": 4180, "name": "cali_tc_preambl:[4180]",
    }  # fmt: skip
    attachment = {"attach_type": "tc", "priority": 49152, "handle": 1, "calico": True}
    return {
        "interface": interface,
        "ifindex": 3,
        "qdisc": "clsact",
        "verdict": verdict,
        "outlook": "ok" if verdict == "repaired" else "stuck",
        "outlook_by_behaviour": {
            "add_then_delete": "stuck",
            "replace_and_compare": "stuck",
            "replace": "ok",
        },
        "findings": [found],
        "remaining": [] if verdict == "repaired" else [found],
        "plan": [step, {**step, "action": "delete", "handle": 2}],
        "done": [],
        "notes": [],
        "ingress": [attachment],
        "egress": [attachment],
    }


def parity(*endpoints: dict[str, Any], looked_at: int = 20) -> dict[str, Any]:
    """As the role qdisc_parity records it."""
    repaired = [e for e in endpoints if e["verdict"] == "repaired"]
    return {
        "found": len(endpoints),
        "repaired": len(repaired),
        "left": len(endpoints) - len(repaired),
        "endpoints": list(endpoints),
        "summary": {"endpoints": looked_at, "verdicts": {}, "findings": {}},
    }
