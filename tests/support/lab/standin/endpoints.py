# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Felix's BPF endpoint manager: the endpoints there are, and passes over the dirty ones."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.tests.support.felix import tcx
from ansible_collections.dataplane.calico_bpf.tests.support.felix.libbpf import HOOKS
from ansible_collections.dataplane.calico_bpf.tests.support.felix.passes import (
    Felix,
    FelixError,
    Point,
)
from ansible_collections.dataplane.calico_bpf.tests.support.felix.releases import Behaviour
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin import faults
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin.config import Config
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin.messages import Messages
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin.server import (
    NOT_FOUND,
    Answer,
)

#: felix/dataplane/linux/bpf_ep_mgr.go, bpfEndpointsGauge and those that follow.
_GAUGES = {
    "felix_bpf_dataplane_endpoints": "Number of BPF endpoints managed in the dataplane.",
    "felix_bpf_dirty_dataplane_endpoints": (
        "Number of BPF endpoints managed in the dataplane that are left dirty after a failure."
    ),
    "felix_bpf_happy_dataplane_endpoints": (
        "Number of BPF endpoints that are successfully programmed."
    ),
}


@dataclass
class Gauges:
    """As they were after the last pass."""

    endpoints: int = 0
    dirty: int = 0
    happy: int = 0

    def answer(self, path: str) -> Answer:
        if path != "/metrics":
            return NOT_FOUND
        values = (self.endpoints, self.dirty, self.happy)
        lines = [
            f"# HELP {name} {text}\n# TYPE {name} gauge\n{name} {value}\n"
            for (name, text), value in zip(_GAUGES.items(), values, strict=True)
        ]
        return Answer(200, "".join(lines), "text/plain; version=0.0.4; charset=utf-8")


class Endpoints:
    def __init__(self, config: Config, messages: Messages) -> None:
        self._config = config
        self._messages = messages
        self._behaviour = config.release.behaviour(config.attach_type)
        self._ifindexes: dict[str, int] = {}
        self.dirty: set[str] = set()
        self._happy: set[str] = set()
        self._said_dirty_at = 0.0
        self.gauges = Gauges()

    # --- what there is ----------------------------------------------------------------------------

    def look(self) -> bool:
        """Take note of interfaces that came or went; True where one did."""
        now = {name: index for index, name in socket.if_nameindex() if self._is_workloads(name)}
        gone = self._ifindexes.items() - now.items()
        new = now.items() - self._ifindexes.items()
        for name, ifindex in sorted(gone):
            self._forget(name, ifindex)
        for name, ifindex in sorted(new):
            self._messages.interface_changed(name, ifindex, "up")
            self._ifindexes[name] = ifindex
            self.dirty.add(name)
        return bool(gone or new)

    def _is_workloads(self, interface: str) -> bool:
        return any(fnmatchcase(interface, glob) for glob in self._config.interfaces)

    def _forget(self, interface: str, ifindex: int) -> None:
        self._messages.interface_changed(interface, ifindex, "")
        del self._ifindexes[interface]
        self.dirty.discard(interface)
        self._happy.discard(interface)
        if self._behaviour is Behaviour.TCX:
            for hook in HOOKS:
                tcx.pin_of(interface, hook).unlink(missing_ok=True)

    def make_all_dirty(self) -> None:
        self.dirty |= self._ifindexes.keys()

    def make_dirty(self, fault: faults.Faults) -> bool:
        """Those that a fault now keeps from being programmed; True where one was not dirty yet."""
        failing = {name for name in self._ifindexes if fault.fails(name)}
        new = failing - self.dirty
        self.dirty |= failing
        return bool(new)

    # --- passes -----------------------------------------------------------------------------------

    def apply(self) -> None:
        """One pass over all that are dirty (updateWEPsInDataplane)."""
        workloads = self._workloads()
        for interface in sorted(self.dirty):
            self._apply(interface, workloads.get(interface))
        self.gauges.endpoints = len(self._ifindexes)
        self.gauges.dirty = len(self.dirty)
        self.gauges.happy = len(self._happy)
        if self.dirty and time.monotonic() - self._said_dirty_at > _SAID_ONCE_IN:
            self._said_dirty_at = time.monotonic()
            for interface in sorted(self.dirty):
                self._messages.remains_dirty(interface)

    def _workloads(self) -> dict[str, str]:
        path = self._config.workloads
        found: dict[str, str] = json.loads(path.read_text()) if path and path.exists() else {}
        return found

    def _apply(self, interface: str, workload: str | None) -> None:
        start = time.monotonic()
        was_happy = interface in self._happy
        try:
            self._pass(interface)
        except FelixError as error:
            self._happy.discard(interface)
            if not _exists(interface):  # it goes in the middle of a pass, and from the list next
                self.dirty.discard(interface)
                return
            self._messages.left_dirty(interface, workload, str(error), was_happy)
            return
        self.dirty.discard(interface)
        if workload:
            self._happy.add(interface)
        news = workload is not None and not was_happy
        self._messages.applied(interface, workload, time.monotonic() - start, news)

    def _pass(self, interface: str) -> None:
        fault = faults.read(self._config.faults)
        program = "missing.o" if fault.fails(interface) else "allow.o"
        felix = Felix(self._behaviour, self._config.objects / program, self._watch)
        felix.apply_policy(interface, _order(fault.kills(interface)))

    def _watch(self, interface: str, hook: str, point: Point) -> None:
        if point is Point.ADDED:
            self._messages.attached(interface, hook, self._behaviour)
        fault = faults.read(self._config.faults)
        kill = fault.kills(interface)
        first = hook == _order(kill)[0]
        if kill and hook == kill.hook and point is _POINTS[kill.point]:
            self._kill()
        if point is Point.COMPLETE and first:
            time.sleep(fault.pass_delay)

    def _kill(self) -> None:
        path: Path | None = self._config.faults
        if path:
            faults.without_kill(path)
        os.kill(os.getpid(), signal.SIGKILL)


_POINTS = {"between_hooks": Point.COMPLETE, "after_add": Point.ADDED}
#: Felix limits the rate of that line.
_SAID_ONCE_IN = 30.0


def _order(kill: faults.KillInPass | None) -> tuple[str, ...]:
    """Felix does both at once: either may be ahead. The fault says which one is."""
    if kill is None:
        return HOOKS
    ahead = (kill.hook == "ingress") == (kill.point == "between_hooks")
    return HOOKS if ahead else HOOKS[::-1]


def _exists(interface: str) -> bool:
    return interface in (name for _index, name in socket.if_nameindex())
