# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every failing system call of the kernel layer is an error of the collection."""

from __future__ import annotations

import ast
import ctypes
import errno
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import (
    DataplaneError,
    KernelError,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel import (
    bpf,
    namespace,
    netlink,
    privilege,
    snapshot,
    tc_monitor,
    veth_peer,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.syscalls import located
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import Hook
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.build import at, endpoint
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.fake_kernel import Kernel

KERNEL = Path(__file__).resolve().parents[4] / "plugins" / "module_utils" / "kernel"


def failing(number: int) -> Callable[..., Any]:
    def fail(*_what: object, **_how: object) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


class Socket:
    """A netlink socket whose calls after ``works`` fail with ``number``."""

    works: tuple[str, ...] = ()
    number = errno.ENOBUFS

    def __init__(self, *_kind: int) -> None:
        self._call("open")

    def _call(self, name: str) -> None:
        if name not in self.works:
            raise OSError(self.number, os.strerror(self.number))

    def setsockopt(self, *_option: int) -> None:
        self._call("option")

    def bind(self, _address: object) -> None:
        self._call("bind")

    def getsockname(self) -> tuple[int, int]:
        return (1, 0)

    def send(self, _request: bytes) -> None:
        self._call("send")

    def recv_into(self, _buffer: bytearray) -> int:
        self._call("receive")
        return 0

    def fileno(self) -> int:
        return 0

    def close(self) -> None:
        pass


OPEN = ("open", "option", "bind")


@pytest.fixture
def socket_that(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def works(*calls: str, number: int = errno.ENOBUFS) -> None:
        monkeypatch.setattr(Socket, "works", calls)
        monkeypatch.setattr(Socket, "number", number)

    monkeypatch.setattr(socket, "socket", Socket)
    return works


@pytest.mark.parametrize("works", [(), ("open",), ("open", "option")])
def test_a_socket_that_cannot_be_opened(
    socket_that: Callable[..., None], works: tuple[str, ...]
) -> None:
    socket_that(*works, number=errno.EMFILE)
    for opened in (netlink.TcSocket, tc_monitor.TcWatch):
        with pytest.raises(KernelError, match="EMFILE") as failed:
            opened()
        assert "limit of open files" in failed.value.advice


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.ENOMEM, errno.EPERM, errno.EINTR])
@pytest.mark.parametrize("works", [(), ("send",)], ids=["send", "receive"])
@pytest.mark.parametrize(
    ("ask", "operation"),
    [
        (lambda tc: tc.links(), "list the links"),
        (lambda tc: tc.link("cali1"), "find the link cali1"),
        (lambda tc: tc.clsact_qdisc(1), "find the clsact qdisc"),
        (lambda tc: tc.clsact_qdiscs(), "list the qdiscs"),
        (lambda tc: tc.filters(1, Hook.INGRESS), "list the filters"),
        (lambda tc: tc.add_filter(1, Hook.EGRESS, 9, 2, 3, "x"), "add filter at egress pref 9"),
        (lambda tc: tc.replace_filter(1, Hook.EGRESS, 9, 2, 3, "x"), "replace filter at egress"),
        (lambda tc: tc.delete_filter(1, Hook.INGRESS, 9, 2), "delete filter at ingress pref 9"),
    ],
)
def test_a_request_that_fails_names_its_operation(
    socket_that: Callable[..., None],
    ask: Callable[[netlink.TcSocket], object],
    operation: str,
    works: tuple[str, ...],
    number: int,
) -> None:
    socket_that(*OPEN, *works, number=number)
    tc = netlink.TcSocket()
    with pytest.raises(KernelError) as failed:
        ask(tc)
    assert failed.value.errno == number
    assert str(failed.value).startswith(operation)
    writes = "filter at" in operation
    assert failed.value.unanswered == (writes and works == ("send",))
    assert tc.writes == failed.value.unanswered


def test_a_watch_that_only_reports_dropped_changes_ends(socket_that: Callable[..., None]) -> None:
    socket_that(*OPEN)
    watch = tc_monitor.TcWatch()
    assert list(watch.changes(0)) == []
    assert watch.overrun


def test_a_watch_that_fails_names_its_operation(socket_that: Callable[..., None]) -> None:
    socket_that(*OPEN, number=errno.ENOMEM)
    with pytest.raises(KernelError, match="watch the changes of filters: ENOMEM"):
        list(tc_monitor.TcWatch().changes(0))


# --- bpf(2) ---------------------------------------------------------------------------------------


def syscalls_that_fail(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> list[int]:
    """bpf(2) fails with these in turn, and then returns 7."""
    left = list(numbers)

    def syscall(*_arguments: object) -> int:
        if not left:
            return 7
        ctypes.set_errno(left.pop(0))
        return -1

    monkeypatch.setattr(bpf, "_syscall", syscall)
    return left


def test_an_interrupted_bpf_call_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    syscalls_that_fail(monkeypatch, errno.EINTR, errno.EINTR)
    assert bpf.program_fd(1) == 7


def test_a_bpf_call_that_is_always_interrupted_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    left = syscalls_that_fail(monkeypatch, *[errno.EINTR] * 100)
    with pytest.raises(KernelError, match="open a program by its id: EINTR"):
        bpf.program_fd(1)
    assert left


@pytest.mark.parametrize("number", [errno.EINTR, errno.EMFILE, errno.ENOMEM])
@pytest.mark.parametrize("call", ["program_info_by_id", "tcx_programs"])
def test_a_read_of_an_endpoint_that_fails_names_interface_and_hook(
    monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """Such an error is no lack of privilege, so it must not be taken for unread objects."""
    kernel = Kernel()
    kernel.patch(monkeypatch)
    kernel.put(endpoint(at(1, 2), at(1, program=20)))

    def fail(*_what: object) -> Any:
        raise KernelError("read it", number)

    monkeypatch.setattr(bpf, call, fail)
    reader = snapshot.Reader(kernel, look_into_programs=False, tcx_pins="/nowhere")
    with pytest.raises(KernelError, match=r"^cali\w+ ingress: read it: ") as failed:
        reader.read(["cali*"])
    assert failed.value.errno == number


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        (os, "readlink", lambda: bpf.is_program(0)),
        (os, "dup", lambda: bpf.duplicate(0)),
        (os, "unlink", lambda: bpf.unpin("/nowhere")),
        (os, "replace", lambda: bpf.move_pin("/nowhere", "/there")),
        (os, "open", lambda: namespace.entered("x").__enter__()),
        (os, "listdir", lambda: veth_peer._files("/nowhere")),
        (os, "open", lambda: veth_peer._nsid(socket.socket(), "/nowhere")),
        (socket, "if_nametoindex", lambda: veth_peer.netns_of_peer("cali1")),
    ],
)
def test_a_file_that_fails(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, call: Callable[[], object]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, name, failing(errno.EMFILE))
        with pytest.raises(DataplaneError, match="EMFILE"):
            call()


def test_the_capabilities_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privilege, "open", failing(errno.EMFILE), raising=False)
    with pytest.raises(KernelError, match="read the capabilities of the process: EMFILE"):
        privilege.require_for_writing("anything")


def test_pins_that_cannot_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel()
    kernel.patch(monkeypatch)
    monkeypatch.setattr(os, "listdir", failing(errno.EMFILE))
    with pytest.raises(KernelError, match="list /sys/fs/bpf/tcx: EMFILE"):
        snapshot.Reader(kernel).read(["cali*"])


def test_the_place_of_an_error_is_added_once() -> None:
    with pytest.raises(KernelError) as failed, located("cali1"), located("cali2", "egress"):
        raise KernelError("add a filter", errno.ENOBUFS, unanswered=True)
    assert str(failed.value).startswith("cali2 egress: add a filter: ENOBUFS")
    assert failed.value.unanswered


# --- interrupted dumps ----------------------------------------------------------------------------


class Interrupted(netlink.TcSocket):
    """A socket whose dumps are all interrupted: each lacks another link."""

    def __init__(self, dumps: list[dict[str, int]], now: dict[str, int]) -> None:
        self._sequence = 0
        self._dumps = dumps
        self._now = now
        self.looked_up: list[str] = []

    def _send(self, operation: str, request: bytes) -> None:
        pass

    def _dump(self, operation: str, wanted: int, take: Any) -> bool:
        dump = self._dumps[0] if len(self._dumps) == 1 else self._dumps.pop(0)
        for name, index in dump.items():
            padded = name.encode() + b"\0"
            body = struct.pack("=BBHiIIHH", 0, 0, 0, index, 0, 0, len(padded) + 4, 3) + padded
            take(bytearray(body), 0, len(body))
        return True

    def link(self, name: str) -> int | None:
        self.looked_up.append(name)
        return self._now.get(name)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    made: list[float] = []
    monkeypatch.setattr(time, "sleep", made.append)
    return made


def test_links_that_change_during_every_dump_are_looked_up_one_by_one(
    pauses: list[float],
) -> None:
    steady = {f"cali{n}": n for n in range(1, 20)}
    dumps = [
        {**steady, "gone": 30},
        {**steady, "moved": 31},
        {name: index for name, index in steady.items() if name != "cali7"},
        {**steady, "moved": 32, "new": 33},
        steady,
    ]
    now = {**steady, "moved": 32, "new": 33}
    tc = Interrupted(dumps, now)
    assert tc.links() == now
    assert sorted(tc.looked_up) == ["cali7", "gone", "moved", "new"]
    assert pauses == sorted(pauses)
    assert 0 < sum(pauses) < 1


def test_qdiscs_that_cannot_be_listed_say_what_to_do(pauses: list[float]) -> None:
    tc = Interrupted([{}], {})
    with pytest.raises(KernelError, match=r"EINTR.*ip monitor link.*run the task again"):
        tc.clsact_qdiscs()
    assert pauses


# --- none forgotten -------------------------------------------------------------------------------

#: Calls that fail only if the program is wrong, and calls whose callers take the error.
FINE = {
    "os.close", "os.path.join", "os.path.isabs", "os.path.isfile", "os.fsencode", "os.uname",
    "os.strerror", "os.sysconf", "select.poll", "socket.htons", "socket.ntohs", "os.path.lexists",
}  # fmt: skip
#: bcc.py: every error of the compiled object is a ProgramRefused.
GUARDED_ELSEWHERE = {
    ("namespace.py", "_setns"), ("bcc.py", "load"), ("dataplane.py", "_has_map_open"),
    *(("processes.py", name) for name in (
        "__init__", "_pids", "_stat", "_age", "_pod_uid", "_read", "_is_here",
    )),
}  # fmt: skip


def syscalls_of(tree: ast.AST) -> list[ast.Call]:
    """The calls of os, socket and files."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            known = name.startswith(("os.", "socket.", "select.", "tempfile.")) or name == "open"
            if known and name not in FINE:
                found.append(node)
    return found


@pytest.mark.parametrize("path", sorted(KERNEL.glob("*.py")), ids=lambda path: path.name)
def test_every_system_call_is_guarded(path: Path) -> None:
    """By ``calling``, or in a ``try`` that catches OSError."""
    tree = ast.parse(path.read_text())
    guarded: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.With) and "calling(" in ast.unparse(node.items[0]):
            guarded.update(ast.walk(node))
        if isinstance(node, ast.Try) and any("OSError" in ast.unparse(h) for h in node.handlers):
            guarded.update(inner for statement in node.body for inner in ast.walk(statement))
        if isinstance(node, ast.FunctionDef) and (
            (path.name, node.name) in GUARDED_ELSEWHERE
            or any("calling(" in ast.unparse(decorator) for decorator in node.decorator_list)
        ):
            guarded.update(ast.walk(node))
    missing = [ast.unparse(call) for call in syscalls_of(tree) if call not in guarded]
    assert missing == []
