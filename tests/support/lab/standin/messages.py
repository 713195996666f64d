# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Felix's log lines, word for word, in a container's log file.

Each as the code of its release writes it (felix/dataplane/linux/bpf_ep_mgr.go, felix/bpf/tc,
felix/daemon, libcalico-go/lib/health) in the form of libcalico-go/lib/logutils/logutils.go. The
line numbers are those of v3.29.1 throughout; they differ with each release.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.tests.support.felix.libbpf import HOOKS
from ansible_collections.dataplane.calico_bpf.tests.support.felix.releases import Behaviour, Release

#: The node's address, as a documentation would have it (RFC 5737).
HOST_IP = "192.0.2.1"


class Messages:
    """Written at once, one line a message; a message of several lines is several in the file."""

    def __init__(self, path: Path, release: Release) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._release = release
        self._lock = threading.Lock()

    def _write(self, level: str, place: str, message: str, **fields: str) -> None:
        """``place``: file and line; ``fields``: as they are to appear."""
        now = time.time_ns()
        seconds = time.gmtime(now // 10**9)
        stamp = f"{time.strftime('%Y-%m-%d %H:%M:%S', seconds)}.{now // 10**6 % 1000:03d}"
        words = [f"{stamp} [{level}][{os.getpid()}] felix/{place}: {message}"]
        words += [f"{key}={fields[key]}" for key in sorted(fields)]
        date = f"{time.strftime('%Y-%m-%dT%H:%M:%S', seconds)}.{now % 10**9:09d}Z"
        lines = "".join(f"{date} stdout F {line}\n" for line in " ".join(words).split("\n"))
        with self._lock:
            os.write(self._file, lines.encode())

    # --- the process ------------------------------------------------------------------------------

    def starting_up(self, version: str) -> None:
        self._write(
            "INFO", "daemon.go 132", "Felix starting up",
            version=_quoted(version), builddate=_quoted("2026-01-01T00:00:00+0000"),
            gitcommit=_quoted("0" * 40), GOMAXPROCS=str(os.cpu_count()),
        )  # fmt: skip

    def endpoint_failed(self, what: str, error: str) -> None:
        place = "health.go 395" if what == "Health" else "prommetrics.go 60"
        text = f"{what} endpoint failed, trying to restart it..."
        self._write("ERROR", place, text, error=error)

    def component_changed(self, name: str, new: str, old: str) -> None:
        fields = {"name": name, "newReport": new, "oldReport": old}
        quoted = {key: _quoted(value) for key, value in fields.items()}
        self._write("INFO", "health.go 206", "Health of component changed", **quoted)

    def health_changed(self, live: bool, ready: bool, table: str) -> None:
        changed = f"Overall health status changed: live={_bool(live)} ready={_bool(ready)}"
        self._write("INFO", "health.go 336", f"{changed}\n{table}")

    # --- the dataplane ----------------------------------------------------------------------------

    def host_ip_changed(self) -> None:
        node = f"hostname:{_quoted(os.uname().nodename)} ipv4_addr:{_quoted(HOST_IP)}"
        self._write(
            "INFO", "bpf_ep_mgr.go 840", f"Host IP changed: {HOST_IP}",
            HostMetadataV4V6Update=self._proto(node),
        )  # fmt: skip

    def interface_changed(self, interface: str, ifindex: int, state: str) -> None:
        self._write(
            "INFO", "int_dataplane.go 1430", "Linux interface state changed.",
            ifIndex=str(ifindex), ifaceName=_quoted(interface), state=_quoted(state),
        )  # fmt: skip

    def attached(self, interface: str, hook: str, behaviour: Behaviour) -> None:
        known = {Behaviour.REPLACE: "tc", Behaviour.TCX: "tcx"}
        place = f"Hook:{HOOKS.index(hook)}, PolicyIdxV4:0, PolicyIdxV6:0, Iface:" + _quoted(
            interface
        )
        point = f'bpf.AttachPoint{{{place}, LogLevel:"off"}}'
        self._write(
            "INFO", "attach.go 173", f"Program attached to {known.get(behaviour, 'TC')}.",
            attachPoint=f"&tc.AttachPoint{{AttachPoint:{point}}}",
        )  # fmt: skip

    def applied(self, interface: str, workload: str | None, seconds: float, news: bool) -> None:
        """``news``: it was not in the allow list before."""
        self._write(
            "INFO", "bpf_ep_mgr.go 2387", "Finished applying BPF programs for workload",
            ifaceName=_quoted(interface), timeTaken=f"{seconds * 1000:.6f}ms",
        )  # fmt: skip
        quoted = _quoted(interface)
        self._write("INFO", "bpf_ep_mgr.go 2032", "Updated workload interface.", iface=quoted)
        if news:
            text = "Adding workload interface to iptables allow list."
            self._write("INFO", "bpf_ep_mgr.go 2038", text, id=self._id(workload), iface=quoted)

    def left_dirty(self, interface: str, workload: str | None, error: str, news: bool) -> None:
        """``news``: it was in the allow list before."""
        if news:
            text = "Failed to add policy to workload, removing from iptables allow list"
            package = "proto" if self._is_before_3_30 else "types"
            identity = f"{package}.WorkloadEndpointID{_struct(workload)}"
            self._write("WARNING", "bpf_ep_mgr.go 2048", text, id=identity, error=error)
        self._write(
            "WARNING", "bpf_ep_mgr.go 2063", "Failed to apply policy to endpoint, leaving it dirty",
            error=error, name=_quoted(interface), wepID=self._id(workload),
        )  # fmt: skip

    def remains_dirty(self, interface: str) -> None:
        name = _quoted(interface)
        self._write("INFO", "bpf_ep_mgr.go 1722", "Interface remains dirty.", name=name)

    # --- values -----------------------------------------------------------------------------------

    @property
    def _is_before_3_30(self) -> bool:
        return self._release < (3, 30)

    def _proto(self, text: str) -> str:
        """gogo's String() ends with a blank, that of Google's generator does not."""
        return f"{text} " if self._is_before_3_30 else text

    def _id(self, workload: str | None) -> str:
        """A pointer to a WorkloadEndpointID: a message with String() up to 3.29, then a struct."""
        if self._is_before_3_30:
            names = f'orchestrator_id:"k8s" workload_id:"{workload}" endpoint_id:"eth0"'
            return self._proto(names) if workload else "<nil>"
        if not workload:
            return "(*types.WorkloadEndpointID)(nil)"
        return f"&types.WorkloadEndpointID{_struct(workload)}"


def _struct(workload: str | None) -> str:
    return f'{{OrchestratorId:"k8s", WorkloadId:"{workload}", EndpointId:"eth0"}}'


def _quoted(text: str) -> str:
    return f'"{text}"'


def _bool(value: bool) -> str:
    return str(value).lower()
