# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbered packets between two pods of a lab node, and which of Calico's programs they met.

A packet from one pod to the other meets two hooks: ingress of its sender's interface, egress of its
receiver's. All programs that are ever attached there are held open, so that their counters stay.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel import bpf
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.tc_monitor import TcWatch
from ansible_collections.dataplane.calico_bpf.tests.demo.stage import unhurried
from ansible_collections.dataplane.calico_bpf.tests.support.lab.node import (
    Node,
    interface_of,
    netns_of,
)
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import packets_met
from ansible_collections.dataplane.calico_bpf.tests.support.traffic.traffic import (
    HOOKS,
    Stream,
    udp_binary,
    until,
)

_GATEWAY = "169.254.1.1"
_PORT = 7000
Hook = tuple[str, str]  # interface and ingress or egress


@dataclass(frozen=True)
class Count:
    """What became of the packets from one pod to another."""

    node: str
    #: Interfaces.
    sender: str
    receiver: str
    sent: int
    received: int
    doubled: int
    #: Packets that Calico's programs met, at each of the two hooks on the way.
    met: tuple[int, int]

    @property
    def lost(self) -> int:
        return self.sent + self.doubled - self.received

    @property
    def bypassed(self) -> int:
        """Those that were not seen at one of the hooks, at the least."""
        return self.sent - min(self.met)


class Programs:
    """Opens each program that is attached at some interfaces of a node, at once.

    A program stays attached at least until Felix's next pass, much longer than the kernel's
    notification takes.
    """

    def __init__(self, node: Node, interfaces: tuple[str, ...]) -> None:
        self._names = {
            int(json.loads(node.exec("ip", "-json", "link", "show", name))[0]["ifindex"]): name
            for name in interfaces
        }
        self._held: dict[Hook, dict[int, int]] = {(i, h): {} for i in interfaces for h in HOOKS}
        #: Programs that were gone before they could be held: what they met is not known.
        self.missed: list[int] = []
        with entered(f"/proc/{node.pid}/ns/net"):
            self._watch = TcWatch()
        for interface in interfaces:
            for hook, filters in node.filters(interface).items():
                for each in filters:
                    self._hold((interface, hook), each.program_id)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"programs-{node.name}")
        self._thread.start()

    def _follow(self) -> None:
        while not self._ending.is_set():
            for change in self._watch.changes(0.1):
                if change.added and change.ifindex in self._names:
                    where = self._names[change.ifindex], change.hook.value
                    self._hold(where, change.added[5])

    def _hold(self, where: Hook, program_id: int) -> None:
        if program_id in self._held[where]:
            return
        try:
            self._held[where][program_id] = bpf.program_fd(program_id)
        except OSError:
            self.missed.append(program_id)

    def met(self, where: Hook) -> int:
        return sum(map(packets_met, self._held[where]))

    @property
    def complete(self) -> bool:
        """Whether no program was missed."""
        return not self.missed and not self._watch.overrun

    def close(self) -> None:
        self._ending.set()
        self._thread.join()
        self._watch.close()
        for held in self._held.values():
            for fd in held.values():
                os.close(fd)


class Traffic:
    """Packets both ways between two pods of one node."""

    def __init__(self, node: Node, pods: tuple[str, str], streams: Mapping[str, Stream]) -> None:
        self._node = node.name
        self._interfaces = {pod: interface_of(*pod.split("/")) for pod in pods}
        self._streams = streams
        self._pods = pods
        self.programs = Programs(node, tuple(self._interfaces.values()))
        self._before = {sender: self._met(sender) for sender in pods}
        for stream in streams.values():
            stream.start()

    def _other(self, pod: str) -> str:
        return next(other for other in self._pods if other != pod)

    def _met(self, sender: str) -> tuple[int, int]:
        at = self._interfaces
        first, last = (at[sender], "ingress"), (at[self._other(sender)], "egress")
        return self.programs.met(first), self.programs.met(last)

    def end(self) -> list[Count]:
        """Hold the senders, let the packets under way arrive, and count."""
        for stream in self._streams.values():
            stream.pause()
        return [self._count(sender, stream) for sender, stream in self._streams.items()]

    def _count(self, sender: str, stream: Stream) -> Count:
        with suppress(AssertionError):  # then they are lost, and counted so
            until(lambda: stream.received >= stream.sent, "arrival", 5)
        met = [now - then for now, then in zip(self._met(sender), self._before[sender])]
        return Count(
            self._node, self._interfaces[sender], self._interfaces[self._other(sender)],
            stream.sent, stream.received, stream.duplicates, (met[0], met[1]),
        )  # fmt: skip


@contextmanager
def traffic(node: Node, folder: Path) -> Iterator[Traffic]:
    """Packets both ways between the first two pods that no drain takes away; it runs at once."""
    first, second = sorted(pod for pod in node.addresses if pod.startswith("demo/agent-"))[:2]
    for pod in (first, second):
        _introduce(node, pod)
    with TemporaryDirectory(dir=folder) as boards, ExitStack() as stack:
        streams = {}
        for number, (sender, receiver) in enumerate(((first, second), (second, first))):
            address, ways = node.addresses[receiver], (_in(node, sender), _in(node, receiver))
            with unhurried():
                stream = Stream(udp_binary(folder), Path(boards), *ways, address, _PORT + number)
            stack.callback(stream.close)
            streams[sender] = stream
        made = Traffic(node, (first, second), streams)
        stack.callback(made.programs.close)
        yield made


def _in(node: Node, pod: str) -> list[str]:
    return node.words("nsenter", f"--net=/run/netns/{netns_of(*pod.split('/'))}")


def _introduce(node: Node, pod: str) -> None:
    """Tell node and pod each other's addresses, so that only the packets meet the programs."""
    interface = interface_of(*pod.split("/"))
    at_node = json.loads(node.exec("ip", "-json", "link", "show", interface))[0]["address"]
    show = ("ip", "-json", "link", "show", "eth0")
    at_pod = json.loads(node.pod_exec(*pod.split("/"), *show))[0]["address"]
    neighbour = ("ip", "neigh", "replace")
    to_pod = (node.addresses[pod], "lladdr", at_pod, "dev", interface, "nud", "permanent")
    node.exec(*neighbour, *to_pod)
    to_node = (_GATEWAY, "lladdr", at_node, "dev", "eth0", "nud", "permanent")
    node.pod_exec(*pod.split("/"), *neighbour, *to_node)
