# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate before every playbook: settings as a person, a survey or a pipeline gives them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.lab.rollout import (
    QUICK,
    new_rollout,
)
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import CHECKOUT

pytestmark = pytest.mark.timeout(900)

PLAYBOOKS = ("audit", "repair", "upgrade", "rollback")
HOSTS = "a ansible_connection=local\nb ansible_connection=local\n"


def refused(
    tmp_path: Path, playbook: str, *words: str, nodes: str = HOSTS, **variables: Any
) -> str:
    """The output of a run that must end before its second task."""
    inventory = tmp_path / "hosts"
    inventory.write_text(nodes)
    named = {f"calico_bpf_{name}": value for name, value in variables.items()}
    done = subprocess.run(
        [
            f"{sys.prefix}/bin/ansible-playbook", "-i", str(inventory), "-e", json.dumps(named),
            str(CHECKOUT / f"playbooks/{playbook}.yml"), *words,
        ],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode not in (0, 250), done.stdout
    assert "ok=0" in done.stdout or "PLAY [" not in done.stdout, done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["hosts"]
    return done.stdout + done.stderr


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_what_is_wrong_is_refused_once_before_everything(tmp_path: Path, playbook: str) -> None:
    output = refused(
        tmp_path, playbook, version="v3.29.7", windw={}, soak="abc", window={"from": "22:00"}
    )
    assert output.count("fatal: ") == 1
    assert "calico_bpf_windw is not a setting; the nearest is calico_bpf_window" in output
    assert "calico_bpf_soak is 'abc'; accepted: seconds, such as 90" in output
    assert "'from' is not one of start, end, timezone" in output


@pytest.mark.parametrize("playbook", ["repair", "upgrade"])
def test_batches_that_cannot_be_read(tmp_path: Path, playbook: str) -> None:
    output = refused(tmp_path, playbook, version="v3.29.7", batches="1,ten")
    assert "calico_bpf_batches is '1,ten'; accepted: numbers of nodes or percentages" in output


@pytest.mark.parametrize("playbook", PLAYBOOKS)
@pytest.mark.parametrize(("nodes", "pattern"), [("", "all"), (HOSTS, "workers")])
def test_a_pattern_without_hosts(tmp_path: Path, playbook: str, nodes: str, pattern: str) -> None:
    output = refused(tmp_path, playbook, nodes=nodes, hosts=pattern)
    assert f"no host of the inventory matches '{pattern}' (calico_bpf_hosts)" in output


@pytest.mark.parametrize("playbook", PLAYBOOKS)
@pytest.mark.parametrize("option", ["--syntax-check", "--list-tasks"])
def test_a_playbook_is_looked_at_without_an_inventory(playbook: str, option: str) -> None:
    words = [f"{sys.prefix}/bin/ansible-playbook", option]
    done = subprocess.run(
        [*words, str(CHECKOUT / f"playbooks/{playbook}.yml")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_tag_that_no_task_has(tmp_path: Path, playbook: str) -> None:
    output = refused(tmp_path, playbook, "--tags", "none", version="v3.29.7")
    assert "none is not a tag: this playbook has " in output


def test_an_upgrade_to_nothing(tmp_path: Path) -> None:
    output = refused(tmp_path, "upgrade")
    assert "set calico_bpf_version or calico_bpf_manifest: neither is set" in output


def test_an_upgrade_with_the_answers_of_a_survey() -> None:
    """Every answer is a text. An optional question that was not answered is an empty one."""
    answers = {
        "calico_bpf_version": "v3.29.7",
        "calico_bpf_batches": "1,100%",
        "calico_bpf_soak": "1s",
        "calico_bpf_window": "00:00-23:59 UTC",
        "calico_bpf_node_duration": "1",
        "calico_bpf_overrides": "node_not_ready,no_room",
        "calico_bpf_manifest": "",
        "calico_bpf_namespace": "",
        "calico_bpf_image_repository": "",
    }
    with new_rollout("embedded", nodes=3, endpoints=1, version="v3.29.5") as rollout:
        code, output = rollout.upgrade(**answers)
        assert code == 0, output
        assert rollout.report()["verdict"] == "completed"
        assert set(rollout.versions().values()) == {"v3.29.7"}


def test_a_repair_outside_of_a_window_that_is_given_as_text() -> None:
    with new_rollout("embedded", nodes=1, endpoints=1, version="v3.29.5") as rollout:
        window = {"start": "2020-01-01 01:00", "end": "2020-01-01 02:00"}
        closed = {**QUICK, "calico_bpf_window": json.dumps(window)}
        code, output = rollout.cluster.playbook("repair.yml", closed)
        assert code == 2, output
        assert "the maintenance window closed at 2020-01-01 02:00" in output
