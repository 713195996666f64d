# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container of a lab node: a program in its own process namespace."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

#: A program of its own as the init of a process namespace could not be killed from within.
_CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "sh", "-c", '"$@"; exit "$?"', "sh")


class Container(Protocol):
    """A program that runs in a node until it ends or is stopped."""

    def ended(self, within: float = 0.0) -> bool:
        """Whether it has ended, after at most so many seconds."""

    def signal(self, number: signal.Signals) -> None: ...


class NamespaceContainer:
    """A container in namespaces of this machine; ``enter`` enters its pod's cgroup and its node."""

    def __init__(
        self,
        enter: Sequence[str],
        program: Sequence[str],
        out: Path,
        environment: Mapping[str, str],
    ) -> None:
        with out.open("a") as output:
            self._process = subprocess.Popen(
                [*enter, *_CONTAINER, *program],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    def ended(self, within: float = 0.0) -> bool:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(within)
        return self._process.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        """Signal the program; SIGKILL goes to the init, with which the container ends."""
        pid = self._process.pid
        generations = 2 if number is signal.SIGKILL else 3
        for _generation in range(generations):
            children = _children(pid)
            if not children:
                return  # it has just started or just ended
            pid = children[0]
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except FileNotFoundError:
        return []
