# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""rollout_record: as a play calls it, from many processes, and killed in the middle."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import DataplaneError
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.event import Event, Status
from ansible_collections.dataplane.calico_bpf.plugins.plugin_utils.recorder import (
    record,
    seconds_of,
)
from ansible_collections.dataplane.calico_bpf.tests.support.report.rollout import RUN

BATCH = [f"worker-{number}" for number in range(1, 9)]
PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - dataplane.calico_bpf.rollout_record:
        directory: "{{ directory }}"
        run: r1
        status: "{{ item }}"
        node: "{{ inventory_hostname }}"
        phase: resume
        position: "{{ ansible_play_hosts_all.index(inventory_hostname) + 1 }}"
        total: "{{ ansible_play_hosts_all | length }}"
        result: {lost: 1, text: !unsafe "{{ never }}"}
      loop: [begun, done]
    - dataplane.calico_bpf.rollout_record:
        directory: "{{ directory }}"
        run: r1
        status: finished
      run_once: true
      register: result
    - ansible.builtin.debug:
        msg: "result {{ result | to_json }}"
      run_once: true
"""


def play(folder: Path, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = folder / "play.yml"
    path.write_text(text)
    command = [sys.executable, "-m", "ansible", "playbook", "-c", "local", "-i", ",".join(BATCH)]
    command += ["-f", "8", *arguments, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def test_the_nodes_of_a_batch_record_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    ran = play(tmp_path, PLAY, "-e", f"directory={folder}")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "changed=1" not in ran.stdout
    assert "\n[node 2/8 worker-2] resume: begun\n" in ran.stdout
    assert "\n[node 2/8 worker-2] resume: done in " in ran.stdout
    assert "\n[rollout] finished\n" in ran.stdout

    recorded = events(folder)
    assert Counter(e["status"] for e in recorded) == {"begun": 8, "done": 8, "finished": 1}
    assert recorded[0]["result"] == {"lost": 1, "text": "{{ never }}"}
    made = json.loads((folder / "report.json").read_text())
    assert (made["verdict"], made["totals"]["lost_packets"]) == ("completed", 8)
    assert [(n["name"], n["state"]) for n in made["nodes"]] == [(n, "done") for n in BATCH]
    assert made["next"][0].startswith("8 packets of the probes were lost")
    assert "Completed: 8 of 8 nodes done" in (folder / "report.html").read_text()
    for name in ("report.json", "report.html", "journal.jsonl"):
        assert str(folder / name) in ran.stdout
    assert sorted(p.name for p in folder.iterdir()) == [
        "journal.jsonl", "report.html", "report.json",
    ]  # fmt: skip


def test_check_mode_takes_no_real_reports_place(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    record(folder, Event(RUN, Status.BEGUN))
    real = (folder / "report.html").read_text()
    ran = play(tmp_path, PLAY, "--check", "-e", f"directory={folder}")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "[node 2/8 worker-2] resume: begun (check mode)" in ran.stdout
    assert (folder / "report.html").read_text() == real
    assert "Check mode: nothing was changed." in (folder / "report.check.html").read_text()
    assert json.loads((folder / "report.check.json").read_text())["check"] is True
    assert all(e["check"] for e in events(folder)[1:])
    assert "check" not in events(folder)[0]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("status: done, run: r", "status done needs a node or a phase"),
        ("status: exploded, run: r", "value of status must be one of"),
        ("status: begun", "missing required arguments: run"),
        (
            "status: begun, run: r, directory: /dev/null/x",
            "/dev/null/x/journal.jsonl of the rollout cannot be written",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, options: str, why: str) -> None:
    task = f"[{{dataplane.calico_bpf.rollout_record: {{{options}}}}}]"
    ran = play(tmp_path, f"- hosts: worker-1\n  gather_facts: false\n  tasks: {task}\n")
    assert ran.returncode == 2
    assert why in ran.stdout + ran.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "play.yml"]


def test_without_a_directory_progress_is_shown_and_nothing_is_kept(tmp_path: Path) -> None:
    task = "[{dataplane.calico_bpf.rollout_record: {status: begun, run: r, node: w}}]"
    ran = play(tmp_path, f"- hosts: worker-1\n  gather_facts: false\n  tasks: {task}\n")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "\n[node w] begun\n" in ran.stdout
    assert list(tmp_path.iterdir()) == [tmp_path / "play.yml"]


WRITER = """
import sys
from pathlib import Path
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.event import Event, Status
from ansible_collections.dataplane.calico_bpf.plugins.plugin_utils.recorder import record
print("ready", flush=True)
while True:
    for status in (Status.BEGUN, Status.DONE):
        record(Path(sys.argv[1]), Event("r", status, "worker-1", "drain", result={"x": "y" * 999}))
"""


def test_killed_while_it_writes(tmp_path: Path) -> None:
    """Whatever SIGKILL hits, every event but the last is there, and both reports can be read."""
    chance = random.Random(7)
    lines = 0
    for attempt in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(0.05 + chance.random() / 10)
            writer.send_signal(signal.SIGKILL)
        made = json.loads((tmp_path / "report.json").read_text())
        assert (made["verdict"], made["unreadable"]) == ("running", [])
        assert (tmp_path / "report.html").read_text().endswith("</html>")
        now = len(events(tmp_path))
        assert now > lines, attempt
        lines = now
    after = record(tmp_path, Event("r", Status.FINISHED)).report
    assert not after.unreadable
    assert len(after.nodes[0].phases) >= (lines - 6) // 2


def test_a_report_that_cannot_be_written_leaves_the_event_in_the_journal(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(
        DataplaneError, match=r"report\.html could not be written: .* is in the journal"
    ):
        record(tmp_path, Event(RUN, Status.BEGUN))
    assert [e["status"] for e in events(tmp_path)] == ["begun"]


def test_seconds_are_shown_at_the_end_of_a_phase(tmp_path: Path) -> None:
    def seconds(status: Status, node: str, phase: str, at: str) -> float | None:
        event = Event(RUN, status, node, phase, message="m", at=f"2026-11-23T22:00:{at}Z")
        return seconds_of(event, record(tmp_path, event).report)

    assert seconds(Status.BEGUN, "w", "drain", "00") is None
    assert seconds(Status.BEGUN, "", "preflight", "01") is None
    assert seconds(Status.NOTE, "w", "drain", "02") is None
    assert seconds(Status.DONE, "w", "drain", "03") == 3
    assert seconds(Status.FAILED, "", "preflight", "05") == 4
    assert seconds(Status.DONE, "w", "verify", "06") is None
    assert seconds(Status.DONE, "w", "", "07") is None
