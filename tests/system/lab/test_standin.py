# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Felix stand-in, a real process on the running kernel: what it attaches, breaks and tells."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.tests.support.felix.releases import Behaviour, Release
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin import faults
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin.faults import (
    Faults,
    KillInPass,
)
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab
from ansible_collections.dataplane.calico_bpf.tests.support.tc import tcx

STANDIN = "ansible_collections.dataplane.calico_bpf.tests.support.lab.standin"
RETRY = 0.3
#: Seconds for what takes a fraction of one, on a machine that does other things too.
PATIENCE = 10.0
SLOT = re.compile(r"\{true (\d+) (\d+)\}")


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {PATIENCE:.0f} s"
        time.sleep(0.02)


@dataclass
class Pod:
    """One stand-in in a lab's namespace, and what can be seen of it."""

    lab: Lab
    directory: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        path = self.directory / "0.log"
        return path.read_text() if path.exists() else ""

    def lines(self, words: str) -> list[str]:
        return [line for line in self.log.splitlines() if words in line]

    def errors(self) -> list[str]:
        return self.lines("leaving it dirty")

    def get(self, path: str, port: int = 9099) -> tuple[int, str]:
        """(status, body); (0, what is wrong) where nobody listens."""
        with entered(self.lab.netns):
            try:
                with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                    return answer.status, answer.read().decode()
            except HTTPError as error:
                return error.code, error.read().decode()
            except OSError as error:
                return 0, str(error)

    def is_ready(self) -> bool:
        return self.get("/readiness")[0] == 200

    def wait_until_ready(self) -> None:
        until(self.is_ready, f"ready, in {self.directory}")

    def wait_for_errors(self, more: int) -> None:
        """So many more passes that leave an endpoint dirty."""
        wanted = len(self.errors()) + more
        until(lambda: len(self.errors()) >= wanted, f"{wanted} errors, in {self.directory}")

    def fault(self, **which: object) -> None:
        faults.write(self.directory / "faults.json", Faults(**which))  # type: ignore[arg-type]

    def beat(self) -> None:
        (self.directory / "heartbeat").touch()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Node:
    """Starts one Felix after the other on a lab's endpoints."""

    lab: Lab
    directory: Path
    stack: ExitStack

    def start(
        self, version: str, attach_type: str = "TC", retry: float = RETRY, **fault: object
    ) -> Pod:
        directory = self.directory / f"{version}-{len(list(self.directory.iterdir()))}"
        directory.mkdir()
        names = ("log", "0.log"), ("heartbeat",) * 2, ("faults", "faults.json")
        config = {
            **{key: str(directory / name) for key, name in names},
            "version": version, "attach_type": attach_type, "retry": retry, "metrics": True,
            "objects": str(self.lab.objects), "workloads": str(self.directory.parent / "workloads"),
        }  # fmt: skip
        (directory / "config.json").write_text(json.dumps(config))
        words = [sys.executable, "-m", STANDIN, str(directory / "config.json")]
        netns = f"--net=/run/netns/{self.lab.netns}"
        if fault:
            faults.write(directory / "faults.json", Faults(**fault))  # type: ignore[arg-type]
        (directory / "heartbeat").touch()
        pod = Pod(self.lab, directory, subprocess.Popen(["nsenter", netns, *words]))
        self.stack.callback(pod.kill)
        return pod

    def ready(self, version: str, attach_type: str = "TC") -> Pod:
        pod = self.start(version, attach_type)
        pod.wait_until_ready()
        return pod

    def killed(self, version: str, **where: str) -> None:
        """A Felix that is killed in its first pass."""
        pod = self.start(version, kill_in_pass=KillInPass(**{"interface": "cali*", **where}))
        assert pod.process.wait(PATIENCE) == -signal.SIGKILL
        assert faults.read(pod.directory / "faults.json").kill_in_pass is None, "it strikes once"


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Node]:
    (tmp_path / "workloads").write_text(json.dumps({"cali0": "shop/web-0"}))
    (tmp_path / "pods").mkdir()
    with ExitStack() as stack:
        yield Node(lab, tmp_path / "pods", stack)
    for pin in tcx.PINS.glob("cali*"):
        pin.unlink()


BOTH = ("ingress", "egress")


def both(*slots: tuple[int, int]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    return list(slots), list(slots)


# --- what each release attaches -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "after"),
    [("v3.28.1", (49151, 1)), ("v3.29.1", (49152, 2)), ("v3.29.5", (49152, 1)),
     ("v3.31.0", (49152, 1))],
)  # fmt: skip
def test_tc(node: Node, version: str, after: tuple[int, int]) -> None:
    """Fresh endpoints, with a clsact and without; and again at the next start."""
    names = [node.lab.endpoint("cali0"), node.lab.endpoint("cali1", clsact=False)]
    pod = node.ready(version)
    assert [node.lab.slots(name) for name in names] == [both((49152, 1))] * 2
    old = [node.lab.program_ids(name, hook) for name in names for hook in BOTH]
    pod.kill()
    pod = node.ready(version)
    assert [node.lab.slots(name) for name in names] == [both(after)] * 2
    new = [node.lab.program_ids(name, hook) for name in names for hook in BOTH]
    assert set(map(tuple, old)).isdisjoint(map(tuple, new))
    assert pod.errors() == []


def test_tcx(node: Node) -> None:
    """Its links are pinned, outlive it, and take the next Felix's program."""
    name = node.lab.endpoint("cali0.1", clsact=False)
    pod = node.ready("v3.31.0", "TCX")
    old = {hook: tcx.programs(node.lab, name, hook) for hook in BOTH}
    assert [len(programs) for programs in old.values()] == [1, 1]
    assert sorted(p.name for p in tcx.PINS.iterdir()) == ["cali01_egress", "cali01_ingress"]
    pod.kill()
    node.ready("v3.31.0", "TCX")
    for hook in BOTH:
        ((program, link),) = tcx.programs(node.lab, name, hook)
        assert link == old[hook][0][1]
        assert program != old[hook][0][0]
    node.lab.ip("link", "del", name)
    until(lambda: not list(tcx.PINS.iterdir()), "pins removed")


def test_from_tc_to_tcx_and_back(node: Node) -> None:
    name = node.lab.endpoint("cali0")
    node.ready("v3.30.7").kill()
    node.ready("v3.31.0", "TCX").kill()
    assert "clsact" not in node.lab.tc("qdisc", "show", "dev", name)
    assert [len(tcx.programs(node.lab, name, hook)) for hook in BOTH] == [1, 1]
    node.ready("v3.31.0", "TC")
    assert node.lab.slots(name) == both((49152, 1))
    assert [tcx.programs(node.lab, name, hook) for hook in BOTH] == [[], []]
    assert not list(tcx.PINS.iterdir())


def test_an_older_felix_leaves_the_links_of_a_newer_one(node: Node) -> None:
    name = node.lab.endpoint("cali0")
    node.ready("v3.31.0", "TCX").kill()
    node.ready("v3.30.7")
    assert node.lab.slots(name) == both((49152, 1))
    assert [len(tcx.programs(node.lab, name, hook)) for hook in BOTH] == [1, 1]


def test_interfaces_that_come_and_go(node: Node) -> None:
    pod = node.ready("v3.29.1")
    node.lab.endpoint("cali0", clsact=False)
    node.lab.endpoint("eth7", clsact=False)
    until(lambda: node.lab.slots("cali0") == both((49152, 1)), "attached")
    assert node.lab.slots("eth7") == both()
    node.lab.ip("link", "del", "cali0")
    node.lab.endpoint("cali0", clsact=False)
    until(lambda: len(pod.lines("Updated workload interface.")) == 2, "attached again")
    assert node.lab.slots("cali0") == both((49152, 1))


# --- the fault ------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", faults.POINTS)
def test_killed_at_3_28_1_dirty_for_ever_at_3_29_1(node: Node, point: str) -> None:
    name = node.lab.endpoint("cali0")
    node.ready("v3.28.1").kill()
    node.killed("v3.28.1", hook="ingress", point=point)
    pod = node.start("v3.29.1")
    pod.wait_for_errors(6)
    assert not pod.is_ready()
    line = pod.errors()[0]
    assert re.search(
        r"stdout F \S+ \S+ \[WARNING\]\[\d+\] felix/bpf_ep_mgr\.go \d+: Failed to apply policy to "
        r"endpoint, leaving it dirty error=ingress qdisc info \(\{true \d+ \d\}\) does not equal "
        r"egress qdisc info \(\{true \d+ \d\}\) name=\"cali0\" wepID=orchestrator_id:\"k8s\" "
        r"workload_id:\"shop/web-0\" endpoint_id:\"eth0\" $",
        line,
    ), line
    ingress, egress = node.lab.slots(name)
    assert ingress[0][0] != egress[0][0], "the priorities differ"


def test_killed_between_hooks_at_3_29_1_alternates_for_ever(node: Node) -> None:
    node.lab.endpoint("cali0")
    node.ready("v3.29.1").kill()
    node.killed("v3.29.1", hook="ingress", point="between_hooks")
    assert node.lab.slots("cali0") == ([(49152, 2)], [(49152, 1)])
    pod = node.start("v3.29.1")
    pod.wait_for_errors(6)
    handles = [tuple(h for _priority, h in SLOT.findall(line)) for line in pod.errors()[:6]]
    assert handles == [("1", "2"), ("2", "1")] * 3


@pytest.mark.parametrize("hook", BOTH)
def test_killed_after_the_add(node: Node, hook: str) -> None:
    """Both programs at that hook, the other hook's work done."""
    node.lab.endpoint("cali0")
    node.ready("v3.29.1").kill()
    node.killed("v3.29.1", hook=hook, point="after_add")
    slots = dict(zip(BOTH, node.lab.slots("cali0"), strict=True))
    assert sorted(slots.pop(hook)) == [(49152, 1), (49152, 2)]
    assert list(slots.values()) == [[(49152, 2)]]


def test_a_mismatch_of_3_29_4_is_frozen_by_3_29_5_and_ignored_by_3_31(node: Node) -> None:
    name = node.lab.endpoint("cali0")
    node.ready("v3.29.4").kill()
    node.killed("v3.29.4", hook="egress", point="between_hooks")
    frozen = ([(49152, 1)], [(49152, 2)])
    pod = node.start("v3.29.5")
    pod.wait_for_errors(5)
    told = {" ".join(map(":".join, SLOT.findall(line))) for line in pod.errors()}
    assert told == {"49152:1 49152:2"}
    assert node.lab.slots(name) == frozen
    pod.kill()
    pod = node.ready("v3.31.0", "TC")
    assert node.lab.slots(name) == frozen
    assert pod.errors() == []
    pod.kill()
    node.ready("v3.31.0", "TCX")
    assert [len(tcx.programs(node.lab, name, hook)) for hook in BOTH] == [1, 1]
    assert node.lab.slots(name) == both()


def test_the_wep_id_of_3_30(node: Node) -> None:
    """A struct where there was a message; and an interface without an endpoint."""
    for name in ("cali0", "cali1"):
        node.lab.endpoint(name)
        node.lab.attach(name, "ingress", 2)
        node.lab.attach(name, "egress", 1)
    pod = node.start("v3.30.4")
    pod.wait_for_errors(2)
    first, second = pod.errors()[:2]
    assert first.endswith(
        'name="cali0" wepID=&types.WorkloadEndpointID{OrchestratorId:"k8s", '
        'WorkloadId:"shop/web-0", EndpointId:"eth0"}'
    )
    assert second.endswith('name="cali1" wepID=(*types.WorkloadEndpointID)(nil)')


@pytest.mark.parametrize("version", ["v3.29.1", "v3.29.5"])
def test_the_module_repairs_what_it_broke_while_it_runs(node: Node, version: str) -> None:
    node.lab.endpoint("cali0")
    node.ready("v3.29.1").kill()
    node.killed("v3.29.1", hook="ingress", point="between_hooks")
    pod = node.start(version, retry=2.0)
    pod.wait_for_errors(1)
    result = node.lab.module("qdisc_consistency", state="consistent", settle=0.1)
    assert result["summary"]["verdicts"]["repaired"] == 1, result
    pod.wait_until_ready()
    ingress, egress = node.lab.slots("cali0")
    assert len(ingress) == 1
    assert ingress == egress


def test_two_at_once(node: Node) -> None:
    """What one begins, the other does not know of; and only one has the port."""
    node.lab.endpoint("cali0")
    node.ready("v3.29.1").kill()
    old = node.start("v3.29.1", pass_delay=60.0)
    until(lambda: node.lab.slots("cali0")[0] == [(49152, 2)], "its first hook")
    new = node.start("v3.29.1")
    until(lambda: new.lines("Health endpoint failed"), "the port is taken")
    old.kill()
    new.wait_for_errors(3)
    until(lambda: new.get("/readiness")[0] == 503, "the port taken over")
    assert new.lines("Updated workload interface.") == []


# --- switched faults ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "churn", "again"),
    [("v3.29.1", False, True), ("v3.29.4", False, False), ("v3.29.4", True, True)],
)
def test_churn(node: Node, version: str, churn: bool, again: bool) -> None:
    """What a heartbeat comes to; all of them tell that the host IP has changed."""
    node.lab.endpoint("cali0")
    pod = node.ready(version)
    if churn:
        pod.fault(churn=True)
    told = len(pod.lines("Host IP changed"))
    for count in (1, 2, 3):
        pod.beat()
        until(lambda more=count: len(pod.lines("Host IP changed")) == told + more, "told")  # type: ignore[misc]
        if again:
            until(lambda more=count: _passes(pod) == 1 + more, "re-attached")  # type: ignore[misc]
    time.sleep(0.5)
    assert _passes(pod) == (4 if again else 1)
    assert pod.errors() == []


def _passes(pod: Pod) -> int:
    return len(pod.lines("Finished applying BPF programs"))


def test_dirty(node: Node) -> None:
    """Only what the glob names; health and metrics tell; and it heals with the fault gone."""
    for name in ("cali0", "cali1"):
        node.lab.endpoint(name)
    pod = node.ready("v3.29.5")
    pod.fault(dirty=("*0",))
    pod.wait_for_errors(3)
    assert {re.search('name="(.*?)"', line)[1] for line in pod.errors()} == {"cali0"}  # type: ignore[index]
    assert "error=object error opening libbpf object no such file" in pod.errors()[0]
    until(lambda: not pod.is_ready(), "not ready")
    assert _gauges(pod) == {"": 2, "dirty_": 1, "happy_": 0}
    pod.fault()
    pod.wait_until_ready()
    assert _gauges(pod) == {"": 2, "dirty_": 0, "happy_": 1}


def _gauges(pod: Pod) -> dict[str, int]:
    status, text = pod.get("/metrics", 9091)
    assert status == 200, text
    found = re.findall(r"^felix_bpf_(\w*)dataplane_endpoints (\d+)$", text, re.MULTILINE)
    return {name: int(value) for name, value in found}


def test_never_ready(node: Node) -> None:
    node.lab.endpoint("cali0")
    pod = node.start("v3.29.5", never_ready=True)
    until(lambda: pod.get("/readiness")[0] == 503, "an answer")
    assert pod.get("/liveness")[0] == 200
    assert re.search(r"\| CalculationGraph .* reporting non-ready", pod.get("/readiness")[1])
    assert node.lab.slots("cali0") == both(), "it does not know yet what to do"
    pod.fault()
    pod.wait_until_ready()


def test_tc_processes_that_hang_go_with_it(node: Node) -> None:
    pod = node.start("v3.29.5", hold_tc=3)
    # Between its fork and its exec a child still bears its parent's name.
    until(lambda: [_comm(pid) for pid in _children(pod)] == ["tc"] * 3, "held")
    held = _children(pod)
    pod.fault(hold_tc=1)
    until(lambda: len(_children(pod)) == 1, "let go")
    pod.kill()
    until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in held), "gone")


def _children(pod: Pod) -> list[str]:
    pid = pod.process.pid
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _comm(pid: str) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def test_burn(node: Node) -> None:
    pod = node.ready("v3.29.5")
    until(lambda: _cpu(pod, 1.0) < 0.1, "started")
    pod.fault(burn=0.5)
    until(lambda: _cpu(pod, 1.0) > 0.2, "busy")
    pod.fault()
    until(lambda: _cpu(pod, 1.0) < 0.1, "idle")


def _cpu(pod: Pod, seconds: float) -> float:
    """Cores used."""
    before = _used(pod)
    time.sleep(seconds)
    return (_used(pod) - before) / seconds


def _used(pod: Pod) -> float:
    """Seconds of user and system time."""
    fields = Path(f"/proc/{pod.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_the_middle_of_a_pass(node: Node, number: signal.Signals) -> None:
    node.lab.endpoint("cali0")
    pod = node.start("v3.29.1", pass_delay=60.0)
    until(lambda: node.lab.slots("cali0") == ([(49152, 1)], []), "one hook done")
    pod.process.send_signal(number)
    assert pod.process.wait(2) == -number
    assert node.lab.slots("cali0") == ([(49152, 1)], [])


# --- what it tells --------------------------------------------------------------------------------

HEALTHY = """\
+---------------------------+---------+----------------+-----------------+--------+
|         COMPONENT         | TIMEOUT |    LIVENESS    |    READINESS    | DETAIL |
+---------------------------+---------+----------------+-----------------+--------+
| BPFEndpointManager        | -       | -              | reporting ready |        |
| CalculationGraph          | 30s     | reporting live | reporting ready |        |
| FelixStartup              | -       | reporting live | reporting ready |        |
| InternalDataplaneMainLoop | 1m30s   | reporting live | reporting ready |        |
+---------------------------+---------+----------------+-----------------+--------+"""
DIRTY = """\
| BPFEndpointManager        | -       | -              | reporting non-ready | Failed to configure some |
|                           |         |                |                     | interfaces.              |
| CalculationGraph          | 30s     | reporting live | reporting ready     |                          |
"""  # noqa: E501


def test_health(node: Node) -> None:
    node.lab.endpoint("cali0")
    pod = node.ready("v3.29.5")
    assert pod.get("/readiness") == (200, HEALTHY)
    assert pod.get("/liveness") == (200, HEALTHY)
    assert pod.get("/other")[0] == 404
    pod.fault(dirty=("cali0",))
    until(lambda: not pod.is_ready(), "not ready")
    status, table = pod.get("/readiness")
    assert status == 503
    assert DIRTY in table
    assert pod.get("/liveness") == (200, table)
    assert pod.lines("Overall health status changed: live=true ready=false")


def test_its_first_line_and_its_name(node: Node) -> None:
    pod = node.ready("v3.29.1")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z stdout F \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} "
        r"\[INFO\]\[\d+\] felix/daemon\.go \d+: Felix starting up GOMAXPROCS=\d+ builddate=\"\S+\" "
        r"gitcommit=\"\w+\" version=\"v3\.29\.1\"",
        pod.log.splitlines()[0],
    )
    proc = Path(f"/proc/{pod.process.pid}")
    assert (proc / "cmdline").read_bytes() == b"calico-node\0-felix\0"
    assert (proc / "comm").read_text() == "calico-node\n"


def test_it_starts_quickly(node: Node) -> None:
    """In user and system time, measured by a bare Python's: labs have many of it."""
    before = os.times()
    subprocess.run([sys.executable, "-c", ""], check=True)
    bare = _children_used(os.times()) - _children_used(before)
    assert _used(node.ready("v3.29.1")) < 40 * max(bare, 0.01)


def _children_used(times: os.times_result) -> float:
    return times.children_user + times.children_system


@pytest.mark.parametrize(
    ("behaviour", "versions"),
    [
        (Behaviour.ADD_AT_FREE_PRIORITY, "v3.28.0 3.28.1"),
        (Behaviour.ADD_THEN_DELETE, "v3.28.2 v3.28.4 v3.29.0 v3.29.4 v3.30.0"),
        (Behaviour.REPLACE_AND_COMPARE, "v3.28.5 v3.29.5 v3.30.1 v3.30.7"),
        (Behaviour.REPLACE, "v3.31.0 v3.32.1"),
    ],
)
def test_behaviours(behaviour: Behaviour, versions: str) -> None:
    for version in versions.split():
        assert Release.of(version).behaviour("TC") is behaviour
        assert Release.of(version).behaviour("TCX") is (
            Behaviour.TCX if behaviour is Behaviour.REPLACE else behaviour
        )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"version": "latest"}, "is not a Calico version"), ({"version": "v3.26.1"}, "is older"),
     ({"attach_type": "tcx"}, "is TCX or TC"), ({"retries": 1}, "unexpected keyword"),
     ({"log": None}, "NoneType")],
)  # fmt: skip
def test_a_wrong_configuration_is_refused(
    tmp_path: Path, wrong: dict[str, object], words: str
) -> None:
    config = {"version": "v3.29.1", "objects": "/", "log": str(tmp_path / "0.log"), **wrong}
    (tmp_path / "config.json").write_text(json.dumps(config))
    words_of_it = [sys.executable, "-m", STANDIN, str(tmp_path / "config.json")]
    done = subprocess.run(words_of_it, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode != 0
    assert words in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [{"slow": 1}, {"kill_in_pass": {"interface": "cali0", "hook": "ingress", "point": "there"}}],
)
def test_a_wrong_fault_is_refused(tmp_path: Path, wrong: object) -> None:
    (tmp_path / "faults.json").write_text(json.dumps(wrong))
    with pytest.raises(ValueError, match=r"faults\.json"):
        faults.read(tmp_path / "faults.json")
