# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repairs whose system calls fail: what was written is reported, and a second run completes."""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint import commands
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.watchdog import Watchdog
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import (
    DataplaneError,
    KernelError,
    Refusal,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.netlink import TcSocket
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import ModuleResult
from ansible_collections.dataplane.calico_bpf.tests.support.netns.faults import Faults
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab

CALI = "cali0123456789a"
SLOT = ([(49152, 1)], [(49152, 1)])
BLOCKS = {"ingress": "1", "egress": "2"}


def params(lab: Lab, **options: Any) -> dict[str, Any]:
    return {
        "netns": lab.netns, "calico_version": "auto", "settle": 0.0, "retries": 3,
        "interfaces": ["cali*"], "exclude": [], "state": "consistent", "attach_type": "auto",
        "fail_on_drift": False, "allow_no_calico": False, "jump_targets": True,
        "verbose_endpoints": False,
        "max_endpoints": None, **options,
    }  # fmt: skip


def mismatch(lab: Lab, name: str, pins: tuple[str, str] | None = None) -> tuple[str, str]:
    lab.endpoint(name)
    ingress, egress = pins or (lab.pin(), lab.pin())
    lab.attach(name, "ingress", 1, pin=ingress)
    lab.attach(name, "egress", 2, pin=egress)
    return ingress, egress


def hooks(lab: Lab) -> list[Any]:
    return [lab.filters(CALI, hook) for hook in ("ingress", "egress")]


# --- every call of a repair -----------------------------------------------------------------------


def repair(lab: Lab) -> tuple[bool, str | None]:
    """(changed, the text of the failure)"""
    try:
        answer = commands.qdisc_consistency(params(lab), False, False)
    except DataplaneError as error:
        return bool(error.facts.get("changed")), str(error)
    return answer.values["changed"], answer.failure


def reset(lab: Lab, pins: tuple[str, str]) -> None:
    lab.tc("qdisc", "del", "dev", CALI, "clsact")
    lab.tc("qdisc", "add", "dev", CALI, "clsact")
    lab.attach(CALI, "ingress", 1, pin=pins[0])
    lab.attach(CALI, "egress", 2, pin=pins[1])


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EPERM])
@pytest.mark.parametrize("kind", ["once", "for good"])
def test_each_call_of_a_repair_fails(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, kind: str, number: int
) -> None:
    pins = mismatch(lab, CALI)
    with monkeypatch.context() as patch:
        counted = Faults()
        counted.patch(patch)
        assert repair(lab) == (True, None)
    assert counted.calls.count("send") > 5
    for call in range(1, len(counted.calls) + 1):
        reset(lab, pins)
        before = hooks(lab)
        with monkeypatch.context() as patch:
            Faults(
                fail={call: number} if kind == "once" else {},
                fail_from=call if kind == "for good" else None,
            ).patch(patch)
            changed, failure = repair(lab)
        after = hooks(lab)
        where = f"call {call}, {counted.calls[call - 1]}: {failure}"
        assert changed or after == before, where
        assert failure or lab.slots(CALI) == SLOT, where
        assert all(after), where
        assert_reported(failure, after, before, where)
        assert repair(lab)[1] is None, where
        assert lab.slots(CALI) == SLOT, where


def assert_reported(failure: str | None, after: Any, before: Any, where: str) -> None:
    if failure is None:
        return
    assert "Errno" not in failure, where
    assert "run the task again" in failure.lower() or "audit the node again" in failure, where
    copies = sum(map(len, after)) - sum(map(len, before))
    assert not copies or "our copy" in failure, where


# --- one endpoint that the kernel refuses ---------------------------------------------------------


def shared(lab: Lab, name: str, pins: tuple[str, str], *hooks: str) -> None:
    """An endpoint with handles 1 and 2; the filters of ``hooks`` are in shared blocks."""
    lab.endpoint(name, clsact=False)
    words = [word for hook in hooks for word in (f"{hook}_block", BLOCKS[hook])]
    lab.tc("qdisc", "add", "dev", name, *words, "clsact")
    for hook, handle, pin in (("ingress", 1, pins[0]), ("egress", 2, pins[1])):
        if hook not in hooks:
            lab.attach(name, hook, handle, pin=pin)
            continue
        lab.tc(
            "filter", "add", "block", BLOCKS[hook], "pref", "49152", "handle", hex(handle), "bpf",
            "object-pinned", pin, "direct-action",
        )  # fmt: skip


def test_a_shared_block_does_not_stop_the_other_endpoints(lab: Lab) -> None:
    pins = mismatch(lab, "cali1")
    mismatch(lab, "cali3", pins)
    shared(lab, "cali2", pins, "ingress", "egress")
    predicted = commands.qdisc_consistency(params(lab), True, False)
    answer = commands.qdisc_consistency(params(lab), False, False)
    assert answer.failure is not None
    assert "cali2 egress: add filter at egress pref 49152 handle 1: ENOTSUP" in answer.failure
    assert "ingress_block" in answer.failure
    assert answer.values["summary"]["failed"] == ["cali2"]
    verdicts = {e["interface"]: e["verdict"] for e in answer.values["endpoints"]}
    assert verdicts == {"cali1": "repaired", "cali2": "drifted", "cali3": "repaired"}
    assert lab.slots("cali1") == lab.slots("cali3") == SLOT
    assert (predicted.failure, predicted.warnings) == (answer.failure, answer.warnings)
    assert [without_time(each) for each in (predicted, answer)] == [without_time(answer)] * 2


def without_time(answer: ModuleResult) -> dict[str, Any]:
    return {**answer.values, "elapsed_ms": 0}


@pytest.mark.parametrize("hook", ["ingress", "egress"])
def test_check_mode_and_a_repair_agree_if_one_hook_is_in_a_shared_block(
    lab: Lab, hook: str
) -> None:
    """The kernel decides: tc cannot write there either, and the other hook can be written."""
    shared(lab, CALI, (lab.pin(), lab.pin()), hook)
    refused = lab.exec("sh", "-c", f"tc filter del dev {CALI} {hook} 2>&1", check=False)
    assert "shared" in refused
    before = hooks(lab)
    predicted = commands.qdisc_consistency(params(lab), True, False)
    assert hooks(lab) == before
    answer = commands.qdisc_consistency(params(lab), False, False)
    assert predicted.failure == answer.failure
    assert without_time(predicted) == without_time(answer)
    if answer.failure is None:
        assert lab.slots(CALI) == SLOT
    else:
        assert f"shared block {BLOCKS[hook]}" in answer.failure
        assert hooks(lab) == before


@pytest.mark.parametrize("check_mode", [True, False])
def test_bpf_endpoint_refuses_a_shared_block_before_it_writes(lab: Lab, check_mode: bool) -> None:
    shared(lab, CALI, (lab.pin(), lab.pin()), "egress")
    before = hooks(lab)
    options: dict[str, Any] = {
        "netns": lab.netns, "calico_version": "auto", "settle": 0.0, "retries": 3,
        "interface": CALI, "namespace": None, "pod": None, "interface_prefix": "cali",
        "state": "absent", "ingress": None, "egress": None, "attach_type": "auto",
    }  # fmt: skip
    with pytest.raises(Refusal, match=r"egress pref 49152 handle 2: ENOTSUP.*shared block 2"):
        commands.bpf_endpoint(options, check_mode, False)
    assert hooks(lab) == before


# --- the limit of open files ----------------------------------------------------------------------


def not_allowed(*_limits: object) -> None:
    raise ValueError("not allowed to raise maximum limit")


@contextmanager
def room_for_files(count: int) -> Iterator[None]:
    """A limit that the process may not raise: only its soft part, so that the test can."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The limit is on the number of a file, so the numbers that are free below it are taken first.
    highest = max(map(int, os.listdir("/proc/self/fd")))
    taken = [os.open(os.devnull, os.O_RDONLY)]
    while taken[-1] < highest:
        taken.append(os.open(os.devnull, os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 1 + count, hard))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(resource, "setrlimit", not_allowed)
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)


def test_more_drifted_endpoints_than_open_files(lab: Lab) -> None:
    pins = (lab.pin(), lab.pin())
    names = [f"cali{n}" for n in range(60)]
    for name in names:
        mismatch(lab, name, pins)
    opened = len(os.listdir("/proc/self/fd"))
    with room_for_files(60):
        answer = commands.qdisc_consistency(params(lab, settle=0.1), False, False)
    assert answer.failure is None
    assert answer.values["summary"]["verdicts"]["repaired"] == len(names)
    assert len(os.listdir("/proc/self/fd")) == opened


@pytest.mark.parametrize("room", [0, 1, 2, 3, 4])
def test_too_few_files_for_anything_say_what_to_do(lab: Lab, room: int) -> None:
    mismatch(lab, CALI)
    with room_for_files(room):
        changed, failure = repair(lab)
    assert not changed
    assert failure is not None
    assert "EMFILE" in failure or "Too many open files" in failure
    if room > 1:
        assert "limit of open files" in failure
    if room == 4:
        assert f"{CALI} egress: open a program by its id" in failure


# --- links that change all the time ---------------------------------------------------------------


def test_links_are_listed_although_every_dump_is_interrupted(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a node with thousands of links; here, no dump is believed."""
    names = {lab.endpoint(f"cali{n}", clsact=False) for n in range(100)}
    stop = threading.Event()
    changer = threading.Thread(target=change_links, args=(lab, stop))
    changer.start()
    try:
        with entered(lab.netns), TcSocket() as tc:
            dump, results = tc._dump, []

            def interrupted(operation: str, wanted: int, take: Callable[..., None]) -> bool:
                results.append(dump(operation, wanted, take))
                return True

            monkeypatch.setattr(tc, "_dump", interrupted)
            for _read in range(10):
                assert names <= tc.links().keys()
            assert len(results) == 50
    finally:
        stop.set()
        changer.join()


def change_links(lab: Lab, stop: threading.Event) -> None:
    while not stop.is_set():
        lab.ip("link", "add", "pause0", "type", "veth", "peer", "name", "pause1")
        lab.ip("link", "del", "pause0")


# --- settle: 0 ------------------------------------------------------------------------------------


def test_what_the_watchdog_did_is_reported_without_a_settle_time(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    mismatch(lab, CALI)
    sleep = Watchdog.sleep

    def felix_deletes(self: Watchdog, seconds: float) -> None:
        if lab.slots(CALI)[1] == [(49152, 1)] and not done:
            done.append(True)
            lab.detach(CALI, "egress", 1)
        sleep(self, seconds)

    done: list[bool] = []
    monkeypatch.setattr(Watchdog, "sleep", felix_deletes)
    (shown,) = commands.qdisc_consistency(params(lab), False, False).values["endpoints"]
    assert shown["verdict"] == "contended"
    assert "put back at once" in shown["notes"][-1]
    assert [step["action"] for step in shown["done"]] == ["add", "delete", "add"]
    assert lab.slots(CALI) == SLOT


def test_a_watchdog_that_cannot_read_changes_reads_the_hooks(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    mismatch(lab, CALI)

    def fail(_self: object, _seconds: float) -> NoReturn:
        if lab.slots(CALI)[1] == [(49152, 1)]:
            lab.detach(CALI, "egress", 1)
        raise KernelError("watch the changes of filters", errno.ENOMEM)

    monkeypatch.setattr(
        "ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.tc_monitor."
        "TcWatch.changes",
        fail,
    )
    answer = commands.qdisc_consistency(params(lab), False, False)
    assert answer.failure is not None
    assert "watch the changes of filters: ENOMEM" in answer.failure
    assert answer.values["changed"]
    assert lab.slots(CALI) == SLOT
