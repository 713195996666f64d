# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real endpoints in throw-away network namespaces, and the tools that look at them from outside.

What is built here is built by the commands that a user or Felix would use (ip, tc, bpftool,
libbpf), and read by tc and bpftool: never by the code under test.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from pyroute2 import netns as pyroute2_netns

CHECKOUT = Path(__file__).resolve().parents[3]
#: The interpreter that modules run with on a Debian node.
NODE_PYTHON = "/usr/bin/python3"
_NAME = "calico-bpf-test-"
_serial = count(1)


def run(*words: str, check: bool = True) -> str:
    """Run a command; its output. With ``check`` a failure raises with what it said."""
    done = subprocess.run(
        words, capture_output=True, text=True, errors="surrogateescape", check=False
    )
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


@dataclass(frozen=True)
class Filter:
    """A filter as in ``tc -json filter show``."""

    priority: int
    handle: int
    name: str
    program_id: int
    direct_action: bool
    kind: str = "bpf"
    protocol: str = "all"
    chain: int = 0

    @property
    def slot(self) -> tuple[int, int]:
        return self.priority, self.handle


@dataclass(frozen=True)
class Lab:
    """One network namespace with endpoints: veth pairs whose host side is the endpoint."""

    netns: str
    objects: Path
    _made: list[str] = field(default_factory=list)

    # --- building -----------------------------------------------------------------------------

    def endpoint(self, name: str, *, clsact: bool = True) -> str:
        """A veth pair, both ends up; the pod's is named p and the last 14 letters of ``name``."""
        peer = f"p{name[-14:]}"
        self.ip("link", "add", name, "type", "veth", "peer", "name", peer)
        self.ip("link", "set", name, "up")
        self.ip("link", "set", peer, "up")
        if clsact:
            self.tc("qdisc", "add", "dev", name, "clsact")
        return name

    def ip(self, *words: str) -> str:
        return self.exec("ip", *words)

    def tc(self, *words: str, check: bool = True) -> str:
        return self.exec("tc", *words, check=check)

    def exec(self, *words: str, check: bool = True) -> str:
        """Run a command in the namespace. (``ip netns exec`` would also hide /sys/fs/bpf.)"""
        return run("nsenter", f"--net=/run/netns/{self.netns}", *words, check=check)

    def ifindex(self, interface: str) -> int:
        return int(json.loads(self.ip("-json", "link", "show", "dev", interface))[0]["ifindex"])

    def pin(self, variant: str = "allow", name: str = "cali_tc_preambl") -> str:
        """Load a fresh copy of a compiled program; its pin's path (see ``PROGRAMS``).

        The pin's file name is the name that ``tc`` gives the filter.
        """
        directory = Path(f"/sys/fs/bpf/{self.netns}-{next(_serial)}")
        directory.mkdir()
        pin = directory / name
        run("bpftool", "prog", "load", str(self.objects / f"{variant}.o"), str(pin))
        return str(pin)

    def attach(
        self,
        interface: str,
        hook: str,
        handle: int,
        *,
        priority: int = 49152,
        variant: str = "allow",
        name: str = "cali_tc_preambl",
        pin: str | None = None,
        protocol: str = "all",
        chain: int = 0,
        direct_action: bool = True,
    ) -> str:
        """Attach a program with ``tc`` as a direct-action filter at (priority, handle).

        :returns: the pin of the program, with which it can be attached again.
        """
        pin = pin or self.pin(variant, name)
        words = ["filter", "add", "dev", interface, hook, "protocol", protocol]
        words += ["chain", str(chain)] if chain else []
        words += ["pref", str(priority), "handle", hex(handle), "bpf", "object-pinned", pin]
        self.tc(*words, *(["direct-action"] if direct_action else []))
        return pin

    def detach(self, interface: str, hook: str, handle: int, priority: int = 49152) -> None:
        where = ("pref", str(priority), "handle", hex(handle), "bpf")
        self.tc("filter", "del", "dev", interface, hook, *where)

    # --- looking ------------------------------------------------------------------------------

    def filters(self, interface: str, hook: str) -> list[Filter]:
        """What ``tc`` sees at a hook, in its order."""
        return read_filters(self.tc("-json", "filter", "show", "dev", interface, hook))

    def slots(self, interface: str) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """(priority, handle) of every filter at ingress and at egress."""
        return tuple([f.slot for f in self.filters(interface, h)] for h in ("ingress", "egress"))  # type: ignore[return-value]

    def program_ids(self, interface: str, hook: str) -> list[int]:
        return [f.program_id for f in self.filters(interface, hook)]

    def bpftool_net(self) -> dict[str, Any]:
        """What ``bpftool net`` sees: devname and kind to program ids."""
        shown: dict[str, Any] = json.loads(self.exec("bpftool", "-j", "net", "show"))[0]
        return shown

    def packets(self, program_id: int) -> int:
        """How many packets a program made from bpf/endpoint.c has met."""
        return packets_met(program_id)

    # --- the modules --------------------------------------------------------------------------

    def module(
        self, module: str, /, *, check: bool = False, diff: bool = False, **options: Any
    ) -> dict[str, Any]:
        """Run a module of the collection on this namespace with ``ansible`` itself."""
        return run_module(module, {"netns": self.netns, **options}, check=check, diff=diff)

    def modules(
        self, module: str, cases: Mapping[str, Mapping[str, Any]], **how: Any
    ) -> dict[str, dict[str, Any]]:
        """``run_modules`` on this namespace."""
        here = {case: {"netns": self.netns, **options} for case, options in cases.items()}
        return run_modules(module, here, **how)


def packets_met(program_id: int) -> int:
    """How many packets a program made from bpf/endpoint.c has met, wherever it is attached."""
    maps = json.loads(run("bpftool", "-j", "prog", "show", "id", str(program_id)))["map_ids"]
    values = json.loads(run("bpftool", "-j", "map", "dump", "id", str(maps[0])))
    return sum(int(v["value"]) for v in values[0]["formatted"]["values"])


def read_filters(text: str) -> list[Filter]:
    """The filters in an output of ``tc -json filter show``."""
    return [_filter(f) for f in json.loads(text or "[]") if f.get("options", {}).get("handle")]


def _filter(shown: Mapping[str, Any]) -> Filter:
    options = shown["options"]
    return Filter(
        priority=shown["pref"],
        handle=int(str(options["handle"]), 0),
        name=options.get("bpf_name", ""),
        program_id=options.get("prog", {}).get("id", 0),
        direct_action=bool(options.get("direct-action", False)),
        kind=shown["kind"],
        protocol=shown["protocol"],
        chain=shown["chain"],
    )


def run_module(
    name: str,
    options: Mapping[str, Any],
    *,
    check: bool = False,
    diff: bool = False,
    python: str = NODE_PYTHON,
    prefix: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The result of ``ansible node -m dataplane.calico_bpf.NAME``; a failed one has ``failed``."""
    words = ["-e", f"ansible_python_interpreter={python}", "-a", json.dumps(options)]
    return _ansible(name, ["node"], words, check, diff, prefix)["node"]


def run_modules(
    name: str,
    cases: Mapping[str, Mapping[str, Any]],
    *,
    check: bool = False,
    diff: bool = False,
    python: str = NODE_PYTHON,
) -> dict[str, dict[str, Any]]:
    """One module with many sets of options, as a play with one host each: a sixth of the time.

    :returns: the result of each case, as ``run_module`` gives it.
    """
    options = {option for case in cases.values() for option in case}
    value = "{{ cases[inventory_hostname]['%s'] | default(omit) }}"
    variables = {"ansible_python_interpreter": python, "cases": cases}
    words = ["-e", json.dumps(variables), "-a", json.dumps({o: value % o for o in options})]
    return _ansible(name, list(cases), words, check, diff)


def _ansible(
    module: str,
    hosts: list[str],
    words: list[str],
    check: bool,
    diff: bool,
    prefix: tuple[str, ...] = (),
) -> dict[str, dict[str, Any]]:
    """Each host's result as Ansible shows it.

    A failed one has ``failed`` set; ``diff`` is the text of its diff, if asked for and not empty,
    and ``warnings`` those of the whole run.
    """
    words = [
        *prefix, f"{sys.prefix}/bin/ansible", "all", "-i", f"{','.join(hosts)},", "-c", "local",
        "-m", f"dataplane.calico_bpf.{module}", *words,
        *(["--check"] if check else []), *(["--diff"] if diff else []),
    ]  # fmt: skip
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".build/collections"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "False",
    }
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    results: dict[str, dict[str, Any]] = {}
    warnings = re.findall(r"^\[WARNING\]: (.*)", done.stderr, re.MULTILINE)
    end = 0
    for start in re.finditer(r"^(\S+) \| (\w+)!? => ", done.stdout, re.MULTILINE):
        result = json.JSONDecoder().raw_decode(done.stdout, start.end())[0]
        result["warnings"] = warnings
        if diff:
            result["diff"] = done.stdout[end : start.start()].partition("+++ after\n")[2]
        if start[2] == "FAILED":
            result["failed"] = True
        results[start[1]] = result
        end = start.end()
    if set(results) != set(hosts):
        raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    return results


# --- surroundings ---------------------------------------------------------------------------------

#: The variable that names a folder with what ``compile_programs`` would make.
COMPILED = "CALICO_BPF_TEST_PROGRAMS"
#: The variants of bpf/endpoint.c that tests attach, and how each is compiled.
PROGRAMS = {
    "allow": [],
    "newer": ["-DSALT=1"],
    "deny": ["-DVERDICT=TC_ACT_SHOT"],
    "pass": ["-DVERDICT=TC_ACT_UNSPEC"],
    "foreign": ["-DVERDICT=TC_ACT_UNSPEC", "-DNAME=cil_from_container"],
    "legacy": ["-DNAME=calico_from_workload_ep"],
}


def compile_programs(into: Path) -> None:
    """Compile all of them; or copy them from a folder, where there is no compiler: on a node."""
    if compiled := os.environ.get(COMPILED):
        shutil.copytree(compiled, into, dirs_exist_ok=True)
        return
    for variant, flags in PROGRAMS.items():
        compile_program(CHECKOUT / "bpf/endpoint.c", into / f"{variant}.o", *flags)


def compile_program(source: Path, target: Path, *flags: str) -> Path:
    """The compiled object, at ``target``."""
    includes = f"-I/usr/include/{os.uname().machine}-linux-gnu"
    words = ["-O2", "-g", "-target", "bpf", includes, *flags]
    run("clang", *words, "-c", str(source), "-o", str(target))
    return target


def private_mounts() -> None:
    """Give this process and its children their own mounts, which end with them.

    A bpffs; the names of network namespaces, so that a killed run leaves none behind and no other
    process removes them; and kernel headers where BCC looks for them: on a machine without Debian's
    kernel, Debian's headers suffice for programs that use only stable interfaces.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    clone_newns = 0x20000
    if libc.unshare(clone_newns):
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNS); the tests need root")
    run("mount", "--make-rprivate", "/")
    run("mount", "-t", "bpf", "bpf", "/sys/fs/bpf")
    Path("/run/netns").mkdir(exist_ok=True)
    run("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
    build = sorted(Path("/usr/src").glob("linux-headers-*-*[!n]"))[-1]
    source = sorted(Path("/usr/src").glob("linux-headers-*-common"))[-1]
    if not Path(f"/lib/modules/{os.uname().release}/build").exists():
        run("mount", "-t", "tmpfs", "tmpfs", "/lib/modules")
        here = Path(f"/lib/modules/{os.uname().release}")
        here.mkdir()
        (here / "build").symlink_to(build)
        (here / "source").symlink_to(source)


def end_on_signals() -> None:
    """Have SIGINT and SIGTERM leave every context manager on their way out, undisturbed."""
    both = (signal.SIGINT, signal.SIGTERM)

    def end(number: int, _frame: object) -> None:
        for each in both:
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    for each in both:
        signal.signal(each, end)


@contextmanager
def new_lab(objects: Path) -> Iterator[Lab]:
    name = f"{_NAME}{os.getpid()}-{next(_serial)}"
    pyroute2_netns.create(name)
    lab = Lab(name, objects)
    try:
        lab.ip("link", "set", "lo", "up")
        off = "net.ipv6.conf.{}.disable_ipv6=1"
        lab.exec("sysctl", "-qw", off.format("all"), off.format("default"))
        yield lab
    finally:
        pyroute2_netns.remove(name)
        for pins in Path("/sys/fs/bpf").glob(f"{name}-*"):
            shutil.rmtree(pins)
