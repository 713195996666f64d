# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes of a cluster."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

#: Become a command that dies with the process of the given id, even if that one has just died.
_MORTAL = ("setpriv", "--pdeathsig", "KILL", "sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"')
_STOP_SECONDS = 20.0


def run(*words: str) -> str:
    """Run a command; its output.

    :raises RuntimeError: it failed; with what it printed.
    """
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


def children(pid: int) -> list[int]:
    """The process ids of a process's children."""
    with suppress(FileNotFoundError, ProcessLookupError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        return [int(child) for child in text.split()]
    return []


class Server:
    """A running program with a log, which dies with the thread that started it.

    ``entered`` says that the command is nsenter, whose only child is the program: nsenter forks to
    enter a process namespace, and does not pass signals on.
    """

    def __init__(
        self, name: str, words: Sequence[str], log: Path, programs: Path, *, entered: bool = False
    ) -> None:
        self.name = name
        self.log = log
        self._entered = entered
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*_MORTAL, str(os.getpid()), *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=log.parent,
                # Nothing else: a proxy for downloads must not be used for the lab's own addresses.
                env={"PATH": f"{programs}:{os.environ['PATH']}"},
                start_new_session=True,  # a ctrl-C is for the tests
            )

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The program's process id, if it runs."""
        if not self.runs:
            return None
        if not self._entered:
            return self._process.pid
        return next(iter(children(self._process.pid)), None)

    def stop(self) -> None:
        """Ask it to end, and kill it if it does not."""
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()

    def check(self) -> None:
        """:raises RuntimeError: it has ended; with the end of its log."""
        if not self.runs:
            raise self.failure(f"ended with {self._process.returncode}")

    def failure(self, what: str) -> RuntimeError:
        text = self.log.read_text(encoding="utf-8", errors="replace")
        last = "\n".join(text.splitlines()[-20:])
        return RuntimeError(f"{self.name} {what}; its log ends:\n{last}")

    def _signal(self, number: signal.Signals) -> None:
        """To the program; to nsenter where that has not yet forked."""
        if self.runs:
            with suppress(ProcessLookupError):
                os.kill(self.pid or self._process.pid, number)
