# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The faults of a running stand-in, switched by a file that it reads again before each step."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

POINTS = ("between_hooks", "after_add")


@dataclass(frozen=True)
class KillInPass:
    """Once, with SIGKILL.

    between_hooks: ``hook`` is complete, the other not begun. after_add: ``hook`` has its new
    program beside its old one, the other is complete.
    """

    #: A glob.
    interface: str
    hook: str
    point: str


@dataclass(frozen=True)
class Faults:
    kill_in_pass: KillInPass | None = None
    #: The datastore is never in sync; if so from the start, no endpoint is touched.
    never_ready: bool = False
    #: Globs of endpoints that cannot be programmed.
    dirty: tuple[str, ...] = ()
    #: Every update of the Node re-attaches everything, whatever the version.
    churn: bool = False
    #: How many ``tc`` processes hang.
    hold_tc: int = 0
    #: Seconds between the two hooks of every pass.
    pass_delay: float = 0.0
    #: Cores that are kept busy.
    burn: float = 0.0

    def fails(self, interface: str) -> bool:
        return any(fnmatchcase(interface, glob) for glob in self.dirty)

    def kills(self, interface: str) -> KillInPass | None:
        kill = self.kill_in_pass
        return kill if kill and fnmatchcase(interface, kill.interface) else None


def read(path: Path | None) -> Faults:
    """:raises ValueError: where the file is not one of faults."""
    try:
        values: dict[str, Any] = json.loads(path.read_text()) if path else {}
    except FileNotFoundError:
        return Faults()
    try:
        kill = KillInPass(**values["kill_in_pass"]) if values.get("kill_in_pass") else None
        faults = Faults(**{**values, "kill_in_pass": kill, "dirty": tuple(values.get("dirty", ()))})
    except TypeError as error:
        raise ValueError(f"{path}: {error}") from None
    if kill and kill.point not in POINTS:
        raise ValueError(f"{path}: a point of kill_in_pass is one of {POINTS}, not {kill.point!r}")
    return faults


def write(path: Path, faults: Faults) -> None:
    """Write the faults atomically: a reader sees the old ones or the new ones."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(json.dumps(asdict(faults)))
    new.replace(path)


def without_kill(path: Path) -> None:
    """Remove kill_in_pass, which takes effect only once."""
    write(path, replace(read(path), kill_in_pass=None))
