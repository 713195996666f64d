# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules do without root: an audit reads what it may, and all else is refused early."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import (
    NODE_PYTHON,
    Lab,
    run_module,
    run_modules,
)
from ansible_collections.dataplane.calico_bpf.tests.support.tc.held import held
from ansible_collections.dataplane.calico_bpf.tests.support.tc.tcx import attach_without_link

Interpreter = Callable[..., str]
UNPRIVILEGED = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all")


@pytest.fixture
def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Interpreter:
    """Makes an interpreter that runs the node's Python by way of other commands.

    The module comes by pipelining: root's file would be out of an unprivileged user's reach.
    """
    monkeypatch.setenv("ANSIBLE_PIPELINING", "1")

    def make(*words: str) -> str:
        script = tmp_path / "python"
        script.write_text(f'#!/bin/sh\nexec {" ".join(words)} {NODE_PYTHON} "$@"\n')
        script.chmod(0o755)
        return str(script)

    return make


def inside(lab: Lab) -> tuple[str, ...]:
    """Enter the namespace first, as only root may."""
    return "nsenter", f"--net=/run/netns/{lab.netns}"


def mismatch(lab: Lab) -> str:
    interface = lab.endpoint("cali1")
    lab.attach(interface, "ingress", 1)
    lab.attach(interface, "egress", 2)
    return interface


def test_an_unprivileged_audit_reports_what_it_could_not_read(
    lab: Lab, interpreter: Interpreter
) -> None:
    """Filters are read and judged; TCX and a look into the programs need privilege."""
    interface = mismatch(lab)
    attach_without_link(lab, interface, "ingress", lab.pin("foreign"))
    before = held(lab, interface)
    python = interpreter(*inside(lab), *UNPRIVILEGED)
    nobodys = run_module("qdisc_consistency", {"settle": 0}, python=python)
    roots = lab.module("qdisc_consistency", settle=0)
    assert sorted(nobodys["unread"]) == ["programs", "tcx"]
    assert roots["unread"] == {}
    (seen,) = nobodys["endpoints"]
    assert [f["code"] for f in seen["findings"]] == ["handle_mismatch"]
    assert (seen["verdict"], seen["outlook"]) == ("drifted", "stuck")
    for hook in ("ingress", "egress"):
        slots = [(a["priority"], a["handle"], a["program_id"]) for a in seen[hook]]
        assert slots == [(*f.slot, f.program_id) for f in before.filters(hook)]
    warned = "\n".join(nobodys["warnings"])
    assert "could not read tcx" in warned
    assert "could not read programs" in warned
    assert "run as root" in warned
    assert roots["warnings"] == []
    assert [a["attach_type"] for a in roots["endpoints"][0]["ingress"]] == ["tcx", "tc"]


@pytest.mark.parametrize("lost", ["net_admin", "sys_admin"])
def test_root_without_a_capability_is_refused_before_anything_is_touched(
    lab: Lab, interpreter: Interpreter, lost: str
) -> None:
    """In check mode as well: it would promise what a real run could not do."""
    interface = mismatch(lab)
    before = held(lab, interface)
    without = ("setpriv", f"--bounding-set=-{lost}", f"--inh-caps=-{lost}")
    python = interpreter(*inside(lab), *without)
    deny = {"object": str(lab.objects / "deny.o")}
    place = {"interface": interface, "hook": "ingress"}
    runs: dict[str, dict[str, dict[str, Any]]] = {
        "qdisc_consistency": {"repair": {"state": "consistent", "settle": 0}},
        "bpf_endpoint": {
            "repair": {"interface": interface, "settle": 0},
            "absent": {"interface": interface, "state": "absent"},
        },
        "bpf_tc_program": {"present": {**place, **deny}, "absent": {**place, "state": "absent"}},
    }
    for module, cases in runs.items():
        for check in (False, True):
            for refused in run_modules(module, cases, python=python, check=check).values():
                assert refused.get("failed"), refused
                assert f"needs CAP_{lost.upper()}, which this process does" in refused["msg"]
                assert "nothing was changed" in refused["msg"]
    assert held(lab, interface) == before


def test_all_capabilities_that_are_missing_are_named(lab: Lab, interpreter: Interpreter) -> None:
    mismatch(lab)
    python = interpreter(*inside(lab), *UNPRIVILEGED)
    refused = run_module("qdisc_consistency", {"state": "consistent"}, python=python)
    assert "needs CAP_NET_ADMIN and CAP_SYS_ADMIN" in refused["msg"]


def test_a_namespace_that_may_not_be_entered(lab: Lab, interpreter: Interpreter) -> None:
    """Even an audit needs root to look into another namespace than its own."""
    python = interpreter(*UNPRIVILEGED)
    refused = run_module("qdisc_consistency", {"netns": lab.netns}, python=python)
    assert refused.get("failed"), refused
    assert f"cannot enter the network namespace /run/netns/{lab.netns}" in refused["msg"]
    assert "Operation not permitted; it needs root (CAP_SYS_ADMIN)" in refused["msg"]
