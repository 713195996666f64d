# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbered packets through an endpoint, and an endpoint whose hooks fall out of step under traffic.

One stream a hook: from the pod through ingress, to the pod through egress. The packets' numbers
identify lost and duplicated ones, and the programs' counters those that met no program.
"""

from __future__ import annotations

import json
import mmap
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from pyroute2 import netns as pyroute2_netns

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.audit import (
    AuditMode,
    AuditOptions,
    audit,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.repair import Outcome
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.netlink import TcSocket
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.snapshot import Reader
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import Behaviour, Policy
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab, run

HOOKS = ("ingress", "egress")
#: As argspec.policy makes it of calico_version=auto.
AUTO = Policy(
    Behaviour.ADD_THEN_DELETE,
    also_safe_for=(
        Behaviour.ADD_WITHOUT_COMPARE,
        Behaviour.REPLACE_AND_COMPARE,
        Behaviour.REPLACE,
    ),
)


def until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait for ``condition``; it fails as ``what`` where that takes suspiciously long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"still not so after {seconds} s: {what}")
        time.sleep(0.0002)


# --- streams --------------------------------------------------------------------------------------


class Board:
    """What udp.c and a test share: struct board."""

    _FIELDS = ("order", "ready", "paused", "sent", "received", "duplicates")
    _SIZE = 8 * len(_FIELDS) + (1 << 26) // 8
    RUN, PAUSE, QUIT = range(3)

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("wb+") as file:
            file.truncate(self._SIZE)
            self._map = mmap.mmap(file.fileno(), self._SIZE)

    def get(self, field: str) -> int:
        return int(struct.unpack_from("=Q", self._map, 8 * self._FIELDS.index(field))[0])

    def order(self, order: int) -> None:
        struct.pack_into("=Q", self._map, 8 * self._FIELDS.index("order"), order)


class Stream:
    """Packets from one namespace to another through one hook; at first it is paused."""

    def __init__(
        self,
        binary: Path,
        folder: Path,
        sender: Sequence[str],
        receiver: Sequence[str],
        address: str,
        port: int,
    ) -> None:
        """``sender`` and ``receiver``: the words that run a command there."""
        self._sending, self._receiving = Board(folder / f"s{port}"), Board(folder / f"r{port}")
        self._sending.order(Board.PAUSE)
        self._processes: list[subprocess.Popen[bytes]] = []
        for verb, inside, board in (
            ("receive", receiver, self._receiving),
            ("send", sender, self._sending),
        ):
            words = [*inside, str(binary), verb, str(board.path)]
            self._processes.append(subprocess.Popen([*words, address, str(port)]))
            until(lambda board=board: board.get("ready") == 1, f"udp {verb} is ready")  # type: ignore[misc]

    @property
    def sent(self) -> int:
        return self._sending.get("sent")

    @property
    def received(self) -> int:
        return self._receiving.get("received")

    @property
    def duplicates(self) -> int:
        return self._receiving.get("duplicates")

    def start(self) -> None:
        """(Re)start it, and wait until it has."""
        self._sending.order(Board.RUN)
        until(lambda: self._sending.get("paused") == 0, "the sender resumes")

    def pause(self) -> None:
        """Afterwards ``sent`` is exact and stays."""
        self._sending.order(Board.PAUSE)
        until(lambda: self._sending.get("paused") == 1, "the sender pauses")

    def flow(self, packets: int) -> None:
        """Wait until so many more packets were sent."""
        enough = self.sent + packets
        until(lambda: self.sent >= enough, f"{packets} more packets sent")

    def close(self) -> None:
        for board in (self._sending, self._receiving):
            board.order(Board.QUIT)
        for process in self._processes:
            try:
                process.wait(10)
            finally:
                process.kill()
                process.wait()


@contextmanager
def streams(lab: Lab, interface: str) -> Iterator[dict[str, Stream]]:
    """A paused stream for each hook of an endpoint, whose pod gets a namespace of its own.

    Both ends know each other's address beforehand: no packet but the streams' meets a hook.
    """
    index = lab.ifindex(interface)
    host, guest, pod = f"10.77.{index}.1", f"10.77.{index}.2", f"{lab.netns}-pod{index}"
    pyroute2_netns.create(pod)
    try:
        with TemporaryDirectory() as folder, ExitStack() as closing:
            _wire(lab, interface, pod, host, guest)
            binary, here = udp_binary(lab.objects), Path(folder)
            node, inside = _in(lab.netns), _in(pod)
            made = {
                "ingress": Stream(binary, here, inside, node, host, 7000 + index),
                "egress": Stream(binary, here, node, inside, guest, 8000 + index),
            }
            for stream in made.values():
                closing.callback(stream.close)
            yield made
    finally:
        pyroute2_netns.remove(pod)


def _wire(lab: Lab, interface: str, pod: str, host: str, guest: str) -> None:
    peer = f"p{interface[-14:]}"
    lab.ip("link", "set", peer, "netns", pod)
    for netns, device, own, other in (
        (lab.netns, interface, host, guest),
        (pod, peer, guest, host),
    ):
        ip = ("nsenter", f"--net=/run/netns/{netns}", "ip")
        mac = {host: "02:00:00:00:00:01", guest: "02:00:00:00:00:02"}
        run(*ip, "link", "set", device, "address", mac[own])
        run(*ip, "addr", "add", f"{own}/24", "dev", device)
        off = f"net.ipv6.conf.{device}.disable_ipv6=1"
        run("nsenter", f"--net=/run/netns/{netns}", "sysctl", "-qw", off)
        run(*ip, "link", "set", device, "up")
        permanent = ("lladdr", mac[other], "dev", device, "nud", "permanent")
        run(*ip, "neigh", "add", other, *permanent)


def _in(netns: str) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{netns}"]


def udp_binary(folder: Path) -> Path:
    """udp.c, compiled there once."""
    binary = folder / "udp"
    if not binary.exists():
        source = str(Path(__file__).with_name("udp.c"))
        run("gcc", "-O2", "-Wall", "-Wextra", "-Werror", source, "-o", str(binary))
    return binary


# --- out of step ----------------------------------------------------------------------------------


class Place(NamedTuple):
    """One filter of a drift; ``program`` is one of ``Stage``'s."""

    priority: int = 49152
    handle: int = 1
    program: str = "newer"
    direct_action: bool = True
    protocol: str = "all"
    chain: int = 0


@dataclass(frozen=True)
class Drift:
    """A mismatch: both hooks' filters in the order in which packets meet them.

    ``writes``: the number of writes of its repair, which identifies the plan.
    """

    ingress: tuple[Place, ...]
    egress: tuple[Place, ...]
    writes: int
    #: Each hook with a filter enforces before the repair.
    enforced: bool = True
    policy: Policy = AUTO

    def at(self, hook: str) -> tuple[Place, ...]:
        return self.ingress if hook == "ingress" else self.egress


_ONE, _TWO = Place(), Place(handle=2)
CONSISTENT = Drift((_ONE,), (_ONE,), 0)

#: Every kind of drift that a repair fixes with the endpoint's own filters.
DRIFTS = {
    "handles 1 and 2": Drift((_ONE,), (_TWO,), 2),
    "handles 2 and 1": Drift((_TWO,), (_ONE,), 2),
    "priorities 49151 and 49152": Drift((Place(49151),), (_ONE,), 2),
    "priorities 49152 and 49151": Drift((_ONE,), (Place(49151),), 2),
    # Felix killed between its add and its delete.
    "duplicate": Drift((_TWO, Place(program="older")), (_ONE,), 2),
    "same program twice": Drift((_TWO, _ONE), (_ONE,), 1),
    "stale program at the head": Drift((Place(handle=2, program="older"), _ONE), (_ONE,), 1),
    "stale program at a lower priority": Drift((Place(10, program="older"), _ONE), (_ONE,), 1),
    "foreign program at 49152": Drift((Place(49151), Place(program="foreign")), (_ONE,), 2),
    # Its place is taken until it is deleted, so the program waits beside it; and the streams
    # are IPv4, so it enforces for them.
    "detour past protocol ip": Drift((Place(protocol="ip"),), (_ONE,), 4),
    "detour past protocol ip at egress": Drift((_ONE,), (Place(protocol="ip"),), 4),
    "add_then_delete without egress": Drift(
        (_ONE,), (), 2, policy=Policy(Behaviour.ADD_THEN_DELETE)
    ),
    "add_then_delete without ingress": Drift(
        (), (_ONE,), 2, policy=Policy(Behaviour.ADD_THEN_DELETE)
    ),
    # From here on the hook enforces nothing until its first write.
    "wrong protocol": Drift((Place(protocol="arp"),), (_ONE,), 4, enforced=False),
    "wrong chain": Drift((Place(chain=5),), (_ONE,), 2, enforced=False),
    "not direct-action": Drift((_ONE._replace(direct_action=False),), (_ONE,), 1, enforced=False),
}


class Stage:
    """An endpoint whose filters can be set again at any time without a packet missing them.

    Each hook has programs of its own: ``older`` and ``newer`` of the variant, a ``foreign`` one
    that leaves the verdict to others, and the ``guard`` that stands in while filters are set out.
    """

    def __init__(self, lab: Lab, interface: str, variant: str) -> None:
        self.lab = lab
        self.interface = lab.endpoint(interface)
        self._pins = {hook: self._load(variant) for hook in HOOKS}
        self.program_ids = {
            hook: {name: _program_id(pin) for name, pin in pins.items()}
            for hook, pins in self._pins.items()
        }
        self.set_out(CONSISTENT)

    def _load(self, variant: str) -> dict[str, str]:
        pins = {name: self.lab.pin(variant) for name in ("guard", "older", "newer")}
        return {**pins, "foreign": self.lab.pin("foreign", "cil_from_container")}

    def set_out(self, drift: Drift) -> None:
        """Under the eyes of a guard that runs before all else until everything stands."""
        guard = Place(1, program="guard")
        lines = []
        for hook in HOOKS:
            lines.append(self._add(hook, guard))
            for f in self.lab.filters(self.interface, hook):
                lines.append(self._delete(hook, f.priority, f.handle, f.chain))
            lines += [self._add(hook, place) for place in reversed(drift.at(hook))]
        lines += [self._delete(hook, *guard[:2]) for hook in HOOKS]
        self.batch(lines)

    def batch(self, lines: list[str]) -> None:
        """Lines for ``tc -batch``, which are about 50 us apart."""
        words = ["nsenter", f"--net=/run/netns/{self.lab.netns}", "tc", "-batch", "-"]
        done = subprocess.run(
            words, input="\n".join(lines), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{done.stderr}\n{lines}")

    def _add(self, hook: str, place: Place) -> str:
        where = self._where(place.priority, place.handle, place.chain)
        pin = self._pins[hook][place.program]
        direct_action = " direct-action" if place.direct_action else ""
        return (
            f"filter add dev {self.interface} {hook} protocol {place.protocol} {where} bpf "
            f"object-pinned {pin}{direct_action}"
        )

    def _delete(self, hook: str, priority: int, handle: int, chain: int = 0) -> str:
        return f"filter del dev {self.interface} {hook} {self._where(priority, handle, chain)} bpf"

    @staticmethod
    def _where(priority: int, handle: int, chain: int) -> str:
        return (f"chain {chain} " if chain else "") + f"pref {priority} handle {handle:#x}"

    def delete_then_add(self, hook: str) -> None:
        """What no repair does."""
        self.batch([self._delete(hook, *_ONE[:2]), self._add(hook, _ONE)])

    def met(self, hook: str) -> int:
        """How many packets Calico's programs of a hook have met, by their own counters."""
        programs = self.program_ids[hook].items()
        return sum(self.lab.packets(number) for name, number in programs if name != "foreign")

    def repair(
        self,
        policy: Policy = AUTO,
        tc_socket: Callable[[], TcSocket] = TcSocket,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Outcome:
        """What qdisc_consistency does with this endpoint, in this process."""
        order = AuditOptions(
            (self.interface,), policy=policy, mode=AuditMode.REPAIR, settle=0, managed=True
        )
        with entered(self.lab.netns), tc_socket() as tc:
            audited = audit(order, tc, Reader(tc), sleep)
        if audited.error:
            raise audited.error
        return audited.outcomes[0]


def _program_id(pin: str) -> int:
    return int(json.loads(run("bpftool", "-j", "prog", "show", "pinned", pin))["id"])
