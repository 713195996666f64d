# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab node: an init process in its own namespaces, with the endpoints of pods.

Everything in a node ends with its init. The init ends with the process that started it, even if
that is killed: it reads a pipe that only that process holds.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.tests.support.lab.container import (
    Container,
    NamespaceContainer,
)
from ansible_collections.dataplane.calico_bpf.tests.support.lab.node_faults import NodeFaults
from ansible_collections.dataplane.calico_bpf.tests.support.lab.pod_cgroup import (
    entering,
    pod_cgroup,
)
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import (
    CHECKOUT,
    NODE_PYTHON,
    Filter,
    read_filters,
)

_NAMESPACES = ("--net", "--mount", "--pid", "--uts")
#: The gateway of Calico's pods; no interface has the address, proxy ARP answers for it.
_GATEWAY = "169.254.1.1"
_HEALTH_PORT = 9099
_PYTHON = {"PYTHONPATH": str(CHECKOUT / ".build/collections")}

#: Sets up the namespaces, prints the init's process id outside of them, and becomes the init, whose
#: children are reaped by the kernel. The default route makes proxy ARP answer.
_INIT = """
set -e
read -r pid rest < /proc/self/stat
hostname "$0"
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
mkdir /run/netns /var/log/pods
sysctl -qw net.ipv4.ip_forward=1
sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
ip link set lo up
ip link add eth0 type veth peer name uplink
ip link set eth0 up
ip link set uplink up
ip route add default dev eth0
echo "$pid"
exec env --ignore-signal=CHLD cat > /dev/null
"""
_ADD_ENDPOINT = f"""
set -e
ip netns add "$1"
ip link add "$0" type veth peer name eth0 netns "$1"
sysctl -qw "net.ipv4.conf.$0.proxy_arp=1" "net.ipv4.neigh.$0.proxy_delay=0"
ip link set "$0" up
nsenter --net="/run/netns/$1" sysctl -qw net.ipv6.conf.all.disable_ipv6=1
ip -n "$1" -batch - <<END
link set lo up
addr add $2/32 dev eth0
link set eth0 up
route add {_GATEWAY} dev eth0 scope link
route add default via {_GATEWAY} dev eth0
END
ip route add "$2/32" dev "$0"
"""
_REMOVE_ENDPOINT = 'ip link delete "$0"; ip netns delete "$1"'


class NodeDown(OSError):
    """There is no init to do anything with."""


class Node:
    """A node that runs until it is killed, and may be started again.

    ``init_file`` holds the process id of its init as long as it runs.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.init_file = folder / "init"
        #: Its modification time is that of the last change of the Node object.
        self.heartbeat_file = folder / "heartbeat"
        #: The namespace and name of each endpoint's pod by interface.
        self.workloads_file = folder / "workloads.json"
        self.faults = NodeFaults(folder / "faults.json", self.write)
        #: How often it was started.
        self.boots = 0
        #: The address of each pod by the namespace and name of the pod.
        self.addresses: dict[str, str] = {}
        self._lock = threading.Lock()
        self._init: subprocess.Popen[str] | None = None
        self._pid: int | None = None
        folder.mkdir(parents=True, exist_ok=True)

    # --- its life -----------------------------------------------------------------------------

    def begin(self) -> None:
        """Start, without waiting; so that many can start at once."""
        words = ["unshare", "--fork", "--kill-child", *_NAMESPACES, "sh", "-c", _INIT, self.name]
        log = self.folder / "init.log"
        with log.open("w") as errors:
            self._init = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # a ctrl-C is for us
            )

    def start(self) -> None:
        """Start the node.

        :raises RuntimeError: it did not start; with its log.
        """
        if self._init is None:
            self.begin()
        assert self._init
        assert self._init.stdout
        pid = self._init.stdout.readline().strip()
        if not pid:
            raise RuntimeError(f"{self.name}: {(self.folder / 'init.log').read_text()}")
        self._pid = int(pid)
        self.boots += 1
        self.init_file.write_text(pid)

    def kill(self) -> None:
        """End the init, and so everything in the node, at once."""
        self.init_file.unlink(missing_ok=True)
        init, pid, self._init, self._pid = self._init, self._pid, None, None
        self.addresses.clear()
        if init:
            assert init.stdin
            assert init.stdout
            init.stdin.close()
            init.stdout.close()
            if pid and init.poll() is None:
                with suppress(ProcessLookupError):  # its input has just ended, and so may it have
                    os.kill(pid, signal.SIGKILL)
            else:
                init.kill()
            init.wait()  # which is when all that was in the node is gone

    def reboot(self) -> None:
        self.kill()
        self.start()

    @property
    def alive(self) -> bool:
        init = self._init
        return self._pid is not None and init is not None and init.poll() is None

    @property
    def pid(self) -> int:
        """The init's process id.

        :raises NodeDown: it has none.
        """
        if self._pid is None or not self.alive:
            raise NodeDown(f"{self.name} is down")
        return self._pid

    # --- how others get into it; what a node that is no namespace does otherwise ---------------

    @property
    def inventory(self) -> dict[str, Any]:
        """The variables by which Ansible reaches it."""
        return {
            "ansible_connection": "lab_node",
            "ansible_become": False,
            "ansible_python_interpreter": NODE_PYTHON,
            "lab_init_file": str(self.init_file),
        }

    @property
    def kernel_release(self) -> str:
        return os.uname().release

    def inside(self, file: Path) -> Path:
        """Where a file of the lab is found in the node."""
        return file

    def write(self, file: Path, text: str) -> None:
        """Write a file of the lab that the node reads; never half of it is seen."""
        new = file.with_suffix(".new")
        new.write_text(text)
        os.replace(new, file)

    def beat(self) -> None:
        """Note in the node that its Node object has changed."""
        self.heartbeat_file.touch()

    def read(self, path: str) -> str:
        """A file of the node; empty if there is none."""
        file = self.path(path)
        return file.read_text() if file.exists() else ""

    def run_python(self, module: str, *arguments: str) -> str:
        """Run one of the tests' modules; its output."""
        environment = [f"{name}={value}" for name, value in _PYTHON.items()]
        return self.exec("env", *environment, sys.executable, "-m", module, *arguments)

    def contain_python(self, name: str, pod_uid: str, module: str, *arguments: str) -> Container:
        """Start one of the tests' modules as the container of a pod."""
        program = (sys.executable, "-m", module, *arguments)
        cgroup = pod_cgroup(self.folder.parent.name, pod_uid)
        enter = [*entering(cgroup), *self.words()]
        return NamespaceContainer(enter, program, self.folder / "felix.out", _PYTHON)

    @contextmanager
    def felix_health(self) -> Iterator[tuple[str, int]]:
        """Where this thread reaches Felix's health."""
        with entered(f"/proc/{self.pid}/ns/net"):
            yield "localhost", _HEALTH_PORT

    # --- what is in it ------------------------------------------------------------------------

    def path(self, path: str) -> Path:
        """A file of the node, as it is found from outside."""
        return Path(f"/proc/{self.pid}/root{path}")

    def words(self, *words: str) -> list[str]:
        """The command that runs a command in the node."""
        return ["nsenter", f"--target={self.pid}", *_NAMESPACES, "--", *words]

    def exec(self, *words: str, check: bool = True) -> str:
        """Run a command in the node; its output.

        :raises RuntimeError: with ``check``, the command failed; with its output.
        :raises NodeDown: the node is down, or went down while the command ran.
        """
        done = subprocess.run(self.words(*words), capture_output=True, text=True, check=False)
        if done.returncode and not self.alive:
            raise NodeDown(f"{self.name} went down")
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def interfaces(self) -> list[str]:
        """The node's ends of its endpoints."""
        lines = self.read("/proc/1/net/dev").splitlines()
        names = (line.partition(":")[0].strip() for line in lines)
        return sorted(name for name in names if name.startswith("cali"))

    def agents(self) -> list[str]:
        """The interfaces of those pods that a drain leaves."""
        stay = (pod for pod in list(self.addresses) if pod.startswith("demo/agent-"))
        return sorted(interface_of(*pod.split("/")) for pod in stay)

    def filters(self, interface: str) -> dict[str, list[Filter]]:
        """What ``tc`` sees at each hook."""
        return {hook: self._filters(interface, hook) for hook in ("ingress", "egress")}

    def _filters(self, interface: str, hook: str) -> list[Filter]:
        return read_filters(self.exec("tc", "-json", "filter", "show", "dev", interface, hook))

    def felix_processes(self) -> list[int]:
        """The Felixes, by their process ids in the node.

        A child that is about to become a ``tc`` is its parent's twin until then, and is none.
        """
        parents = {}
        for entry in self.path("/proc").glob("[0-9]*"):
            try:
                argv = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it just ended
            if os.path.basename(argv[0]) == b"calico-node" and b"-felix" in argv[1:]:
                parents[int(entry.name)] = parent
        return sorted(pid for pid, parent in parents.items() if parent not in parents)

    # --- endpoints ----------------------------------------------------------------------------

    def add_endpoint(self, namespace: str, pod: str) -> str:
        """A network namespace for a pod, wired as Calico's CNI plugin does; the pod's address."""
        interface = interface_of(namespace, pod)
        with self._lock:  # until it is there
            taken = set(self.addresses.values())
            address = next(a for n in range(1, 255) if (a := f"10.65.0.{n}") not in taken)
            self.exec("sh", "-c", _ADD_ENDPOINT, interface, netns_of(namespace, pod), address)
            self.addresses[f"{namespace}/{pod}"] = address
        self._tell_workloads()
        return address

    def remove_endpoint(self, namespace: str, pod: str) -> None:
        self.exec(
            "sh", "-c", _REMOVE_ENDPOINT, interface_of(namespace, pod), netns_of(namespace, pod)
        )
        self.addresses.pop(f"{namespace}/{pod}", None)
        self._tell_workloads()

    def _tell_workloads(self) -> None:
        workloads = {interface_of(*pod.split("/")): pod for pod in list(self.addresses)}
        self.write(self.workloads_file, json.dumps(workloads))

    def pod_exec(self, namespace: str, pod: str, *words: str, check: bool = True) -> str:
        """Run a command in a pod's network namespace."""
        netns = f"--net=/run/netns/{netns_of(namespace, pod)}"
        return self.exec("nsenter", netns, *words, check=check)


def interface_of(namespace: str, pod: str) -> str:
    """The name that Calico derives for the node's end of a pod's endpoint."""
    return "cali" + hashlib.sha1(f"{namespace}.{pod}".encode()).hexdigest()[:11]


def netns_of(namespace: str, pod: str) -> str:
    return f"{namespace}.{pod}"
