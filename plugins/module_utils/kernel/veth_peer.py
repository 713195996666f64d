# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the network namespace at the other end of a veth pair without entering any namespace.

The kernel identifies the peer's namespace by a number (IFLA_LINK_NETNSID), and returns the number
of the namespace that a file represents (RTM_GETNSID).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

from ..errors import KernelError, Refusal
from .netlink import NLM_F_REQUEST, NLMSG_ERROR, RTM_GETLINK, RTM_NEWLINK
from .netlink_socket import open_socket
from .syscalls import calling, failed

#: Where container runtimes keep the namespaces of pods.
NAMED = "/run/netns"
_RTM_NEWNSID, _RTM_GETNSID = 88, 90
_IFLA_LINK_NETNSID = 37
_NETNSA_NSID, _NETNSA_FD = 1, 3
_HEADER = struct.Struct("=IHHII")


def netns_of_peer(interface: str, directory: str = NAMED) -> str:
    """The file in ``directory`` of the namespace of ``interface``'s peer.

    :raises Refusal: there is no such interface, or no such file.
    """
    index = _index_of(interface)
    with open_socket("open an rtnetlink socket") as netlink:
        wanted = _link_nsid(netlink, interface, index)
        for path in _files(directory):
            if _nsid(netlink, path) == wanted:
                return path
    raise Refusal(
        f"the peer of {interface} is in a network namespace without a file in {directory}; check "
        "where the container runtime keeps the network namespaces of pods"
    )


def _index_of(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ENXIO, None):
            raise Refusal(f"there is no interface {interface} on this node") from None
        raise failed(f"find the interface {interface}", error) from error


def _link_nsid(netlink: socket.socket, interface: str, index: int) -> int:
    body = struct.pack("=BBHiII", 0, 0, 0, index, 0, 0)
    answer = _ask(netlink, f"read the link {interface}", RTM_GETLINK, body, RTM_NEWLINK)
    for kind, payload in _attributes(answer, 16):
        if kind == _IFLA_LINK_NETNSID:
            return int(struct.unpack("=i", payload)[0])
    raise Refusal(
        f"{interface} has no peer in another network namespace: it does not belong to a pod"
    )


def _files(directory: str) -> list[str]:
    try:
        return sorted(os.path.join(directory, name) for name in os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise failed(f"list {directory}", error) from error


def _nsid(netlink: socket.socket, path: str) -> int | None:
    """The number of a namespace, seen from ours; None if the file is not a namespace."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None  # deleted since it was listed
    except OSError as error:
        raise failed("open a network namespace", error) from error
    try:
        body = struct.pack("=B3xHHI", 0, 8, _NETNSA_FD, fd)
        answer = _ask(netlink, f"identify {path}", _RTM_GETNSID, body, _RTM_NEWNSID)
    except KernelError as error:
        if error.errno != errno.EINVAL:
            raise
        return None  # left behind by a runtime: an empty file
    finally:
        os.close(fd)
    for kind, payload in _attributes(answer, 4):
        if kind == _NETNSA_NSID:
            return int(struct.unpack("=i", payload)[0])
    return None


def _ask(netlink: socket.socket, operation: str, kind: int, body: bytes, wanted: int) -> bytes:
    """The body of the one answer to a request."""
    with calling(operation):
        netlink.send(_HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST, 0, 0) + body)
        answer = netlink.recv(1 << 16)
    length, answered, _flags, _sequence, _port = _HEADER.unpack_from(answer)
    if answered == NLMSG_ERROR:
        raise KernelError(operation, -struct.unpack_from("=i", answer, _HEADER.size)[0])
    if answered != wanted:
        raise KernelError(operation, errno.EBADMSG, f"an answer of type {answered}")
    return answer[_HEADER.size : length]


def _attributes(body: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        yield kind & 0x3FFF, body[at + 4 : at + length]
        at += (max(length, 4) + 3) & ~3
