# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the report of an invented rollout, for the picture in the README: report.py FILE."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.event import Event, Status
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.summary import summarize
from ansible_collections.dataplane.calico_bpf.plugins.plugin_utils.report_page import page

RUN = "AWX job 4711 2026-03-14T22:00:02Z 3862"
OLD, NEW = "v3.29.2", "v3.29.7"
NODES = [f"worker-{number}" for number in range(1, 6)]
Json = dict[str, Any]


class Journal:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self._now = datetime(2026, 3, 14, 22, 0, 2)

    def wait(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)

    def write(self, status: Status, **fields: Any) -> None:
        at = self._now.isoformat(timespec="milliseconds") + "Z"
        self.events.append(Event(RUN, status, at=at, **fields))

    def phase(self, node: str, name: str, seconds: float, result: Json) -> None:
        self.write(Status.BEGUN, node=node, phase=name)
        self.wait(seconds)
        self.write(Status.DONE, node=node, phase=name, result=result)


def pod(node: str, version: str) -> Json:
    return {"name": f"calico-node-{node[-1]}", "images": {"calico-node": f"calico/node:{version}"}}


def endpoint(interface: str) -> Json:
    ingress, egress = "pref 49152 handle 2", "pref 49152 handle 1"
    step = {"hook": "ingress", "name": "cali_tc_preambl:[918]", "program_id": 918}
    finding = {
        "code": "handle_mismatch",
        "hook": "",
        "message": f"ingress is at {ingress}, egress at {egress}; Felix fails every 10 s",
    }
    return {
        "interface": interface,
        "verdict": "repaired",
        "outlook": "ok",
        "findings": [finding],
        "remaining": [],
        "plan": [
            {"action": "add", **step, "priority": 49152, "handle": 1},
            {"action": "delete", **step, "priority": 49152, "handle": 2},
        ],
        "felix_message": (
            "ingress qdisc info ({true 49152 2}) does not equal egress qdisc info ({true 49152 1})"
        ),
    }


def parity(*interfaces: str) -> Json:
    found = len(interfaces)
    return {
        "found": found,
        "repaired": found,
        "left": 0,
        "endpoints": [endpoint(each) for each in interfaces],
        "summary": {"endpoints": 48},
    }


CHECKS = [
    {"name": name, "ok": True, "seen": seen, "wanted": wanted}
    for name, seen, wanted in (
        ("readiness", "HTTP 200", "Felix reports ready"),
        ("BPFEndpointManager", "ready", "ready"),
        ("log", "no line", "no endpoint was left dirty"),
        ("parity", "0 of 48 drifted", "0 drifted"),
        ("Felix", "processes: 20518", "exactly one"),
        ("churn", "0 changes a minute in 12 s", "up to 0 a minute"),
    )
]


def upgrade(journal: Journal, node: str, pods: int, drifted: tuple[str, ...]) -> None:
    evicted = [f"shop/web-{node[-1]}{number}" for number in range(pods)]
    drain = {"cordoned": True, "evicted": evicted, "waited_seconds": pods * 0.9}
    replaced = {"replaced": True, "former": pod(node, OLD), "pod": pod(node, NEW), "parity": {}}
    journal.phase(node, "drain", pods * 1.0, drain)
    journal.phase(node, "qdisc_parity", 2.4 if drifted else 1.2, parity(*drifted))
    journal.phase(node, "node_upgrade", 17.5, replaced)
    journal.phase(node, "reattach", 11.2, parity())
    journal.phase(node, "verify", 14.1, {"checks": CHECKS})
    journal.phase(node, "resume", 0.8, {"uncordoned": True})


def invented() -> list[Event]:
    journal = Journal()
    about = {
        "title": f"Upgrade to {NEW}",
        "nodes": [{"name": node, "version": OLD} for node in NODES],
    }
    journal.write(Status.BEGUN, begin=about)
    drifted = {"worker-2": ("cali2f81c09ab47", "cali9b30d7e6f12"), "worker-4": ("calic41e7720d95",)}
    for node, pods in zip(NODES, (9, 14, 11, 16, 8)):
        # The second node waits until the canary has soaked.
        journal.wait(120 if node == NODES[1] else 4)
        upgrade(journal, node, pods, drifted.get(node, ()))
    journal.wait(3)
    journal.write(Status.FINISHED, message="all pods have the newest revision")
    return journal.events


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(summarize(invented(), RUN)), encoding="utf-8")
