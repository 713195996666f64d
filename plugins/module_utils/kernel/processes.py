# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find processes of the node in /proc: Felix, ``tc``, and the owner of a netlink port."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .syscalls import calling

_TICKS = os.sysconf("SC_CLK_TCK")
#: The port of a process's first netlink socket is its process id; a larger number than this
#: (PID_MAX_LIMIT) is the port of a further socket.
_MOST_PID = 1 << 22
#: A new process has its parent's name until it executes its own program: read it this often.
_LOOKS = 3
#: A pod's cgroup: pod<uid> by the kubelet's cgroupfs driver, kubepods-burstable-pod<uid>.slice with
#: underscores in the uid by its systemd driver (pkg/kubelet/cm in Kubernetes).
_POD_CGROUP = re.compile(r"[/-]pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})\b")


@dataclass(frozen=True)
class Felix:
    """``pod_uid`` is None if the process is not in the cgroup of a pod."""

    pid: int
    age_seconds: float
    #: Seconds of CPU time of its own threads since it started.
    cpu_seconds: float
    pod_uid: str | None = None


@dataclass(frozen=True)
class Process:
    pid: int
    name: str


@dataclass(frozen=True)
class Tc:
    """``most`` and ``oldest_seconds`` are of all samples, ``now`` and ``pids`` of the last."""

    now: int
    most: int
    oldest_seconds: float
    pids: tuple[int, ...]


@calling("read the processes in /proc")
def felixes() -> list[Felix]:
    """Every Felix of the node, in any container.

    A zombie has no arguments, so it does not count. A child of Felix that has not yet executed
    ``tc`` does not count either.
    """
    found: dict[int, Felix] = {}
    parents: dict[int, int] = {}
    for pid in sorted(_pids()):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                argv = file.read().decode(errors="replace").split("\0")
            if is_felix(argv):
                fields = _stat(pid)
                cpu = (int(fields[11]) + int(fields[12])) / _TICKS
                found[pid] = Felix(pid, round(_age(fields), 1), cpu, _pod_uid(pid))
                parents[pid] = int(fields[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return [felix for pid, felix in found.items() if parents[pid] not in found]


@calling("read the processes in /proc")
def processes_of_pod(uid: str) -> list[Process]:
    """The processes in the cgroup of the pod with this uid, without those that have ended."""
    found = []
    for pid in sorted(_pids()):
        try:
            if _pod_uid(pid) != uid or _stat(pid)[0] in ("Z", "X"):
                continue
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                found.append(Process(pid, file.read().rstrip("\n")))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def pod_uid_in(cgroups: str) -> str | None:
    """The uid of the pod in /proc/PID/cgroup, the innermost if pods are nested."""
    uids = _POD_CGROUP.findall(cgroups)
    return uids[-1].replace("_", "-") if uids else None


def _pod_uid(pid: int) -> str | None:
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
        return pod_uid_in(file.read())


def is_felix(argv: list[str]) -> bool:
    """By node/filesystem/etc/service/available/felix/run: ``calico-node -felix``.

    ``calico-node -felix-ready`` is a probe, not Felix. After v3.32 all components are one program:
    ``calico component felix``.
    """
    program, arguments = argv[0].rpartition("/")[2], argv[1:]
    if program == "calico":
        return arguments[:2] == ["component", "felix"]
    return program == "calico-node" and ("-felix" in arguments or "--felix" in arguments)


class _SeenProcess(NamedTuple):
    #: The number of times that it was read.
    looks: int
    name: str
    #: The process id in its own pid namespace.
    inner: int
    #: Whether it is in our network namespace, and so can change filters there.
    here: bool | None


class Sampler:
    """Samples all processes; a process that lives between two samples is not seen."""

    def __init__(self) -> None:
        self._netns = os.readlink("/proc/thread-self/ns/net")
        #: By process id.
        self._seen: dict[int, _SeenProcess] = {}
        self._most = 0
        self._oldest = 0.0
        self._tc: dict[int, float] = {}

    @calling("read the processes in /proc")
    def look(self) -> None:
        alive = set(_pids())
        for pid in alive:
            looks = self._seen[pid].looks if pid in self._seen else 0
            if looks < _LOOKS:
                self._read(pid, looks + 1)
        self._tc = {}
        for pid in alive:
            if pid in self._seen and self._seen[pid].name == "tc":
                self._look_at_tc(pid)
        self._most = max(self._most, len(self._tc))
        self._oldest = max([self._oldest, *self._tc.values()])

    def _read(self, pid: int, looks: int) -> None:
        try:
            with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
                status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
            here = self._is_here(pid)
        except (FileNotFoundError, ProcessLookupError):
            return
        inner = int(status.get("NSpid", str(pid)).split()[-1])
        self._seen[pid] = _SeenProcess(looks, status["Name"], inner, here)

    def _is_here(self, pid: int) -> bool | None:
        """Whether it is in our network namespace; None without the privilege to read it."""
        try:
            return os.readlink(f"/proc/{pid}/ns/net") == self._netns
        except PermissionError:
            return None

    def _look_at_tc(self, pid: int) -> None:
        try:
            fields = _stat(pid)
        except (FileNotFoundError, ProcessLookupError):
            return
        if fields[0] not in ("Z", "X"):
            self._tc[pid] = _age(fields)

    @property
    def tc(self) -> Tc:
        pids = tuple(sorted(self._tc))
        return Tc(len(pids), self._most, round(self._oldest, 1), pids)

    def owner(self, port: int) -> str:
        """The process that owns a netlink port of this network namespace, if it was sampled.

        The port is the process id in the process's own pid namespace (task_tgid_vnr in
        net/netlink/af_netlink.c), so processes of two containers may have the same: the result is
        then both names, joined by "or".

        :returns: the name of a process; ``gone`` if no process with that number was sampled;
            ``unknown`` for a number that is not a process id; ``kernel``.
        """
        if port == 0:
            return "kernel"
        if port > _MOST_PID:
            return "unknown"
        same = [seen for seen in self._seen.values() if seen.inner == port]
        here = [seen for seen in same if seen.here] or [seen for seen in same if seen.here is None]
        return " or ".join(sorted({seen.name for seen in here})) or "gone"


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _stat(pid: int) -> list[str]:
    """The fields of proc(5)'s stat from the third on; the second, a name, may hold anything."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def _age(fields: list[str]) -> float:
    with open("/proc/uptime", encoding="ascii") as file:
        return max(0.0, float(file.read().split()[0]) - int(fields[19]) / _TICKS)
