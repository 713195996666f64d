# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of one stand-in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.felix.releases import Release

_PATHS = ("objects", "log", "heartbeat", "faults", "workloads")


@dataclass(frozen=True)
class Config:
    version: str
    #: The directory of allow.o, which stands in for the preamble.
    objects: Path
    #: The container's log file.
    log: Path
    #: Globs of the workload interfaces.
    interfaces: tuple[str, ...] = ("cali*",)
    #: BPFAttachType: TCX or TC; releases before 3.31 know only tc.
    attach_type: str = "TCX"
    #: Seconds between two tries at a dirty endpoint.
    retry: float = 10.0
    #: A file whose mtime is the last update of the Node.
    heartbeat: Path | None = None
    #: A file of ``Faults``; none while it is absent.
    faults: Path | None = None
    #: Whether to serve metrics at port 9091.
    metrics: bool = False
    #: A JSON file: interface to "namespace/pod".
    workloads: Path | None = None

    @property
    def release(self) -> Release:
        return Release.of(self.version)

    @classmethod
    def read(cls, path: Path) -> Config:
        """:raises ValueError, TypeError: where a key is wrong, unknown or missing."""
        values: dict[str, Any] = json.loads(path.read_text())
        values |= {key: Path(values[key]) for key in _PATHS if values.get(key)}
        values["interfaces"] = tuple(values.get("interfaces", cls.interfaces))
        config = cls(**values)
        config.release.behaviour(config.attach_type)
        if config.attach_type not in ("TCX", "TC"):
            raise ValueError(f"attach_type is TCX or TC, not {config.attach_type!r}")
        return config
