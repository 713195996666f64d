# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The endpoints of a whole node in their own namespace, built quickly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel import bpf
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.netlink import TcSocket
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.snapshot import Reader
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import Endpoint, Hook
from ansible_collections.dataplane.calico_bpf.tests.support.felix import libbpf
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab, new_lab

GLOBS = ("cali*",)


@dataclass(frozen=True)
class Node:
    """Endpoints with one program of its own at each hook, all at pref 49152 handle 1.

    The pods' ends are in a namespace of their own, as on a node: the kernel's time to find an
    interface grows with how many its namespace has.
    """

    lab: Lab
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def ifindexes(self) -> tuple[int, ...]:
        with entered(self.lab.netns), TcSocket() as tc:
            links = tc.links()
        return tuple(links[name] for name in self.names)

    def mismatch(self, most: int | None = None) -> None:
        """Move one hook of each endpoint to the other handle, ingress and egress by turns."""
        with entered(self.lab.netns), TcSocket() as tc:
            reader = Reader(tc, look_into_programs=False)
            for count, endpoint in enumerate(reader.read(GLOBS).endpoints[:most]):
                _move(tc, endpoint, Hook.EGRESS if count % 2 else Hook.INGRESS)


def _move(tc: TcSocket, endpoint: Endpoint, hook: Hook) -> None:
    (a,) = endpoint.at(hook)
    fd = bpf.program_fd(a.program_id)
    try:
        tc.add_filter(endpoint.ifindex, hook, a.priority, 3 - a.handle, fd, a.name)
    finally:
        os.close(fd)
    tc.delete_filter(endpoint.ifindex, hook, a.priority, a.handle)


@contextmanager
def new_node(objects: Path, count: int) -> Iterator[Node]:
    with new_lab(objects) as pods, new_lab(objects) as lab:
        names = tuple(f"cali{i:07x}" for i in range(count))
        batch = objects / "batch"
        batch.write_text(
            "".join(f"link add {n} type veth peer name p{n} netns {pods.netns}\n" for n in names)
        )
        lab.ip("-batch", str(batch))
        batch.write_text("".join(f"qdisc add dev {n} clsact\n" for n in names))
        lab.tc("-batch", str(batch))
        with entered(lab.netns):
            for name in names:
                for hook in libbpf.HOOKS:
                    with libbpf.loaded(objects / "allow.o") as fd:
                        libbpf.attach(name, hook, fd)
        yield Node(lab, names)
