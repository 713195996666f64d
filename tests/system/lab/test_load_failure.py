# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program that failed to load behind a preamble that is attached: Felix itself is content.

As the real 3.31.7 and 3.32.1 were seen (calico-bpf-update.md, section 8): ready, no dirty endpoint,
every endpoint happy, and no packet passes.
"""

from __future__ import annotations

import json
import re
import sys

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.felix import preamble
from ansible_collections.dataplane.calico_bpf.tests.support.lab.node import Node
from ansible_collections.dataplane.calico_bpf.tests.support.lab.rollout import (
    QUICK,
    Rollout,
    new_rollout,
)

pytestmark = pytest.mark.timeout(900)

#: Loads a preamble that jumps to index 8, of an array that holds a program only at index 7.
_LOAD = """
import json, sys
from pathlib import Path
from ansible_collections.dataplane.calico_bpf.tests.support.felix import preamble
path, interface, *_ = sys.argv[1:]
pins = Path("/sys/fs/bpf/broken")
pins.mkdir()
values = preamble.constants(preamble.V3_28, interface, {0: 8, 1: 12})
pin = preamble.load(Path(path), values, pins)
preamble.fill(pins / "cali_progs3", 7, str(pin))
preamble.fill(pins / "cali_jump3", 12, str(pin))
print(json.dumps(str(pin)))
"""


def test_an_endpoint_whose_programs_failed_to_load_is_never_called_healthy() -> None:
    with new_rollout(
        "embedded", nodes=1, endpoints=2, version="v3.31.7", attach_type="TC", heartbeat=3600
    ) as rollout:
        node = rollout.cluster.node("worker-1")
        interface = node.interfaces()[0]
        cut_off(rollout, node, interface)
        assert not rollout.cluster.dirty()
        code, output = rollout.cluster.playbook("audit.yml", QUICK)
        assert code == 0, output
        assert re.search(r"1 of \d .* Felix is ready", output)
        strict = {**QUICK, "calico_bpf_fail_on_drift": True}
        code, output = rollout.cluster.playbook("audit.yml", strict)
        assert code == 2, output
        assert f"{interface} is drifted, outlook ok: the main program of program" in output
        assert "EVERY PACKET IS DROPPED at this hook" in output
        code, output = rollout.cluster.playbook("repair.yml", QUICK)
        assert code == 2, output
        assert re.search(r"parity is bad: 1 of \d drifted", output)


def cut_off(rollout: Rollout, node: Node, interface: str) -> None:
    """Replace the program at egress, in its place."""
    compiled = preamble.compile_preamble("", rollout.cluster.settings.objects)
    pin = json.loads(node.exec(sys.executable, "-c", _LOAD, str(compiled), interface))
    show = ("tc", "-json", "filter", "show", "dev", interface, "egress")
    (shown,) = (f for f in json.loads(node.exec(*show)) if f.get("options", {}).get("handle"))
    place = ("pref", str(shown["pref"]), "handle", str(shown["options"]["handle"]))
    change = ("tc", "filter", "replace", "dev", interface, "egress", "protocol", "all", *place)
    node.exec(*change, "bpf", "object-pinned", pin, "direct-action")
