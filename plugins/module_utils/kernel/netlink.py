# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rtnetlink messages that an audit and a repair need, on one socket.

Why not pyroute2: 0.9.7 does not decode the program id and tag of a cls_bpf filter, treats an
interrupted dump as complete (it ignores NLM_F_DUMP_INTR), and takes some 30 times as long as the
kernel; and a broken node cannot pip install it. So the dumps and the filter writes are here, with
the standard library only. Other netlink messages (to make a clsact qdisc, and in tests) are sent by
pyroute2.

Layouts: linux/netlink.h, linux/rtnetlink.h, linux/pkt_cls.h. All integers are in host byte order,
except the protocol in tcm_info. A socket stays in the network namespace in which it was opened.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Callable, Iterator

from ..errors import KernelError
from ..model import Action, Hook, Qdisc, SharedBlock, Slot, filter_operation
from .filter_message import (
    ATTR,
    TCA_BPF_FD,
    TCA_BPF_FLAG_ACT_DIRECT,
    TCA_BPF_FLAGS,
    TCA_BPF_NAME,
    TCA_CHAIN,
    TCA_KIND,
    TCA_OPTIONS,
    RawFilter,
    read_filter,
)
from .netlink_socket import open_socket
from .qdisc_message import attributes, read_qdisc, text_at
from .syscalls import calling, failed

NLM_F_REQUEST = 0x01
NLM_F_ACK = 0x04
NLM_F_ECHO = 0x08
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200

NLMSG_ERROR = 2
NLMSG_DONE = 3
RTM_NEWLINK = 16
RTM_GETLINK = 18
RTM_NEWQDISC = 36
RTM_GETQDISC = 38
RTM_NEWTFILTER = 44
RTM_DELTFILTER = 45
RTM_GETTFILTER = 46

#: tcm_parent of clsact's hooks: TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS or TC_H_MIN_EGRESS).
INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
#: tcm_parent of the clsact and ingress qdiscs themselves (TC_H_CLSACT == TC_H_INGRESS).
_TC_H_CLSACT = 0xFFFFFFF1

_SOL_NETLINK = 270
_NETLINK_EXT_ACK = 11
_RTEXT_FILTER_SKIP_STATS = 8
_NLMSGERR_ATTR_MSG = 1
_IFLA_IFNAME = 3
_IFLA_EXT_MASK = 29

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_HEADER_BRIEF = struct.Struct("=IH2xI").unpack_from  # length, type, sequence
HEADER_PARTS = struct.Struct("=IHHI").unpack_from  # length, type, flags, sequence
_HEADER_ERROR = struct.Struct("=I2xH").unpack_from  # length, flags
_TCMSG = struct.Struct("=BBHiIII")  # family, pad, pad, ifindex, handle, parent, info
TCMSG_INDEX_PARENT = struct.Struct("=4xi4xI").unpack_from
_LINK_NAME_AT = struct.Struct("=i8xHH").unpack_from
_TC_REQUEST = struct.Struct("=IHHIIBBHiIII")
_LINK_REQUEST = struct.Struct("=IHHIIBBHiIIHHI")

#: Seconds before each further try of a dump that changes of links interrupt. More tries do not help
#: a node with 5,000 links and 50 changes a second, where nearly every dump is interrupted.
_DUMP_PAUSES = (0.01, 0.02, 0.04, 0.08)

_LIST_FILTERS = "list the filters"
#: Where the body of the first message in a buffer is.
_FIRST_BODY = 16


class TcSocket:
    """One rtnetlink socket for dumps of links, qdiscs and filters, and for single filter writes.

    ``writes`` counts the change requests sent.
    """

    def __init__(self) -> None:
        self._socket = open_socket("open an rtnetlink socket")
        with calling("prepare the rtnetlink socket"):
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
            #: By this port others recognize the changes of this socket.
            self.port: int = self._socket.getsockname()[0]
        self._buffer = bytearray(1 << 18)
        self._sequence = 0
        self._blocks: dict[int, tuple[SharedBlock, ...]] = {}
        #: A request was sent whose answer was not received to its end.
        self._unfinished = False
        self.writes = 0

    def __enter__(self) -> TcSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    # --- reads --------------------------------------------------------------------------------

    def links(self) -> dict[str, int]:
        """Every interface of the namespace: name to ifindex."""

        def request() -> bytes:
            return _LINK_REQUEST.pack(
                40, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, self._sequence, 0,
                0, 0, 0, 0, 0, 0, 8, _IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS,
            )  # fmt: skip

        dumps: list[dict[str, int]] = []

        def take(buffer: bytearray, start: int, end: int) -> None:
            index, name = _link_in(buffer, start)
            dumps[-1][name] = index

        steady = self._steady_dump(
            "list the links", request, RTM_NEWLINK, take, lambda: dumps.append({})
        )
        return dumps[-1] if steady else self._merged(dumps)

    def _merged(self, dumps: list[dict[str, int]]) -> dict[str, int]:
        """The links of dumps that were all interrupted, which may each lack or double entries.

        What they all list is there. What only some list changed, and is looked up by its name:
        that is no dump, so it cannot be interrupted.
        """
        found = dict(set.intersection(*[set(dump.items()) for dump in dumps]))
        for name in set().union(*dumps) - found.keys():
            index = self.link(name)
            if index is not None:
                found[name] = index
        return found

    def clsact_qdiscs(self) -> dict[int, Qdisc]:
        """The qdisc at ffff: of each interface for which the dump proves it, by ifindex.

        While other interfaces disappear, a dump skips some, unmarked: the kernel continues it in
        each message buffer by counting interfaces (net/sched/sch_api.c, tc_dump_qdisc). It writes
        the qdisc at ffff: last, so an interface has none if another follows it in its buffer. For
        all others, such as those that are down, see ``clsact_qdisc``.

        :raises KernelError: EINTR if the dump was interrupted too often.
        """

        def request() -> bytes:
            return _TC_REQUEST.pack(
                36, RTM_GETQDISC, NLM_F_REQUEST | NLM_F_DUMP, self._sequence, 0, *[0] * 7
            )

        found: dict[int, Qdisc] = {}
        last = 0

        def take(buffer: bytearray, start: int, end: int) -> None:
            nonlocal last
            index, parent = TCMSG_INDEX_PARENT(buffer, start)
            if index != last and start > _FIRST_BODY:
                found.setdefault(last, Qdisc.NONE)
            if parent == _TC_H_CLSACT:
                found[index], self._blocks[index] = read_qdisc(buffer, start, end)
            last = index

        operation = "list the qdiscs"
        if not self._steady_dump(operation, request, RTM_NEWQDISC, take, found.clear):
            raise KernelError(
                operation,
                errno.EINTR,
                "interfaces are created and deleted faster than they can be listed. Find what does "
                "that (ip monitor link), or run the task again when fewer pods start and stop",
            )
        return found

    def link(self, name: str) -> int | None:
        """The ifindex of an interface; None if no interface has that name."""
        body = bytes(16) + _attribute(_IFLA_IFNAME, name.encode(errors="surrogateescape") + b"\0")
        answer = self._ask(f"find the link {name}", RTM_GETLINK, body, (errno.ENODEV,))
        if answer is None:
            return None
        index, found = _link_in(answer, 0)
        # The kernel also finds alternative names, which a dump does not list as names.
        return index if found == name else None

    def clsact_qdisc(self, ifindex: int) -> Qdisc:
        """The qdisc at ffff: of one interface; NONE also if the interface does not exist."""
        body = _TCMSG.pack(0, 0, 0, ifindex, 0, _TC_H_CLSACT, 0)
        # EINVAL: the interface had one before, and has the placeholder noop in its place.
        absent = (errno.ENOENT, errno.EINVAL, errno.ENODEV)
        answer = self._ask("find the clsact qdisc", RTM_GETQDISC, body, absent)
        if answer is None:
            return Qdisc.NONE
        qdisc, self._blocks[ifindex] = read_qdisc(answer, 0, len(answer))
        return qdisc

    def shared_blocks(self, ifindex: int) -> tuple[SharedBlock, ...]:
        """The shared blocks of an interface, as its qdisc was last read."""
        return self._blocks.get(ifindex, ())

    def filters(self, ifindex: int, hook: Hook) -> list[RawFilter]:
        """The filters at one hook in the kernel's order.

        The list is empty, without an error, if the interface or its clsact does not exist
        (net/sched/cls_api.c, tc_dump_tfilter); read links and qdiscs to find out.
        """
        self._sequence += 1
        wanted = self._sequence
        request = _TC_REQUEST.pack(
            36, RTM_GETTFILTER, NLM_F_REQUEST | NLM_F_DUMP, wanted, 0,
            0, 0, 0, ifindex, 0, _parent(hook), 0,
        )  # fmt: skip
        self._send(_LIST_FILTERS, request)
        found: list[RawFilter] = []
        buffer, unpack, receive = self._buffer, _HEADER_BRIEF, self._socket.recv_into
        while True:
            try:
                end = receive(buffer)
            except OSError as error:
                raise failed(_LIST_FILTERS, error) from error
            at = 0
            while at < end:
                length, kind, sequence = unpack(buffer, at)
                if sequence == wanted:
                    if kind == RTM_NEWTFILTER:
                        read_filter(buffer, at + 16, at + length, found)
                    elif kind == NLMSG_DONE:
                        self._unfinished = False
                        return found
                    elif kind == NLMSG_ERROR:
                        self._unfinished = False
                        self._raise_error(_LIST_FILTERS, at)
                at += (length + 3) & ~3

    # --- writes -------------------------------------------------------------------------------

    def add_filter(
        self,
        ifindex: int,
        hook: Hook,
        priority: int,
        handle: int,
        program_fd: int,
        name: str,
        *,
        replace: bool = False,
    ) -> None:
        """Attach a program in direct-action mode, for all protocols, in chain 0.

        :param replace: replace the filter at (priority, handle) in one message.
        :raises KernelError: EEXIST (taken), ENODEV (no such interface), EINVAL (no clsact, or the
            priority holds another kind or protocol), EPERM.
        """
        flags = NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL)
        action = Action.REPLACE if replace else Action.ADD
        operation = filter_operation(action, hook, Slot(priority, handle))
        body = self._attach_body(ifindex, hook, priority, handle, program_fd, name)
        self._write(operation, RTM_NEWTFILTER, flags, body)

    def replace_filter(
        self, ifindex: int, hook: Hook, priority: int, handle: int, program_fd: int, name: str
    ) -> None:
        """Replace the filter at exactly (priority, handle) in one message; never create one.

        Attached as by ``add_filter``. The kernel swaps the two atomically: a packet meets the old
        or the new program (net/sched/cls_bpf.c, cls_bpf_change).

        :raises KernelError: ENOENT (no such filter), ENODEV (no such interface), EINVAL (the
            priority holds another kind or protocol), EPERM.
        """
        operation = filter_operation(Action.REPLACE, hook, Slot(priority, handle))
        body = self._attach_body(ifindex, hook, priority, handle, program_fd, name)
        self._write(operation, RTM_NEWTFILTER, NLM_F_REPLACE, body)

    @staticmethod
    def _attach_body(
        ifindex: int, hook: Hook, priority: int, handle: int, program_fd: int, name: str
    ) -> bytes:
        options = (
            _attribute(TCA_BPF_FD, struct.pack("=I", program_fd))
            + _attribute(TCA_BPF_NAME, name.encode(errors="surrogateescape") + b"\0")
            + _attribute(TCA_BPF_FLAGS, struct.pack("=I", TCA_BPF_FLAG_ACT_DIRECT))
        )
        body = _filter_body(ifindex, hook, priority, handle, 0x0003)
        return body + _attribute(TCA_KIND, b"bpf\0") + _attribute(TCA_OPTIONS, options)

    def delete_filter(
        self, ifindex: int, hook: Hook, priority: int, handle: int, chain: int = 0
    ) -> RawFilter | None:
        """Delete the filter at exactly (priority, handle).

        The request cannot name a program, so the kernel is asked to echo what it deleted.

        :returns: the deleted filter; None if the kernel did not echo it.
        :raises KernelError: ENOENT (no such filter), ENODEV (no such interface), EPERM.
        """
        if handle == 0:
            raise ValueError("handle 0 would delete all filters of the priority, foreign ones too")
        body = _filter_body(ifindex, hook, priority, handle, 0)
        body += _attribute(TCA_KIND, b"bpf\0")
        if chain:
            body += _attribute(TCA_CHAIN, struct.pack("=I", chain))
        operation = filter_operation(Action.DELETE, hook, Slot(priority, handle))
        echoed = self._write(operation, RTM_DELTFILTER, NLM_F_ECHO, body)
        return echoed[0] if echoed else None

    # --- plumbing -----------------------------------------------------------------------------

    def _steady_dump(
        self,
        operation: str,
        request: Callable[[], bytes],
        wanted: int,
        take: Callable[[bytearray, int, int], None],
        start: Callable[[], object],
    ) -> bool:
        """Dump until a dump is not interrupted: after NLM_F_DUMP_INTR, entries may be missing.

        :param start: called before each dump.
        :returns: False if all dumps were interrupted.
        """
        for pause in (0.0, *_DUMP_PAUSES):
            time.sleep(pause)
            start()
            self._sequence += 1
            self._send(operation, request())
            if not self._dump(operation, wanted, take):
                return True
        return False

    def _dump(
        self, operation: str, wanted: int, take: Callable[[bytearray, int, int], None]
    ) -> bool:
        interrupted = 0
        for at, end, kind, flags in self._answers(operation):
            interrupted |= flags & NLM_F_DUMP_INTR
            if kind == wanted:
                take(self._buffer, at + 16, end)
            elif kind == NLMSG_ERROR:
                self._unfinished = False
                self._raise_error(operation, at)
            elif kind == NLMSG_DONE:
                self._unfinished = False
                break
        return bool(interrupted)

    def _ask(
        self, operation: str, kind: int, body: bytes, absent: tuple[int, ...]
    ) -> bytearray | None:
        """The body of the message that answers; None without one, or for an errno of ``absent``.

        The acknowledgement ends the answer: some requests for what is absent get no message.
        Without NLM_F_ECHO, the kernel sends a qdisc to the listeners of changes only.
        """
        self._sequence += 1
        flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_ECHO
        header = _HEADER.pack(16 + len(body), kind, flags, self._sequence, 0)
        self._send(operation, header + body)
        found = None
        for at, end, answer, _flags in self._answers(operation):
            if answer != NLMSG_ERROR:
                found = self._buffer[at + 16 : end]
                continue
            self._unfinished = False
            try:
                self._raise_error(operation, at)
            except KernelError as error:
                if error.errno not in absent:
                    raise
            break
        return found

    def _write(self, operation: str, kind: int, flags: int, body: bytes) -> list[RawFilter]:
        self._sequence += 1
        flags |= NLM_F_REQUEST | NLM_F_ACK
        header = _HEADER.pack(16 + len(body), kind, flags, self._sequence, 0)
        self._send(operation, header + body)
        self.writes += 1
        echoed: list[RawFilter] = []
        for at, end, answer, _flags in self._answers(operation, unanswered=True):
            if answer == NLMSG_ERROR:
                self._unfinished = False
                self._raise_error(operation, at)
                break
            if answer == RTM_DELTFILTER:
                read_filter(self._buffer, at + 16, end, echoed)
        return echoed

    def _send(self, operation: str, request: bytes) -> None:
        """:raises KernelError: the request did not reach the kernel."""
        try:
            if self._unfinished:
                self._reopen()
            self._socket.send(request)
        except OSError as error:
            raise failed(operation, error) from error
        self._unfinished = True

    def _reopen(self) -> None:
        """A fresh socket with the same port: the kernel refuses a second dump during a first."""
        self._socket.close()
        self._socket = open_socket("open an rtnetlink socket again", port=self.port)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._unfinished = False

    def _answers(
        self, operation: str, *, unanswered: bool = False
    ) -> Iterator[tuple[int, int, int, int]]:
        """(start, end, type, flags) of the messages that answer the last request; never ends."""
        while True:
            try:
                end = self._socket.recv_into(self._buffer)
            except OSError as error:
                raise failed(operation, error, unanswered=unanswered) from error
            at = 0
            while at < end:
                length, kind, flags, sequence = HEADER_PARTS(self._buffer, at)
                if sequence == self._sequence:
                    yield at, at + length, kind, flags
                at += (length + 3) & ~3

    def _raise_error(self, operation: str, at: int) -> None:
        """Raise the error of the NLMSG_ERROR at ``at``; 0 is an acknowledgement."""
        length, flags = _HEADER_ERROR(self._buffer, at)
        number = -struct.unpack_from("=i", self._buffer, at + 16)[0]
        if number == 0:
            return
        detail = ""
        if flags & NLM_F_ACK_TLVS:
            echoed = 0
            if not flags & NLM_F_CAPPED:
                echoed = struct.unpack_from("=I", self._buffer, at + 20)[0] - 16
            for kind, start, size in attributes(self._buffer, at + 36 + echoed, at + length):
                if kind == _NLMSGERR_ATTR_MSG:
                    detail = text_at(self._buffer, start, size)
        raise KernelError(operation, number, detail)


def port_of(buffer: bytearray, at: int) -> int:
    """The netlink port in the header of the message at ``at``."""
    port: int = struct.unpack_from("=I", buffer, at + 12)[0]
    return port


def _link_in(buffer: bytearray, start: int) -> tuple[int, str]:
    """(ifindex, name) of an RTM_NEWLINK's body.

    The name is every link's first attribute (net/core/rtnetlink.c, rtnl_fill_ifinfo).
    """
    index, length, kind = _LINK_NAME_AT(buffer, start + 4)
    if kind != _IFLA_IFNAME:
        raise KernelError("read a link", errno.EBADMSG, "the first attribute is not the name")
    return index, buffer[start + 20 : start + 15 + length].decode(errors="surrogateescape")


def _parent(hook: Hook) -> int:
    return INGRESS if hook is Hook.INGRESS else EGRESS


def _attribute(kind: int, payload: bytes) -> bytes:
    return ATTR.pack(4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def _filter_body(ifindex: int, hook: Hook, priority: int, handle: int, protocol: int) -> bytes:
    info = priority << 16 | socket.htons(protocol)
    return _TCMSG.pack(0, 0, 0, ifindex, handle, _parent(hook), info)
