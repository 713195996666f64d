# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Putting a caller's program at a hook: what is decided, and what would then be written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint import attach
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.attach import (
    Change,
    Place,
    ProgramAttacher,
    after_change,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.attach_tc import (
    TcAttacher,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.attach_tcx import (
    TcxAttacher,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import Refusal
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel import bpf, clsact
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.netlink import TcSocket
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.programs import Program
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.snapshot import Reader
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    Attachments,
    AttachType,
    Endpoint,
    Hook,
    Qdisc,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.build import (
    IFINDEX,
    INTERFACE,
    at,
    endpoint,
    foreign,
    listed,
    ours,
    tcx,
    u32,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.fake_kernel import Kernel

HERE = Hook.INGRESS
TCX = AttachType.TCX


class Socket(TcSocket):
    """Keeps what is written, in words."""

    def __init__(self) -> None:
        self.written: list[str] = []

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
        verb = "replace" if replace else "add"
        where = f"{ifindex} {hook.value} {priority}/{handle}"
        self.written.append(f"{verb} {where} fd {program_fd} {name}")

    def delete_filter(
        self, ifindex: int, hook: Hook, priority: int, handle: int, chain: int = 0
    ) -> None:
        where = f"{ifindex} {hook.value} {priority}/{handle} chain {chain}"
        self.written.append(f"delete {where}")


def program(number: int = 70, tag: str = "cc", name: str = "mine", **other: Any) -> Program:
    info = bpf.ProgramInfo(
        program_id=number,
        type=bpf.BPF_PROG_TYPE_SCHED_CLS,
        name=name,
        tag=tag,
        loaded_at=0,
        map_ids=(),
    )
    return Program(5, info, other.get("is_running", False))


def tc_attacher(
    present: Attachments, qdisc: Qdisc = Qdisc.CLSACT
) -> tuple[ProgramAttacher, Socket]:
    socket = Socket()
    return TcAttacher(socket, endpoint(present, (), qdisc)), socket


def tcx_attacher(present: Attachments) -> ProgramAttacher:
    return TcxAttacher(endpoint(present, ()))


def apply(change: Change) -> None:
    if change.apply is not None:
        change.apply()


def done(change: Change, socket: Socket) -> list[str]:
    apply(change)
    return socket.written


# --- present --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("present", "place", "written"),
    [
        pytest.param((), Place(HERE), "add 7 ingress 49152/1 fd 5 mine:[70]", id="bare"),
        pytest.param(
            at(2), Place(HERE, name="calico_x"), "replace 7 ingress 49152/2 fd 5 calico_x",
            id="keeps the present handle",
        ),
        pytest.param(
            at(2), Place(HERE, name="cali_tc_preambl:[70]"),
            "replace 7 ingress 49152/2 fd 5 cali_tc_preambl:[70]",
            id="in Calico's place",
        ),
        pytest.param(
            (foreign(9, 4, name="mine:[1]"),), Place(HERE, priority=9),
            "replace 7 ingress 9/4 fd 5 mine:[70]",
            id="an older one of that name",
        ),
        pytest.param(
            (foreign(9, 4, name="mine:[1]"),), Place(HERE, priority=9, handle=6),
            "add 7 ingress 9/6 fd 5 mine:[70]",
            id="beside it",
        ),
        pytest.param(
            (ours(1, chain=5),), Place(HERE), "add 7 ingress 49152/1 fd 5 mine:[70]",
            id="another chain is no hindrance",
        ),
        pytest.param(
            (ours(1, 70, tag="cc", name="mine:[70]", direct_action=False),), Place(HERE),
            "replace 7 ingress 49152/1 fd 5 mine:[70]",
            id="there, but without direct-action",
        ),
    ],
)  # fmt: skip
def test_present_writes(present: Attachments, place: Place, written: str) -> None:
    attacher, socket = tc_attacher(present)
    change = attacher.present(place, program())
    assert done(change, socket) == [written]
    assert change.after is not None
    assert change.after.program_id == 70
    assert (change.before is None) is written.startswith("add")


def test_present_is_idempotent_by_tag_for_a_loaded_program() -> None:
    present = foreign(9, 1, 33, name="mine:[33]", tag="cc")
    attacher, socket = tc_attacher((present,))
    change = attacher.present(Place(HERE, priority=9), program())
    assert change == Change(present, present, None)
    assert socket.written == []


def test_present_is_idempotent_by_id_for_a_running_one() -> None:
    """Every Calico preamble has the same tag."""
    present = ours(1, 33, tag="cc")
    attacher, _unused = tc_attacher((present,))
    place = Place(HERE, name="cali_tc_preambl")
    assert attacher.present(place, program(33, is_running=True)).apply is None
    assert attacher.present(place, program(34, is_running=True)).apply is not None


@pytest.mark.parametrize(
    ("present", "place", "words"),
    [
        ((foreign(49152, 1),), Place(HERE), "is already attached under another name"),
        ((foreign(9, 3),), Place(HERE, priority=9, handle=3), "nothing was changed"),
        (at(1), Place(HERE, name="mine"), "is already attached under another name"),
        ((u32(9, 5),), Place(HERE, priority=9), "one kind and protocol only"),
        ((ours(1, protocol=0x0800),), Place(HERE, handle=2), "one kind and protocol only"),
    ],
    ids=["another owner's", "at the given handle", "Calico's", "another kind", "another protocol"],
)
def test_present_refuses_another_owners_place(
    present: Attachments, place: Place, words: str
) -> None:
    attacher, socket = tc_attacher(present)
    with pytest.raises(Refusal, match=words):
        attacher.present(place, program())
    assert socket.written == []


def test_an_ingress_qdisc_is_refused() -> None:
    attacher, _unused = tc_attacher((), Qdisc.INGRESS)
    with pytest.raises(Refusal, match="belongs to another program; nothing was changed"):
        attacher.present(Place(HERE), program())


def test_a_missing_clsact_is_made_first(monkeypatch: pytest.MonkeyPatch) -> None:
    attacher, socket = tc_attacher((), Qdisc.NONE)
    monkeypatch.setattr(clsact, "make", lambda ifindex: socket.written.append(f"clsact {ifindex}"))
    change = attacher.present(Place(HERE), program())
    assert socket.written == []
    assert done(change, socket) == ["clsact 7", "add 7 ingress 49152/1 fd 5 mine:[70]"]


# --- absent ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("present", "place", "written"),
    [
        ((), Place(HERE), []),
        (at(2), Place(HERE), ["delete 7 ingress 49152/2 chain 0"]),
        (at(1, 2), Place(HERE, handle=1), ["delete 7 ingress 49152/1 chain 0"]),
        (at(1), Place(HERE, handle=2), []),
        (at(1), Place(HERE, priority=9), []),
        ((foreign(49152),), Place(HERE), []),
        ((u32(9),), Place(HERE, priority=9), []),
        ((foreign(9, name="mine:[1]"),), Place(HERE, priority=9), []),
        (
            (foreign(9, name="mine:[1]"),),
            Place(HERE, priority=9, name="mine"),
            ["delete 7 ingress 9/1 chain 0"],
        ),
        ((ours(1, chain=5),), Place(HERE), []),
    ],
)
def test_absent_writes(present: Attachments, place: Place, written: list[str]) -> None:
    attacher, socket = tc_attacher(present)
    change = attacher.absent(place)
    assert (change.apply is None) is (written == [])
    assert done(change, socket) == written


@pytest.mark.parametrize(
    ("present", "place", "words"),
    [
        (at(1, 2), Place(HERE), "several filters match: .*choose one with `handle`"),
        (
            (foreign(49152, 3),),
            Place(HERE, handle=3),
            "does not belong to Calico; nothing was changed.*`name`",
        ),
        (
            (foreign(9, 3),),
            Place(HERE, priority=9, handle=3, name="mine"),
            "does not belong to Calico",
        ),
    ],
    ids=["several", "another owner's", "another owner's, of another name"],
)
def test_absent_refuses(present: Attachments, place: Place, words: str) -> None:
    attacher, socket = tc_attacher(present)
    with pytest.raises(Refusal, match=words):
        attacher.absent(place)
    assert socket.written == []


def test_a_filter_of_another_chain_is_removed_there() -> None:
    attacher, socket = tc_attacher((ours(1, chain=5),))
    attacher.remove(HERE, ours(1, chain=5))
    assert socket.written == ["delete 7 ingress 49152/1 chain 5"]


# --- TCX ------------------------------------------------------------------------------------------


#: The file descriptors that the patched bpf(2) hands out.
FDS = {"link_fd": 201, "program_fd": 202, "tcx_link": 203}


@pytest.fixture
def bpf_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is asked of bpf(2); at the end every file descriptor that was handed out is closed."""
    made: list[str] = []

    def call(name: str, *arguments: object) -> int | None:
        shown = [a.value if isinstance(a, Hook) else str(a) for a in arguments]
        made.append(" ".join([name, *shown]))
        return os.dup2(2, FDS[name]) if name in FDS else None

    for name in (*FDS, "tcx_attach", "tcx_detach", "link_update", "link_detach", "pin"):
        monkeypatch.setattr(bpf, name, partial(call, name))
    monkeypatch.setattr(bpf, "is_bpffs", lambda folder: folder == "/pins")
    yield made
    for fd in FDS.values():
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.close(fd)


@pytest.mark.parametrize(
    ("present", "place", "calls"),
    [
        pytest.param((), Place(HERE, TCX), ["tcx_attach 7 ingress 5"], id="new"),
        pytest.param(
            (),
            Place(HERE, TCX, pin="/pins/x"),
            ["tcx_link 7 ingress 5", "pin 203 /pins/x"],
            id="new, pinned",
        ),
        pytest.param(
            (tcx(60, "mine"),),
            Place(HERE, TCX),
            ["link_fd 60", "link_update 201 5"],
            id="a link's program is swapped",
        ),
        pytest.param(
            (tcx(60, "mine", link_id=0),),
            Place(HERE, TCX),
            ["program_fd 60", "tcx_attach 7 ingress 5 202"],
            id="a program without a link is swapped",
        ),
        pytest.param(
            (tcx(60, "cil_from_netdev"),), Place(HERE, TCX), ["tcx_attach 7 ingress 5"], id="beside"
        ),
        pytest.param((tcx(60, "mine", tag="cc"),), Place(HERE, TCX), [], id="there already"),
    ],
)
def test_tcx_present(
    bpf_calls: list[str], present: Attachments, place: Place, calls: list[str]
) -> None:
    attacher = tcx_attacher(present)
    change = attacher.present(place, program())
    assert bpf_calls == []
    apply(change)
    assert bpf_calls == calls


@pytest.mark.parametrize(
    ("present", "pin", "words"),
    [
        ((), "/tmp/x", "not a directory on a BPF file system"),
        ((tcx(60, "mine", link_id=0),), "/pins/x", "without a link"),
    ],
)
def test_a_pin_that_cannot_be_made_is_refused(
    bpf_calls: list[str], present: Attachments, pin: str, words: str
) -> None:
    attacher = tcx_attacher(present)
    with pytest.raises(Refusal, match=words):
        attacher.present(Place(HERE, TCX, pin=pin), program())
    assert bpf_calls == []


def test_tcx_absent(bpf_calls: list[str]) -> None:
    attacher = tcx_attacher((tcx(60, "cil_from_netdev"), tcx(61, link_id=0), tcx(62, "mine")))
    apply(attacher.absent(Place(HERE, TCX)))
    assert bpf_calls == ["program_fd 61", "tcx_detach 7 ingress 202"]
    bpf_calls.clear()
    apply(attacher.absent(Place(HERE, TCX, name="mine")))
    assert bpf_calls == ["link_fd 62", "link_detach 201"]


def test_several_matching_tcx_programs_are_refused() -> None:
    attacher = tcx_attacher((tcx(60), tcx(61)))
    with pytest.raises(Refusal, match="several TCX programs match"):
        attacher.absent(Place(HERE, TCX))


# --- the endpoint afterwards ----------------------------------------------------------------------


def changed(present: Attachments, change: Change, qdisc: Qdisc = Qdisc.CLSACT) -> Endpoint:
    return after_change(endpoint(present, (), qdisc), HERE, change)


def test_after_change() -> None:
    old, beside = ours(1, 10), foreign(100)
    new = ours(1, 11)
    present = listed(beside, old)
    assert changed(present, Change(old, new, None)).ingress == (beside, new)
    assert changed(present, Change(old, None, None)).ingress == (beside,)
    assert changed(present, Change(None, ours(2, 11), None)).ingress == (beside, ours(2, 11), old)
    with_tcx = (tcx(50), *present)
    assert changed(with_tcx, Change(None, tcx(51), None)).ingress == (tcx(50), tcx(51), *present)
    assert changed(with_tcx, Change(None, ours(2, 11), None)).ingress[0] == tcx(50)


def test_after_change_has_the_new_qdisc() -> None:
    assert changed((), Change(None, ours(1), None), Qdisc.NONE).qdisc is Qdisc.CLSACT
    assert changed((), Change(None, tcx(1), None), Qdisc.NONE).qdisc is Qdisc.NONE


# --- opening --------------------------------------------------------------------------------------


def test_opening_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel()
    kernel.patch(monkeypatch)
    kernel.put(endpoint(at(1), at(1, program=20)))
    reader = Reader(kernel, look_into_programs=False, tcx_pins="/nowhere")
    assert attach.open_endpoint(reader, INTERFACE).ifindex == IFINDEX
    for wrong in ("cali1", "cali*", "c?li0123456789a"):
        with pytest.raises(Refusal, match="there is no interface"):
            attach.open_endpoint(reader, wrong)
