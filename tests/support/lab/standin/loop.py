# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Felix's main loop: what has changed, what is due, what its health is."""

from __future__ import annotations

import time
from typing import NoReturn

from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin import faults
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin.config import Config
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin.endpoints import Endpoints
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin.health import Health
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin.messages import Messages
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin.process import (
    Burner,
    HeldTc,
)

#: Seconds between two looks at the interfaces, the Node and the faults.
_LOOKS = 0.2


class Loop:
    def __init__(
        self, config: Config, messages: Messages, health: Health, endpoints: Endpoints
    ) -> None:
        self._config = config
        self._messages = messages
        self._health = health
        self._endpoints = endpoints
        self._held = HeldTc()
        self._burner = Burner()
        self._heartbeat = 0
        self._retry_at = 0.0

    def run(self) -> NoReturn:
        in_sync = False
        while True:
            fault = faults.read(self._config.faults)
            self._held.hold(fault.hold_tc)
            self._burner.burn(fault.burn)
            self._health.report("CalculationGraph", not fault.never_ready)
            in_sync = in_sync or not fault.never_ready
            if in_sync:
                self._turn(fault)
            time.sleep(_LOOKS)

    def _turn(self, fault: faults.Faults) -> None:
        due = self._endpoints.look()
        due |= self._endpoints.make_dirty(fault)
        due |= self._beat(fault)
        due |= bool(self._endpoints.dirty) and time.monotonic() >= self._retry_at
        if due or not self._retry_at:
            self._endpoints.apply()
            self._retry_at = time.monotonic() + self._config.retry
        self._health.report("InternalDataplaneMainLoop", True)
        detail = "Failed to configure some interfaces." if self._endpoints.dirty else ""
        self._health.report("BPFEndpointManager", not self._endpoints.dirty, detail)

    def _beat(self, fault: faults.Faults) -> bool:
        """Look at the Node; True where all endpoints are to be programmed again."""
        last = self._last_heartbeat()
        if last == self._heartbeat:
            return False
        self._heartbeat = last
        self._messages.host_ip_changed()
        if not (self._config.release.churns or fault.churn):
            return False
        self._endpoints.make_all_dirty()
        return True

    def _last_heartbeat(self) -> int:
        path = self._config.heartbeat
        return path.stat().st_mtime_ns if path and path.exists() else 0
