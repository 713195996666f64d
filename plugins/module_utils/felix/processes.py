# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which processes run on the node, from /proc: Felix, ``tc``, and who owns a netlink port."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")
#: The kernel names a process's first socket by its process id; more than this is no process id
#: (PID_MAX_LIMIT), but a number drawn for a further socket.
_MOST_PID = 1 << 22
#: A new process is its parent's twin until it executes its own program: this often it is read anew.
_LOOKS = 3
#: A pod's cgroup: pod<uid> by the kubelet's cgroupfs driver, kubepods-burstable-pod<uid>.slice with
#: underscores in the uid by its systemd driver (pkg/kubelet/cm in Kubernetes).
_POD_CGROUP = re.compile(r"[/-]pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})\b")


@dataclass(frozen=True)
class Felix:
    """``pod_uid`` is None where the process is in no pod's cgroup."""

    pid: int
    age_seconds: float
    #: Seconds of CPU time since it began, its own threads' only.
    cpu_seconds: float
    pod_uid: str | None = None


@dataclass(frozen=True)
class Process:
    pid: int
    name: str


@dataclass(frozen=True)
class Tc:
    """``most`` and ``oldest_seconds`` over all looks, ``now`` and ``pids`` at the last."""

    now: int
    most: int
    oldest_seconds: float
    pids: tuple[int, ...]


def felixes() -> list[Felix]:
    """Every Felix of the node, in whatever container it runs.

    A process that has died but was not waited for yet has no arguments, so it is none; nor is a
    child of Felix's that has not yet become the ``tc`` it is meant to be.
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
    """The uid of the pod that /proc/PID/cgroup names, the innermost where pods are nested."""
    uids = _POD_CGROUP.findall(cgroups)
    return uids[-1].replace("_", "-") if uids else None


def _pod_uid(pid: int) -> str | None:
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
        return pod_uid_in(file.read())


def is_felix(argv: list[str]) -> bool:
    """By node/filesystem/etc/service/available/felix/run: ``calico-node -felix``.

    The probes' ``calico-node -felix-ready`` is none. After v3.32 there is one program for all,
    ``calico component felix``.
    """
    program, arguments = argv[0].rpartition("/")[2], argv[1:]
    if program == "calico":
        return arguments[:2] == ["component", "felix"]
    return program == "calico-node" and ("-felix" in arguments or "--felix" in arguments)


class _SeenProcess(NamedTuple):
    #: How often it was read.
    looks: int
    name: str
    #: The process id in its own pid namespace.
    inner: int
    #: Whether it is in our network namespace, and so may have changed something there.
    here: bool | None


class Sampler:
    """Looks at all processes now and then; what lives for less than two looks is not seen."""

    def __init__(self) -> None:
        self._netns = os.readlink("/proc/thread-self/ns/net")
        #: By process id.
        self._seen: dict[int, _SeenProcess] = {}
        self._most = 0
        self._oldest = 0.0
        self._tc: dict[int, float] = {}

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
        """Whether it is in our network namespace; None where we may not know."""
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
        """Who has a netlink port of this network namespace, as far as it was seen.

        The port is the process id in the process's own pid namespace (task_tgid_vnr in
        net/netlink/af_netlink.c), so two containers may have the same: both names then, with "or".

        :returns: the name of a process; ``gone`` where none with that number was seen; ``unknown``
            for a number that tells nothing; ``kernel``.
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
