# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network between this machine, where the control plane runs, and the nodes.

Each node has a link to the machine and no other. The addresses are of a range that is reserved for
tests of network devices (RFC 2544).
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Sequence

from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.namespaces import Namespaces
from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.server import run

_NETWORKS = 256
_ATTEMPTS = 20


class Network:
    """One network of up to 200 nodes, until ``remove``."""

    def __init__(self, nodes: Sequence[Namespaces]) -> None:
        self._nodes = nodes
        self._number = self._claim()
        for index in range(len(nodes)):
            if index > 0:
                _add_link(self._link(index), nodes[index])
            self._connect(index)

    @property
    def host(self) -> str:
        """The machine's address, the same on all links."""
        return f"198.18.{self._number}.1"

    def address(self, index: int) -> str:
        """The address of a node."""
        return f"198.18.{self._number}.{11 + index}"

    def remove(self) -> None:
        """Remove the links. Without this they go a moment after the nodes."""
        present = {link["ifname"] for link in json.loads(run("ip", "-json", "link", "show"))}
        for index in range(len(self._nodes)):
            if self._link(index) in present:
                subprocess.run(["ip", "link", "delete", self._link(index)], check=False)

    def _claim(self) -> int:
        """Find a number that no other cluster on this machine uses: the first link claims it."""
        for attempt in range(_ATTEMPTS):
            number = secrets.randbelow(_NETWORKS)
            try:
                _add_link(_link_name(number, 0), self._nodes[0])
            except RuntimeError as error:
                if "File exists" not in str(error) or attempt == _ATTEMPTS - 1:
                    raise
            else:
                return number
        raise AssertionError

    def _connect(self, index: int) -> None:
        link, host, node = self._link(index), self.host, self.address(index)
        run("ip", "address", "add", f"{host}/32", "peer", f"{node}/32", "dev", link)
        run("ip", "link", "set", link, "up")
        inside = self._nodes[index].exec
        inside("ip", "address", "add", f"{node}/32", "peer", f"{host}/32", "dev", "eth0")
        inside("ip", "link", "set", "eth0", "up")
        inside("ip", "route", "add", "default", "via", host, "dev", "eth0")

    def _link(self, index: int) -> str:
        return _link_name(self._number, index)


def _link_name(number: int, index: int) -> str:
    return f"kubelet{number:02x}-{index + 1}"


def _add_link(name: str, node: Namespaces) -> None:
    peer = ("peer", "name", "eth0", "netns", str(node.pid))
    run("ip", "link", "add", name, "type", "veth", *peer)
