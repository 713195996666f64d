# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each role alone, as in the example of its README: an upgrade of one node by hand, and back."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.dataplane.calico_bpf.tests.support.lab import manifests
from ansible_collections.dataplane.calico_bpf.tests.support.lab.node import Node
from ansible_collections.dataplane.calico_bpf.tests.support.lab.rollout import (
    DAEMON_SET,
    FIXED,
    QUICK,
    Rollout,
    new_rollout,
)
from ansible_collections.dataplane.calico_bpf.tests.support.lab.snapshot import snapshot
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import CHECKOUT

pytestmark = pytest.mark.timeout(900)

OLD, NODE = "v3.28.1", "/api/v1/nodes/worker-1"
#: One variable of each phase's role that has any which can be wrong by itself.
WRONG = {
    "drain": ("drain_timeout", "soon"),
    "node_upgrade": ("node_upgrade_timeout", "soon"),
    "preflight": ("preflight_mode", "sideways"),
    "qdisc_parity": ("qdisc_parity_tolerate", "everything"),
    "reattach": ("reattach_patience", "long"),
    "resume": ("resume_cordoned", "perhaps"),
    "verify": ("verify_window", "wide"),
}
#: Accepts connections, and prints a line once it does. http.server would first query the DNS.
_SERVER = """
import socket, sys
server = socket.create_server((sys.argv[1], 8099))
print("listening", flush=True)
while True:
    server.accept()[0].close()
"""


class ByHand:
    """An administrator who runs the examples of the READMEs on one node."""

    def __init__(self, rollout: Rollout, folder: Path) -> None:
        self.rollout = rollout
        self._folder = folder
        given = json.loads(rollout.cluster.inventory.read_text())["calico_nodes"]
        host = {**given["hosts"]["worker-1"], "calico_bpf_node": "worker-1"}
        inventory = {"nodes": {**given, "hosts": {"node-1": host}}}
        self._inventory = folder / "inventory.yml"
        self._inventory.write_text(json.dumps(inventory))

    def example(self, role: str, *args: str, **extra: Any) -> tuple[int, str]:
        """Run the play in a role's README."""
        (play,) = yaml.safe_load(example_of(role))
        assert [each["role"] for each in play["roles"]] == [f"dataplane.calico_bpf.{role}"]
        return self._play(play, *args, **extra)

    def entry(self, role: str, entry: str, **extra: Any) -> tuple[int, str]:
        """Run another entry point of a role."""
        what = {"name": f"dataplane.calico_bpf.{role}", "tasks_from": entry}
        tasks = [{"ansible.builtin.include_role": what}]
        return self._play({"hosts": "nodes", "gather_facts": False, "tasks": tasks}, **extra)

    def _play(self, play: Mapping[str, Any], *args: str, **extra: Any) -> tuple[int, str]:
        path = self._folder / "play.yml"
        path.write_text(json.dumps([play]))
        words = ("-i", str(self._inventory), *args)
        return self.rollout.cluster.playbook(str(path), {**QUICK, **extra}, *words)

    def node(self) -> dict[str, Any]:
        node: dict[str, Any] = self.rollout.cluster.client.do("GET", NODE)
        return node

    def note(self, name: str) -> Any:
        annotations = self.node()["metadata"].get("annotations") or {}
        return annotations.get(f"dataplane.calico-bpf/{name}")

    def calico_node(self) -> str:
        pod = self.rollout.cluster.calico_node("worker-1")
        assert pod
        return str(pod["metadata"]["uid"])


def example_of(role: str) -> str:
    """The first indented block of a README, which is its example."""
    lines = (CHECKOUT / "roles" / role / "README.md").read_text().splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("    - hosts:"))
    block = itertools.takewhile(lambda line: not line or line.startswith(" "), lines[begin:])
    return textwrap.dedent("\n".join(block))


def good(outcome: tuple[int, str]) -> str:
    """The output of a play that succeeded."""
    code, output = outcome
    assert code == 0, output
    return output


def test_a_node_is_upgraded_by_hand_and_rolled_back(tmp_path: Path) -> None:
    lab = {"nodes": 1, "endpoints": 1, "version": OLD, "heartbeat": 3600}
    with new_rollout("embedded", **lab) as rollout:
        (broken,) = rollout.cluster.seed_mismatch("worker-1")
        hand = ByHand(rollout, tmp_path)
        before = snapshot(rollout)
        assert "parity_persists" in good(hand.example("preflight"))
        assert snapshot(rollout) == before
        drains(hand)
        repairs(hand, broken)
        replaces(hand)
        good(hand.example("reattach"))
        verifies(hand)
        good(hand.example("resume"))
        assert not rollout.cordoned()
        assert (hand.note("cordoned-by"), hand.note("verified")) == (None, None)
        good(hand.entry("node_upgrade", "finish"))
        rollout.must_be_complete()
        puts_back(hand)


def drains(hand: ByHand) -> None:
    output = good(hand.example("drain", "--check"))
    assert "changed=1" in output
    assert not hand.rollout.cordoned()
    good(hand.example("drain"))
    assert hand.note("cordoned-by") == "the role drain"
    web = [p for p in hand.rollout.cluster.pods("demo") if p["metadata"]["name"].startswith("web-")]
    assert [pod["spec"].get("nodeName") for pod in web] == [None]
    assert "changed=0" in good(hand.example("drain"))


def repairs(hand: ByHand, broken: str) -> None:
    code, output = hand.example("qdisc_parity")
    assert code == 2, output
    assert f"1 endpoints of node-1 are not consistent: {broken} is drifted" in output
    good(hand.example("qdisc_parity", qdisc_parity_state="consistent"))
    assert not hand.rollout.broken()
    assert "changed=0" in good(hand.example("qdisc_parity"))


def replaces(hand: ByHand) -> None:
    """Only a pod with an older revision than the DaemonSet's is replaced."""
    former, revision = hand.calico_node(), hand.rollout.strategy()
    assert "changed=0" in good(hand.example("node_upgrade"))
    assert (hand.calico_node(), revision) == (former, "RollingUpdate")
    good(hand.entry("node_upgrade", "stage", node_upgrade_patch=manifests.images(FIXED)))
    assert (hand.calico_node(), hand.rollout.strategy()) == (former, "OnDelete")
    good(hand.example("node_upgrade"))
    assert hand.calico_node() != former
    assert hand.rollout.versions() == {"worker-1": FIXED}


def verifies(hand: ByHand) -> None:
    node = hand.rollout.cluster.node("worker-1")
    (pod,) = node.addresses
    felix = {"url": "http://localhost:9099/readiness"}
    beyond = {"host": "169.254.1.1", "port": 1, "from_pod": pod}
    with served_by(node) as address:
        server = {"host": address, "port": 8099, "from_pod": pod}
        good(hand.example("verify", verify_probes=[felix, server]))
        code, output = hand.example("verify", verify_probes=[felix, server, beyond])
    assert code == 2, output
    assert re.search(
        r"worker-1 does not verify: probe 169.254.1.1:1[^(]*\(wanted: reachable\)\. ?$",
        output,
        re.M,
    )


@contextmanager
def served_by(node: Node) -> Iterator[str]:
    """An address in the node, port 8099, that its pods can reach."""
    node.exec("ip", "address", "add", "10.66.0.1/32", "dev", "lo")
    words = node.words(sys.executable, "-c", _SERVER, "10.66.0.1")
    with subprocess.Popen(words, cwd="/", stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout
            server.stdout.readline()
            yield "10.66.0.1"
        finally:
            server.terminate()
    node.exec("ip", "address", "del", "10.66.0.1/32", "dev", "lo")


def puts_back(hand: ByHand) -> None:
    former = hand.calico_node()
    good(hand.example("rollback"))
    spec = hand.rollout.cluster.client.do("GET", DAEMON_SET)["spec"]
    assert spec["template"]["spec"]["containers"][0]["image"].endswith(f":{OLD}")
    assert spec["updateStrategy"]["type"] == "OnDelete"
    assert (hand.calico_node(), hand.rollout.versions()) == (former, {"worker-1": FIXED})


def test_wrong_variables_are_refused_before_any_change(tmp_path: Path) -> None:
    tasks = [
        {
            "block": [
                {
                    "ansible.builtin.include_role": {"name": f"dataplane.calico_bpf.{role}"},
                    "vars": {variable: value},
                }
            ],
            "rescue": [
                {
                    "ansible.builtin.debug": {
                        "msg": f"{role}: {{{{ ansible_failed_result.argument_errors }}}}"
                    }
                }
            ],
        }
        for role, (variable, value) in WRONG.items()
    ]
    path = tmp_path / "play.yml"
    path.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    done = subprocess.run(
        [f"{sys.prefix}/bin/ansible-playbook", "-i", "localhost,", "-c", "local", str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=CHECKOUT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for role, (variable, _wrong) in WRONG.items():
        (output,) = [line for line in done.stdout.splitlines() if f'"msg": "{role}: ' in line]
        assert variable in output
    assert f"rescued={len(WRONG)}" in done.stdout
