# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules ask of a node's Python: nothing but itself for an audit and a repair."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import (
    NODE_PYTHON,
    Lab,
    run_module,
)
from ansible_collections.dataplane.calico_bpf.tests.support.tc.held import held

LIBRARIES = ("pyroute2", "bcc")


def interpreter(directory: Path, flags: str, python: str = NODE_PYTHON, also: str = "") -> str:
    """An interpreter that runs another with ``flags``."""
    script = directory / "python"
    script.write_text(f'#!/bin/sh\nexec {python} {flags} "$@" {also}\n')
    script.chmod(0o755)
    return str(script)


def imports(python: str, library: str) -> bool:
    words = [python, "-c", f"import {library}"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.fixture
def bare_python(tmp_path: Path) -> str:
    """The node's Python without any library: isolated, without site-packages."""
    python = interpreter(tmp_path, "-I -S")
    for library in LIBRARIES:
        assert imports(NODE_PYTHON, library)
        assert not imports(python, library)
    return python


def mismatch(lab: Lab, name: str) -> str:
    interface = lab.endpoint(name)
    lab.attach(interface, "ingress", 1)
    lab.attach(interface, "egress", 2)
    return interface


def audit_and_repair(lab: Lab, python: str) -> None:
    """Both ways to repair one, each after an audit, end with both hooks at one slot."""
    first, second = mismatch(lab, "cali1"), mismatch(lab, "cali2")
    here: dict[str, Any] = {"netns": lab.netns, "settle": 0}
    audit = run_module("qdisc_consistency", here, python=python)
    assert audit["summary"]["verdicts"]["drifted"] == 2, audit
    result = run_module("bpf_endpoint", {**here, "interface": first}, python=python)
    assert result["verdict"] == "repaired", result
    whole = run_module("qdisc_consistency", {**here, "state": "consistent"}, python=python)
    verdicts = whole["summary"]["verdicts"]
    assert (verdicts["repaired"], verdicts["consistent"]) == (1, 1), whole
    for interface in (first, second):
        ingress, egress = lab.slots(interface)
        assert ingress == egress
        assert len(ingress) == 1


def test_nothing_but_python_is_needed(lab: Lab, bare_python: str) -> None:
    audit_and_repair(lab, bare_python)


def test_a_running_program_is_attached_with_python_alone(lab: Lab, bare_python: str) -> None:
    """A program by its pin or its id, and an object by libbpf, which is no Python library."""
    interface = lab.endpoint("cali1")
    place = {"netns": lab.netns, "interface": interface, "hook": "ingress"}
    sources = ({"pinned": lab.pin("deny")}, {"object": str(lab.objects / "allow.o")})
    for source in sources:
        result = run_module("bpf_tc_program", {**place, **source}, python=bare_python)
        assert result["changed"], result
    assert [f.slot for f in lab.filters(interface, "ingress")] == [(49152, 1)]


@pytest.mark.parametrize("check", [False, True])
def test_a_missing_library_is_named_before_anything_is_touched(
    lab: Lab, bare_python: str, check: bool
) -> None:
    """In check mode as well, as a real run would be refused."""
    interface = lab.endpoint("cali1")
    bare = lab.endpoint("cali2", clsact=False)
    before = [held(lab, i) for i in (interface, bare)]
    text = {"source": "int f(struct __sk_buff *skb) { return 0; }", "function": "f"}
    deny = {"object": str(lab.objects / "deny.o")}
    for name, package, source in ((interface, "bpfcc", text), (bare, "pyroute2", deny)):
        options = {"netns": lab.netns, "interface": name, "hook": "egress", **source}
        refused = run_module("bpf_tc_program", options, python=bare_python, check=check)
        assert refused.get("failed"), refused
        assert f"python3-{package}" in refused["msg"]
    assert [held(lab, i) for i in (interface, bare)] == before


def test_a_missing_libbpf_is_named(lab: Lab) -> None:
    interface = lab.endpoint("cali1")
    hide = 'for f in /usr/lib/*/libbpf.so.1; do mount --bind /dev/null "$f"; done; exec "$@"'
    options = {"netns": lab.netns, "interface": interface, "hook": "egress",
               "object": str(lab.objects / "deny.o")}  # fmt: skip
    prefix = ("unshare", "-m", "sh", "-c", hide, "sh")
    refused = run_module("bpf_tc_program", options, prefix=prefix)
    assert refused.get("failed"), refused
    assert "`object` needs libbpf 1 on the node" in refused["msg"]
    assert lab.filters(interface, "egress") == []


def test_an_audit_and_a_repair_load_no_library(lab: Lab, tmp_path: Path) -> None:
    """They are there, but importing them would take longer than the whole audit."""
    log = tmp_path / "imported"
    python = interpreter(tmp_path, "-X importtime", also=f"2>>{log}")
    audit_and_repair(lab, python)
    imported = imported_modules(log)
    assert any(name.endswith("module_utils.endpoint.commands") for name in imported), imported
    assert not imported & set(LIBRARIES)
    # That the log would show it: making a clsact qdisc needs pyroute2.
    bare = lab.endpoint("cali3", clsact=False)
    options = {"netns": lab.netns, "interface": bare, "hook": "egress", "pinned": lab.pin()}
    assert run_module("bpf_tc_program", options, python=python)["changed"]
    assert imported_modules(log) & set(LIBRARIES) == {"pyroute2"}


def imported_modules(log: Path) -> set[str]:
    """Names from ``import time: self | cumulative | name``."""
    return set(re.findall(r"^import time:.*\| +(\S+)$", log.read_text(), re.MULTILINE))


# --- other versions -------------------------------------------------------------------------------


def other_pythons() -> list[str]:
    """Those on PATH, and pyenv's own, whose shims do not start unless chosen."""
    found = {}
    for minor in (9, 10, 12, 13):
        name = f"python3.{minor}"
        root = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
        candidates = [shutil.which(name), *map(str, root.glob(f"versions/*/bin/{name}"))]
        runs = [c for c in candidates if c and not _fails([c, "-c", "import ctypes"])]
        if runs:
            found[name] = runs[0]
    return list(found.values())


def _fails(words: list[str]) -> bool:
    return bool(subprocess.run(words, capture_output=True, check=False).returncode)


@pytest.mark.parametrize("python", other_pythons())
def test_other_versions_of_python(lab: Lab, tmp_path: Path, python: str) -> None:
    """Without their site-packages."""
    audit_and_repair(lab, interpreter(tmp_path, "-I -S", python))
