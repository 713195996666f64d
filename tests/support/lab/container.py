# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a lab node runs for a pod: a program, in a process namespace of its own."""

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
    """A program that runs in a node until it ends, or is ended."""

    def ended(self, within: float = 0.0) -> bool:
        """Whether it has, after at most so many seconds."""

    def signal(self, number: signal.Signals) -> None: ...


class NamespaceContainer:
    """One in namespaces of this machine; ``enter`` is what enters its pod's cgroup and its node."""

    def __init__(
        self,
        enter: Sequence[str],
        program: Sequence[str],
        out: Path,
        environment: Mapping[str, str],
    ) -> None:
        with out.open("a") as said:
            self._process = subprocess.Popen(
                [*enter, *_CONTAINER, *program],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    def ended(self, within: float = 0.0) -> bool:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(within)
        return self._process.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        """To the container's init, with which all of it ends; it only takes a SIGKILL itself."""
        pid = self._process.pid
        generations = 2 if number is signal.SIGKILL else 3
        for _generation in range(generations):
            children = _children(pid)
            if not children:
                return  # it has only begun, or just ended
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
