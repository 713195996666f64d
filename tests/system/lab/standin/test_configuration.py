# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in's release, its configuration and its faults."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.felix.releases import Behaviour, Release
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin import faults
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin_node import (
    STANDIN,
)


@pytest.mark.parametrize(
    ("behaviour", "versions"),
    [
        (Behaviour.ADD_WITHOUT_COMPARE, "v3.28.0 3.28.1"),
        (Behaviour.ADD_THEN_DELETE, "v3.28.2 v3.28.4 v3.29.0 v3.29.4 v3.30.0"),
        (Behaviour.REPLACE_AND_COMPARE, "v3.28.5 v3.29.5 v3.30.1 v3.30.7"),
        (Behaviour.REPLACE, "v3.31.0 v3.32.1"),
    ],
)
def test_behaviours(behaviour: Behaviour, versions: str) -> None:
    for version in versions.split():
        assert Release.of(version).behaviour("TC") is behaviour
        assert Release.of(version).behaviour("TCX") is (
            Behaviour.TCX if behaviour is Behaviour.REPLACE else behaviour
        )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"version": "latest"}, "is not a Calico version"), ({"version": "v3.26.1"}, "is older"),
     ({"attach_type": "tcx"}, "is TCX or TC"), ({"retries": 1}, "unexpected keyword"),
     ({"log": None}, "NoneType")],
)  # fmt: skip
def test_a_wrong_configuration_is_refused(
    tmp_path: Path, wrong: dict[str, object], words: str
) -> None:
    config = {"version": "v3.29.1", "objects": "/", "log": str(tmp_path / "0.log"), **wrong}
    (tmp_path / "config.json").write_text(json.dumps(config))
    words_of_it = [sys.executable, "-m", STANDIN, str(tmp_path / "config.json")]
    done = subprocess.run(words_of_it, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode != 0
    assert words in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [{"slow": 1}, {"kill_in_pass": {"interface": "cali0", "hook": "ingress", "point": "there"}}],
)
def test_a_wrong_fault_is_refused(tmp_path: Path, wrong: object) -> None:
    (tmp_path / "faults.json").write_text(json.dumps(wrong))
    with pytest.raises(ValueError, match=r"faults\.json"):
        faults.read(tmp_path / "faults.json")
