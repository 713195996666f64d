# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A task's process ends with its run, whenever that is killed."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable

import pytest
from ansible.utils.multiprocessing import context

from ansible_collections.dataplane.calico_bpf.plugins.plugin_utils import end_with_run as module
from ansible_collections.dataplane.calico_bpf.plugins.plugin_utils.end_with_run import end_with_run

Act = Callable[[int, int], None]


def early(out: int, run: int) -> None:
    """A task that begins while its run lives."""
    end_with_run()
    work(out)


def late(out: int, run: int) -> None:
    """A task that begins when its run has ended."""
    os.write(out, b"begun ")
    while os.getppid() == run:
        time.sleep(0.01)
    end_with_run()
    work(out)


def early_without_prctl(out: int, run: int) -> None:
    module._killed_by_kernel = lambda: False
    early(out, run)


def late_without_prctl(out: int, run: int) -> None:
    module._killed_by_kernel = lambda: False
    late(out, run)


def work(out: int) -> None:
    while True:
        os.write(out, b"begun works ")
        time.sleep(0.05)


def run_of(act: Act, out: int) -> None:
    """A run with one task, made as Ansible makes its workers."""
    worker = context.Process(target=act, args=(out, os.getpid()))
    worker.start()
    worker.join()


@pytest.mark.parametrize("act", [early, late, early_without_prctl, late_without_prctl])
def test_a_killed_run_takes_its_task_along(act: Act) -> None:
    heard, out = os.pipe()
    run = context.Process(target=run_of, args=(act, out))
    run.start()
    os.close(out)
    assert os.read(heard, 6) == b"begun "
    assert run.pid
    os.kill(run.pid, signal.SIGKILL)
    run.join()
    said = b""
    until = time.monotonic() + 2
    while select.select([heard], [], [], max(0.0, until - time.monotonic()))[0]:
        more = os.read(heard, 65536)
        if not more:
            break  # the task has ended: it was the last to have the pipe
        said += more
    else:
        pytest.fail("the task lives on")
    os.close(heard)
    if act in (late, late_without_prctl):
        assert said == b""


def test_a_task_in_the_process_of_its_run_goes_on() -> None:
    end_with_run()
    assert context.parent_process() is None
