# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab that outlives the command that starts it.

A background process holds it. A locked file shows that the process runs, and another file shows how
to use the lab. When the process ends, for any reason, its nodes and servers end too.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.api import read_kubeconfig
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.control_plane import (
    control_plane,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.embedded import embedded_api
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.objects import (
    conditions,
    ready,
)
from ansible_collections.dataplane.calico_bpf.tests.support.lab.lab_cluster import (
    LabCluster,
    lab_cluster,
)
from ansible_collections.dataplane.calico_bpf.tests.support.lab.run_folder import remove_leftovers
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import (
    CHECKOUT,
    end_on_signals,
)

#: Seconds within which the process must end.
_GOING = 30.0


def no_arguments() -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Kind:
    """A kind of lab: the arguments of ``lab_cluster``, and those of the command."""

    #: The folder whose ``__main__.py`` is the command.
    program: Path = CHECKOUT / "tests/support/lab"
    files: Path = CHECKOUT / ".build/lab"
    nodes: int = 3
    #: The retry interval of each Felix, in seconds.
    retry: float = 10.0
    #: Seconds within which the lab must be ready.
    coming: float = 300.0
    #: Called only in the process that holds the lab.
    arguments: Callable[[], dict[str, Any]] = field(default=no_arguments)


def main(arguments: Sequence[str] | None = None, kind: Kind | None = None) -> int:
    kind = kind or Kind()
    options = _options(arguments, kind)
    actions = {"up": _up, "down": _down, "status": _status, "serve": _serve}
    try:
        return actions[options.action](_Files(options.files.absolute(), kind), options)
    except (RuntimeError, TimeoutError, ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1


def _options(arguments: Sequence[str] | None, kind: Kind) -> argparse.Namespace:
    program = f"python {kind.program.relative_to(CHECKOUT)}"
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    parser.add_argument(
        "--files", type=Path, default=kind.files, help="where the lab has its files"
    )
    actions = parser.add_subparsers(dest="action", required=True)
    for name, what in (("up", "start a lab"), ("serve", "have one in the foreground")):
        action = actions.add_parser(name, help=what)
        action.add_argument("--nodes", type=int, default=kind.nodes)
        action.add_argument("--endpoints", type=int, default=4, help="of each node")
        action.add_argument("--version", default="v3.28.1", help="of Calico")
        action.add_argument("--api", choices=("embedded", "real"), default="embedded")
        action.add_argument("--broken", type=int, default=0, help="endpoints out of step")
        action.add_argument(
            "--retry", type=float, default=kind.retry, help="seconds, of each Felix"
        )
        action.add_argument("--heartbeat", type=float, default=10.0, help="seconds, of each node")
    actions.add_parser("status", help="tell how it is")
    actions.add_parser("down", help="end it")
    options = parser.parse_args(arguments)
    if "broken" in options and options.broken > options.nodes * options.endpoints:
        parser.error(f"--broken {options.broken}: there are fewer endpoints")
    return options


@dataclass(frozen=True)
class _Files:
    """The files of a lab that other processes read."""

    folder: Path
    kind: Kind

    @property
    def lock(self) -> Path:
        """Contains the id of the process that holds the lab, and is locked by it."""
        return self.folder / "lock"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def usage(self) -> Path:
        """Exists when the lab is ready."""
        return self.folder / "usage"

    @property
    def environment(self) -> Path:
        return self.folder / "environment"

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def inventory(self) -> Path:
        return self.folder / "inventory.yml"

    @property
    def all(self) -> tuple[Path, ...]:
        seen = (self.usage, self.environment, self.kubeconfig, self.inventory)
        return (*seen, self.log, self.lock)

    @property
    def in_use(self) -> bool:
        try:
            with self.lock.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False


# --- the commands ---------------------------------------------------------------------------------


def _up(files: _Files, options: argparse.Namespace) -> int:
    if os.geteuid():
        raise RuntimeError("the lab needs root: its nodes are namespaces")
    if files.in_use:  # it may be somebody else's: not a success, nor anything to take down unasked
        holder = files.lock.read_text()
        raise RuntimeError(
            f"a lab is up already, of process {holder}, and is left as it is; if it is yours,"
            f" `{_command(files)} down` ends it, else give --files another folder"
        )
    _clean(files)
    words = [sys.executable, str(files.kind.program), f"--files={files.folder}", "serve"]
    for name in ("nodes", "endpoints", "version", "api", "broken", "retry", "heartbeat"):
        words += [f"--{name}", str(getattr(options, name))]
    files.folder.mkdir(parents=True, exist_ok=True)
    with files.log.open("w") as log:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    deadline = time.monotonic() + files.kind.coming
    while not (files.usage.exists() and files.usage.read_text()):
        if process.poll() is not None:
            raise RuntimeError(f"the lab did not come up:\n{files.log.read_text()}")
        if time.monotonic() > deadline:
            _end(files, process.pid)
            raise TimeoutError(
                f"the lab was not up after {files.kind.coming:.0f} s, see {files.log}"
            )
        time.sleep(0.05)
    print(files.usage.read_text(), end="")
    return 0


def _down(files: _Files, options: argparse.Namespace) -> int:
    was_up = files.in_use
    if was_up:
        _end(files, int(files.lock.read_text()))
    _clean(files)
    print("the lab is down" if was_up else "no lab was up")
    return 0


def _status(files: _Files, options: argparse.Namespace) -> int:
    if not files.in_use or not files.usage.exists():
        print("no lab is up")
        return 3
    client = Client(read_kubeconfig(files.kubeconfig))
    pods = client.do("GET", "/api/v1/pods")["items"]
    for node in client.do("GET", "/api/v1/nodes")["items"]:
        print(_line(node, [p for p in pods if p["spec"].get("nodeName") == _name(node)]))
    print(f"\n{files.usage.read_text()}", end="")
    return 0


def _serve(files: _Files, options: argparse.Namespace) -> int:
    """Keep the lab until a signal arrives."""
    end_on_signals()
    files.folder.mkdir(parents=True, exist_ok=True)
    with files.lock.open("a+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError("a lab is up already") from None
        held.truncate(0)
        held.write(str(os.getpid()))
        held.flush()
        start = embedded_api if options.api == "embedded" else control_plane
        sizes = (options.nodes, options.version, options.endpoints)
        times = {"retry": options.retry, "heartbeat": options.heartbeat}
        more = {**files.kind.arguments(), **times}
        with start() as api, lab_cluster(api, *sizes, **more) as cluster:
            _break(cluster, options.broken)
            _write_usage(cluster, files)
            signal.pause()
    return 0


# --- the lab --------------------------------------------------------------------------------------


def _break(cluster: LabCluster, count: int) -> None:
    """Bring so many endpoints out of step, spread over the nodes."""
    nodes = list(cluster.nodes)
    for number, node in enumerate(nodes):
        if share := len(range(number, count, len(nodes))):
            cluster.seed_mismatch(node, share)


def _write_usage(cluster: LabCluster, files: _Files) -> None:
    """Write the usage to the file that exists when the lab is ready."""
    files.kubeconfig.unlink(missing_ok=True)
    files.kubeconfig.symlink_to(cluster.api.kubeconfig)
    files.inventory.unlink(missing_ok=True)
    files.inventory.symlink_to(cluster.inventory)
    environment = {**cluster.environment, "ANSIBLE_INVENTORY": str(files.inventory)}
    environment["K8S_AUTH_KUBECONFIG"] = environment["KUBECONFIG"] = str(files.kubeconfig)
    lines = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    files.environment.write_text("\n".join(lines) + "\n")
    usage = f"""\
{len(cluster.nodes)} nodes with Calico {cluster.version()} are up

kubeconfig   {files.kubeconfig}
inventory    {files.inventory}

  . {files.environment}
  ansible calico_nodes -m ping
  ansible calico_nodes -m dataplane.calico_bpf.qdisc_consistency
  ansible-playbook playbooks/audit.yml
  {_command(files)} status
  {_command(files)} down
"""
    files.usage.write_text(usage)


def _command(files: _Files) -> str:
    program = files.kind.program.relative_to(CHECKOUT)
    return f"python {program} --files={shlex.quote(str(files.folder))}"


def _end(files: _Files, process: int) -> None:
    """End the process that holds the lab, and wait for it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(process, number)
        deadline = time.monotonic() + _GOING
        while time.monotonic() < deadline:
            if not files.in_use:
                return
            time.sleep(0.05)
    raise TimeoutError(f"process {process} has the lab and does not end")


def _clean(files: _Files) -> None:
    """Remove the files that no process uses any more."""
    for each in files.all:
        each.unlink(missing_ok=True)
    with suppress(OSError):  # it has files of others, or never was
        files.folder.rmdir()
    remove_leftovers()
    with embedded_api():
        pass  # it removes those of its kind


def _line(node: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> str:
    calico = [p for p in pods if p["metadata"].get("labels", {}).get("k8s-app") == "calico-node"]
    versions = [p["spec"]["containers"][0]["image"].rpartition(":")[2] for p in calico]
    felix = ", ".join(
        f"calico-node {version} {'Ready' if ready(pod) else 'not Ready'}"
        for version, pod in zip(versions, calico, strict=True)
    )
    up = "Ready" if conditions(node).get("Ready") == "True" else "not Ready"
    cordoned = ", cordoned" if (node.get("spec") or {}).get("unschedulable") else ""
    return f"{_name(node)}: {up}{cordoned}; {felix or 'no calico-node'}; {len(pods)} pods"


def _name(held: Mapping[str, Any]) -> str:
    return str(held["metadata"]["name"])
