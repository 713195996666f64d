# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Others at work while we look and repair: a Felix that re-attaches, interfaces that come and go.

Felix wins: its newest program is the one that runs in the end, or the outcome says that it is not;
and a policy that drops keeps dropping, for any collision.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.audit import (
    Audit,
    AuditMode,
    AuditOptions,
    audit,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.repair import Outcome
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.watchdog import Watchdog
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.netlink import TcSocket
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.snapshot import Reader
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    Behaviour,
    Policy,
    Verdict,
)
from ansible_collections.dataplane.calico_bpf.tests.support.felix.libbpf import attach, loaded
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab
from ansible_collections.dataplane.calico_bpf.tests.support.traffic.traffic import (
    AUTO,
    DRIFTS,
    HOOKS,
    Stage,
    streams,
)

_INTERFACE = "cali0123456789a"
_PARENT = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
_fork = multiprocessing.get_context("fork")


class Pass:
    """One re-attach at one hook, in the three parts that others may come between.

    As felix.py does it, but by netlink where that forks tc: some hundred times as fast.
    """

    def __init__(
        self, netlink: IPRoute, objects: Path, interface: str, hook: str, behaviour: Behaviour
    ) -> None:
        self._netlink = netlink
        self._object = objects / "deny.o"
        self._interface = interface
        self._where = {"index": netlink.link_lookup(ifname=interface)[0], "parent": _PARENT[hook]}
        self.deletes = behaviour is Behaviour.ADD_THEN_DELETE
        self.hook = hook
        self.listed: list[tuple[int, int]] = []
        self.slot = (0, 0)
        self.program_id = 0

    def look(self) -> None:
        """(priority, handle) of every filter of Calico's."""
        found = []
        for shown in self._netlink.get_filters(**self._where):
            options = shown.get_attr("TCA_OPTIONS")
            name = options.get_attr("TCA_BPF_NAME") if options and shown["handle"] else None
            if name and "cali_tc_preambl" in name:
                found.append((shown["info"] >> 16, shown["handle"]))
        self.listed = found

    def attach(self) -> None:
        priority = max((priority for priority, _handle in self.listed), default=0)
        replaces = not self.deletes and priority > 0
        handle = next(h for p, h in self.listed if p == priority) if replaces else 0
        with loaded(self._object) as fd:
            self.program_id = _program_id(fd)
            self.slot = attach(
                self._interface, self.hook, fd, priority=priority, handle=handle, replace=replaces
            )

    def delete(self) -> None:
        if self.deletes:
            for priority, handle in self.listed:
                try:
                    self._netlink.tc(
                        "del-filter", kind="bpf", prio=priority, handle=handle, **self._where
                    )
                except NetlinkError:
                    # Felix logs it, stays dirty and tries again.
                    continue

    def whole(self) -> None:
        self.look()
        self.attach()
        self.delete()


def _program_id(fd: int) -> int:
    shown = Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii")
    return int(dict(line.split(":", 1) for line in shown.splitlines())["prog_id"])


class Disturbed(TcSocket):
    """Lets others act before any one of its requests."""

    def __init__(self, before: Callable[[int], None]) -> None:
        super().__init__()
        self._before = before
        self._requests = 0

    def _next(self) -> None:
        self._requests += 1
        self._before(self._requests)

    def filters(self, *args: Any) -> Any:
        self._next()
        return super().filters(*args)

    def add_filter(self, *args: Any, **options: Any) -> None:
        self._next()
        super().add_filter(*args, **options)

    def replace_filter(self, *args: Any) -> None:
        self._next()
        super().replace_filter(*args)

    def delete_filter(self, *args: Any) -> Any:
        self._next()
        return super().delete_filter(*args)


class Clock:
    """A clock that advances only in sleeps, and the events of that time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, Callable[[], None]]] = []

    def after(self, seconds: float, mode: Callable[[], None]) -> None:
        self._due.append((self.now + seconds, mode))

    def sleep(self, seconds: float) -> None:
        end = self.now + seconds
        while self._due and min(self._due, key=lambda due: due[0])[0] <= end:
            due = min(self._due, key=lambda due: due[0])
            self._due.remove(due)
            self.now = due[0]
            due[1]()
        self.now = end


def _audit(
    tc: TcSocket,
    settle: float,
    sleep: Callable[[float], None],
    *,
    mode: AuditMode = AuditMode.REPAIR,
    policy: Policy = AUTO,
    watchdog: Watchdog | None = None,
) -> Audit:
    order = AuditOptions(("cali*",), policy=policy, mode=mode, settle=settle)
    return audit(order, tc, Reader(tc), sleep, watchdog)


@contextmanager
def _inside(lab: Lab) -> Iterator[TcSocket]:
    with entered(lab.netns), TcSocket() as tc:
        yield tc


def _mourned(outcome: Outcome) -> bool:
    """It says that a program of Felix's was hurt."""
    return outcome.verdict is Verdict.CONTENDED


def _running(lab: Lab, interface: str, hook: str) -> int:
    """The program that packets meet first; 0 for none."""
    found = [f.program_id for f in lab.filters(interface, hook) if f.direct_action and not f.chain]
    return found[0] if found else 0


def _assert_calm(stage: Stage) -> None:
    """A last repair, undisturbed: both hooks hold one filter, at one slot, and none is bare."""
    stage.repair()
    assert stage.repair().verdict is Verdict.CONSISTENT
    ingress, egress = stage.lab.slots(stage.interface)
    assert len(ingress) == 1
    assert ingress == egress


# --- Felix at every single moment -----------------------------------------------------------------


@pytest.mark.parametrize("behaviour", [Behaviour.ADD_THEN_DELETE, Behaviour.REPLACE_AND_COMPARE])
@pytest.mark.parametrize("kind", ["handles 1 and 2", "duplicate", "not direct-action"])
def test_a_pass_of_felix_at_any_moment(kind: str, behaviour: Behaviour, lab: Lab) -> None:
    """Before each request of ours in turn, Felix re-attaches at one hook: its program stays."""
    stage = Stage(lab, _INTERFACE, "deny")
    for hook in HOOKS:
        for moment in range(1, 40):
            stage.set_out(DRIFTS[kind])
            with entered(lab.netns), IPRoute() as netlink:
                felix = Pass(netlink, lab.objects, _INTERFACE, hook, behaviour)

                def before(request: int, felix: Pass = felix, moment: int = moment) -> None:
                    if request == moment:
                        felix.whole()

                with Disturbed(before) as tc:
                    audited = _audit(tc, 1.0, Clock().sleep)
            if not felix.program_id:
                break
            where = f"{hook}, before request {moment}: {audited}"
            assert audited.error is None, where
            if not _mourned(audited.outcomes[0]):
                assert _running(lab, _INTERFACE, hook) == felix.program_id, where
            assert _running(lab, _INTERFACE, hook), where
        else:
            raise AssertionError("the repair has more requests than were disturbed")
        _assert_calm(stage)


@pytest.mark.parametrize("moment", ["between the looks", "before the first write"])
@pytest.mark.parametrize("kind", ["handles 1 and 2", "handles 2 and 1"])
def test_a_felix_that_takes_its_time(kind: str, moment: str, lab: Lab) -> None:
    """Felix deletes by handle what it listed before it attached; a repair in between must not put
    a program where that delete will hit it.

    A busy node's Felix forks tc for half a second between the two, which is less than we settle.
    """
    stage = Stage(lab, _INTERFACE, "deny")
    stage.set_out(DRIFTS[kind])
    clock = Clock()
    with entered(lab.netns), IPRoute() as netlink:
        passes = [
            Pass(netlink, lab.objects, _INTERFACE, hook, Behaviour.ADD_THEN_DELETE)
            for hook in HOOKS
        ]

        def add_now_delete_later() -> None:
            for felix in passes:
                felix.look()
                felix.attach()
                clock.after(0.5, felix.delete)

        class Struck(Disturbed):
            def add_filter(self, *args: Any, **options: Any) -> None:
                if moment == "before the first write" and not passes[0].program_id:
                    add_now_delete_later()
                super().add_filter(*args, **options)

        if moment == "between the looks":
            clock.after(0.9, add_now_delete_later)
        with Struck(lambda _request: None) as tc:
            audited = _audit(tc, 1.0, clock.sleep)
        clock.sleep(5)
    assert audited.error is None
    for felix in passes:
        running = _running(lab, _INTERFACE, felix.hook)
        assert running, f"{felix.hook} is bare: {audited.outcomes[0]}"
        assert running == felix.program_id, audited.outcomes[0]
    _assert_calm(stage)


# --- a live Felix ---------------------------------------------------------------------------------


class LiveFelix:
    """A process that re-attaches here and there and dies between add and delete now and then.

    ``attached``: the last program that it attached at each hook, 0 while that is not known to stay.
    ``shot_itself``: how often its delete hit its own new filter, because a repair freed a listed
    handle between its look and its attach. Only Felix can prevent that.
    """

    def __init__(self, lab: Lab, interfaces: list[str], behaviour: Behaviour) -> None:
        self._lab, self._interfaces, self._behaviour = lab, interfaces, behaviour
        self._attached = _fork.Array("q", 2 * len(interfaces))
        self._counts = _fork.Array("q", 2)
        self._stop: Event = _fork.Event()
        self._process = _fork.Process(target=self._work, args=(os.getpid(),), daemon=True)

    def __enter__(self) -> LiveFelix:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._process.join(20)
        self._process.kill()
        self._process.join()

    @property
    def shot_itself(self) -> int:
        return int(self._counts[0])

    @property
    def passes(self) -> int:
        return int(self._counts[1])

    @property
    def died_well(self) -> bool:
        return self._process.exitcode == 0

    def attached(self, interface: str, hook: str) -> int:
        return int(self._attached[2 * self._interfaces.index(interface) + HOOKS.index(hook)])

    def _work(self, parent: int) -> None:
        chance = random.Random(42)
        with entered(self._lab.netns), IPRoute() as netlink:
            while not self._stop.is_set() and os.getppid() == parent:
                for n, interface in enumerate(self._interfaces):
                    for h, hook in enumerate(HOOKS):
                        if chance.random() < 0.3:
                            continue
                        # Behaviour C never puts hooks out of step itself; it inherits that from B.
                        inherits = chance.random() < 0.3
                        behaviour = Behaviour.ADD_THEN_DELETE if inherits else self._behaviour
                        felix = Pass(netlink, self._lab.objects, interface, hook, behaviour)
                        self._one(felix, 2 * n + h, dies=chance.random() < 0.3)
                time.sleep(chance.random() * 0.2)

    def _one(self, felix: Pass, place: int, *, dies: bool) -> None:
        felix.look()
        try:
            felix.attach()
        except OSError:
            return  # EEXIST, or the filter to be replaced is gone: it stays dirty
        hits_itself = felix.deletes and felix.slot in felix.listed and not dies
        self._attached[place] = 0 if hits_itself else felix.program_id
        self._counts[0] += hits_itself
        self._counts[1] += 1
        if not dies:
            felix.delete()


@pytest.mark.parametrize("behaviour", [Behaviour.ADD_THEN_DELETE, Behaviour.REPLACE_AND_COMPARE])
def test_a_live_felix(behaviour: Behaviour, lab: Lab) -> None:
    """Repairs against it, again and again, under traffic that every program drops."""
    names = [f"cali0000000000{n}" for n in range(3)]
    stages = {name: Stage(lab, name, "deny") for name in names}
    for stage in stages.values():
        stage.set_out(DRIFTS["handles 1 and 2"])
    verdicts: Counter[Verdict] = Counter()
    mourned: dict[tuple[str, str], int] = defaultdict(int)
    with ExitStack() as stack:
        flows = [f for name in names for f in stack.enter_context(streams(lab, name)).values()]
        for stream in flows:
            stream.start()
        tc = stack.enter_context(_inside(lab))
        watchdog = stack.enter_context(Watchdog(tc, Reader(tc)))
        with LiveFelix(lab, names, behaviour) as felix:
            end = time.monotonic() + 6
            while time.monotonic() < end:
                audited = _audit(
                    tc, 0.05, lambda seconds: watchdog.sleep(min(seconds, 0.05)), watchdog=watchdog
                )
                assert audited.error is None
                for outcome in audited.outcomes:
                    verdicts[outcome.verdict] += 1
                    if outcome.done:
                        _assert_newest_runs(lab, felix, outcome, mourned)
        watchdog.sleep(0.2)
        for stream in flows:
            stream.pause()
        leaked = sum(stream.received for stream in flows)
        assert felix.died_well
        assert felix.passes > 20
        assert verdicts[Verdict.REPAIRED] > 5, verdicts
        assert leaked == 0 or felix.shot_itself, verdicts
        for stage in stages.values():
            bare = [hook for hook in HOOKS if not _running(lab, stage.interface, hook)]
            assert not bare, stage.interface
            _assert_calm(stage)


def _assert_newest_runs(
    lab: Lab, felix: LiveFelix, outcome: Outcome, mourned: dict[tuple[str, str], int]
) -> None:
    interface = outcome.before.interface
    for hook in HOOKS:
        newest = felix.attached(interface, hook)
        if _mourned(outcome):
            mourned[interface, hook] = newest
        if newest != mourned[interface, hook]:
            # Ids grow; what Felix attached since is newer still.
            assert _running(lab, interface, hook) >= newest, (newest, outcome)


# --- interfaces that come and go ------------------------------------------------------------------


@contextmanager
def _churn(lab: Lab, seed: int) -> Iterator[None]:
    """A process that makes endpoints, puts them out of step and deletes them, as fast as it can.

    Names come back with other ifindexes, and ifindexes under other names.
    """
    stop: Event = _fork.Event()

    def work(parent: int) -> None:
        chance = random.Random(seed)
        with entered(lab.netns), IPRoute() as netlink, loaded(lab.objects / "allow.o") as fd:
            while not stop.is_set() and os.getppid() == parent:
                name = f"calichurn{seed}-{chance.randrange(3)}"
                index = 1_000_000 * seed + chance.randrange(3)
                netlink.link("add", ifname=name, kind="veth", index=index, peer=f"peer{seed}")
                if chance.random() < 0.8:
                    _put_out_of_step(netlink, index, fd)
                time.sleep(chance.random() * 0.01)
                netlink.link("del", index=index)

    process = _fork.Process(target=work, args=(os.getpid(),), daemon=True)
    process.start()
    try:
        yield
        assert process.is_alive()
        stop.set()
        process.join(20)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join()


def _put_out_of_step(netlink: IPRoute, index: int, fd: int) -> None:
    netlink.tc("add", "clsact", index)
    for handle, hook in enumerate(HOOKS, 1):
        netlink.tc(
            "add-filter", kind="bpf", index=index, parent=_PARENT[hook], prio=49152, handle=handle,
            fd=fd, name="cali_tc_preambl", direct_action=True,
        )  # fmt: skip


def _stable_links(lab: Lab, count: int) -> dict[str, int]:
    with entered(lab.netns), IPRoute() as netlink:
        for n in range(count):
            name = f"stable{n}"
            netlink.link("add", ifname=name, kind="veth", index=20_000 + n, peer=f"{name}p")
    return {f"stable{n}": 20_000 + n for n in range(count)}


def _is_interrupted(netlink: IPRoute) -> bool:
    """Whether the kernel marks a dump of the links as one that they changed under."""
    return any(link["header"]["flags"] & 0x10 for link in netlink.get_links())


def test_interfaces_come_and_go(lab: Lab) -> None:
    """Those that stay are never taken for broken, and no dump of the links misses one."""
    stable = [Stage(lab, f"cali0000000000{n}", "allow") for n in range(5)]
    assert all(stage.repair().verdict is Verdict.CONSISTENT for stage in stable)
    links = {**_stable_links(lab, 200), **{s.interface: lab.ifindex(s.interface) for s in stable}}
    verdicts: Counter[Verdict] = Counter()
    interrupted, rounds = 0, 0
    with _churn(lab, 1), _churn(lab, 2), entered(lab.netns), IPRoute() as netlink:
        end = time.monotonic() + 60
        wanted = {Verdict.VANISHED, Verdict.REPAIRED}
        while rounds < 150 or not (interrupted and wanted <= set(verdicts)):
            assert time.monotonic() < end, (verdicts, interrupted)
            rounds += 1
            with TcSocket() as tc:
                seen = tc.links()
                assert links.items() <= seen.items()
                for mode, settle in ((AuditMode.AUDIT, 0.002), (AuditMode.REPAIR, 0.0)):
                    audited = _audit(
                        tc, settle, lambda seconds: time.sleep(seconds / 10), mode=mode
                    )
                    assert audited.error is None
                    by_name = {o.before.interface: o.verdict for o in audited.outcomes}
                    assert [by_name[s.interface] for s in stable] == [Verdict.CONSISTENT] * 5
                    verdicts.update(v for name, v in by_name.items() if "churn" in name)
            if rounds % 5 == 0:
                interrupted += _is_interrupted(netlink)
    for stage in stable:
        assert lab.slots(stage.interface) == ([(49152, 1)], [(49152, 1)])
        assert stage.program_ids["ingress"]["newer"] == _running(lab, stage.interface, "ingress")
