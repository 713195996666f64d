# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab node that is a virtual machine: a kernel, systemd, sshd and sudo of its own.

QEMU and SSH end with the process that started them, however that ends; the overlay is in the lab's
folder, which the next lab removes if this one could not.
"""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.ports import free_ports
from ansible_collections.dataplane.calico_bpf.tests.support.lab.node import Node, NodeDown
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import CHECKOUT, run
from ansible_collections.dataplane.calico_bpf.tests.support.vm.accelerator import CPU
from ansible_collections.dataplane.calico_bpf.tests.support.vm.image import Image

#: A cold boot, emulated, takes 20 s where the machine is quiet, and minutes where it is not.
_BOOT_LIMIT = 600.0
#: SSH's own exit status: the command was not run, or was lost.
_SSH_FAILED = 255
#: Whatever happens to us, QEMU and SSH do not stay.
_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
#: The lab's folder in the node, which has the collection under ``code``.
INSIDE = Path("/var/lib/lab")
_CODE = ("support/felix", "support/lab/standin", "support/lab/seed.py")
_PYTHON = ("env", f"PYTHONPATH={INSIDE / 'code'}", "python3", "-m")
_APPEND = (
    "root=/dev/nvme0n1 rw console=ttyS0 net.ifnames=0 quiet mitigations=off nokaslr tsc=reliable"
    " no_timer_check audit=0 systemd.journald.forward_to_console=1"
    " systemd.journald.max_level_console=notice systemd.hostname="
)
_SSH_CONFIG = """\
Host *
    HostName 127.0.0.1
    HostKeyAlias node
    UserKnownHostsFile {image.known_hosts}
    IdentityFile {image.key}
    IdentitiesOnly yes
    LogLevel ERROR
    ServerAliveInterval 5

Host {name}
    Port {ports.ssh}
    User ansible

Host kubelet
    Port {ports.kubelet}
    User root
    ControlPath {socket}
    ConnectTimeout 10
"""


class Vm(Node):
    """Runs until it is killed, which is a power cut; started again it has its disk as it was.

    Ansible comes in as production would: by SSH, as a user who becomes root. The lab's kubelet has
    an sshd of its own, which stays when a test stops the other.
    """

    def __init__(
        self, name: str, folder: Path, image: Image, accelerator: str, series: str
    ) -> None:
        super().__init__(name, folder)
        self.series = series
        self._image, self._accelerator = image, accelerator
        self._ports = _Ports(*free_ports(3))
        self._qemu: subprocess.Popen[bytes] | None = None
        self._ssh: subprocess.Popen[bytes] | None = None
        self._up = False
        self._release = ""
        (folder / "ssh_config").write_text(
            _SSH_CONFIG.format(name=name, image=image, ports=self._ports, socket=folder / "ssh")
        )

    # --- its life -----------------------------------------------------------------------------

    def begin(self) -> None:
        overlay = self.folder / "disk.qcow2"
        if not overlay.exists():
            base = ["-b", str(self._image.disk), "-F", "raw"]
            run("qemu-img", "create", "-q", "-f", "qcow2", *base, str(overlay))
        with (self.folder / "qemu.log").open("a") as log:
            self._qemu = subprocess.Popen(
                [*_WITH_US, *self._machine(overlay)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _machine(self, overlay: Path) -> list[str]:
        accel = {"tcg": "tcg,thread=multi"}.get(self._accelerator, self._accelerator)
        forwarded = {self._ports.ssh: 22, self._ports.kubelet: 2222}
        forwards = "".join(
            f",hostfwd=tcp:127.0.0.1:{ours}-:{its}" for ours, its in forwarded.items()
        )
        return [
            "qemu-system-x86_64", "-machine", "q35", "-accel", accel,
            "-cpu", CPU[self._accelerator], "-smp", "1", "-m", "768",
            "-nodefaults", "-no-user-config", "-display", "none",
            "-serial", f"file:{self.folder / 'console'}",
            "-kernel", str(self._image.kernel(self.series)), "-append", _APPEND + self.name,
            "-object", "rng-random,id=rng0,filename=/dev/urandom",
            "-device", "virtio-rng-pci,rng=rng0",
            "-drive", f"file={overlay},if=none,id=disk,format=qcow2,cache=unsafe,discard=unmap",
            "-device", "nvme,drive=disk,serial=root",
            "-netdev", f"user,id=net,restrict=on{forwards}",
            "-device", "virtio-net-pci,netdev=net,romfile=",
        ]  # fmt: skip

    def start(self) -> None:
        if self._qemu is None:
            self.begin()
        deadline = time.monotonic() + _BOOT_LIMIT
        while not self._connected():
            if self._qemu is None or self._qemu.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.name} does not boot:\n{self._said()}")
            time.sleep(0.2)
        self._release = self._command("uname", "-r").stdout.strip()
        self._copy_in()
        self.boots += 1
        self._up = True

    def _connected(self) -> bool:
        """Whether the connection that all commands share works; a failed one is replaced."""
        if self._ssh is None or self._ssh.poll() is not None:
            health = f"127.0.0.1:{self._ports.health}:localhost:9099"
            with (self.folder / "ssh.log").open("a") as log:
                self._ssh = subprocess.Popen(
                    [*_WITH_US, *self._ssh_words(), "-M", "-N", "-L", health, "kubelet"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        return (self.folder / "ssh").exists() and self._command("true").returncode == 0

    def _copy_in(self) -> None:
        """What the node's Felixes are made of."""
        collections = CHECKOUT / ".build/collections"
        tests = Path("ansible_collections/dataplane/calico_bpf/tests")
        self.copy_in(collections, INSIDE / "code", *(str(tests / each) for each in _CODE))
        lab = self.folder.parent
        self.copy_in(lab, INSIDE, *(each for each in ("objects",) if (lab / each).exists()))
        self._command("mkdir", "-p", str(self.inside(self.folder)))

    def copy_in(self, folder: Path, into: Path, *names: str) -> None:
        """Copy what is named of a folder of this machine into one of the node.

        :raises RuntimeError: with what was said.
        """
        if not names:
            return
        words = ["tar", "-c", "--exclude=__pycache__", "-C", str(folder), *names]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as packing:
            where = shlex.quote(str(into))
            unpack = f"mkdir -p {where} && tar -x --no-same-owner -C {where}"
            run_in = self.words("sh", "-c", unpack)
            done = subprocess.run(
                run_in, stdin=packing.stdout, capture_output=True, text=True, check=False
            )
        if done.returncode or packing.returncode:
            raise RuntimeError(f"{self.name}: copying {', '.join(names)}: {done.stderr}")

    def _said(self) -> str:
        files = (self.folder / name for name in ("qemu.log", "ssh.log", "console"))
        return "".join(file.read_text(errors="replace")[-2000:] for file in files if file.exists())

    def kill(self) -> None:
        self._up = False
        self.addresses.clear()
        for process in (self._qemu, self._ssh):
            if process:
                process.terminate()  # QEMU still writes its own tables, the guest nothing more
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self._qemu = self._ssh = None
        (self.folder / "ssh").unlink(missing_ok=True)

    @property
    def alive(self) -> bool:
        return self._up and self._qemu is not None and self._qemu.poll() is None

    # --- how others get into it ---------------------------------------------------------------

    @property
    def inventory(self) -> dict[str, Any]:
        return {
            "ansible_become": True,
            "ansible_timeout": 60,
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_common_args": f"-F {self.folder / 'ssh_config'}",
            "ansible_ssh_pipelining": True,
        }

    @property
    def kernel_release(self) -> str:
        return self._release

    def inside(self, file: Path) -> Path:
        return INSIDE / file.relative_to(self.folder.parent)

    def words(self, *words: str) -> list[str]:
        return [*self._ssh_words(), "kubelet", shlex.join(words)]

    def exec(self, *words: str, check: bool = True) -> str:
        done = self._command(*words)
        if done.returncode == _SSH_FAILED:
            raise NodeDown(f"{self.name}: {' '.join(words)}: {done.stderr}")
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def path(self, path: str) -> Path:
        raise NotImplementedError(f"{self.name} has its files to itself: read them")

    def read(self, path: str) -> str:
        return self.exec("sh", "-c", '[ ! -e "$0" ] || cat "$0"', path)

    def write(self, file: Path, text: str) -> None:
        super().write(file, text)
        script = 'cat > "$0.new" && mv "$0.new" "$0"'
        done = self._command("sh", "-c", script, str(self.inside(file)), said=text)
        if done.returncode:
            raise NodeDown(f"{self.name}: {file.name} can't be written: {done.stderr}")

    def beat(self) -> None:
        super().beat()
        self.exec("touch", str(self.inside(self.heartbeat_file)))

    def run_python(self, module: str, *arguments: str) -> str:
        return self.exec(*_PYTHON, module, *arguments)

    def contain_python(self, name: str, pod_uid: str, module: str, *arguments: str) -> _Unit:
        # Named as a kubelet with the systemd driver names a pod's slice.
        slice_ = f"kubepods-burstable-pod{pod_uid.replace('-', '_')}.slice"
        return _Unit(self, f"{name}.service", slice_, (*_PYTHON, module, *arguments))

    @contextmanager
    def felix_health(self) -> Iterator[tuple[str, int]]:
        yield "127.0.0.1", self._ports.health

    def felix_processes(self) -> list[int]:
        found = self.exec("pgrep", "--full", "^calico-node -felix", check=False)
        return sorted(map(int, found.split()))

    def _ssh_words(self) -> list[str]:
        return ["ssh", "-F", str(self.folder / "ssh_config")]

    def _command(self, *words: str, said: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.words(*words), input=said, capture_output=True, text=True, check=False
        )


class _Unit:
    """A program under the node's systemd, as a unit that is gone when it has ended."""

    def __init__(self, vm: Vm, name: str, slice_: str, program: tuple[str, ...]) -> None:
        self._vm, self._name = vm, name
        words = vm.words(
            "systemd-run", "--quiet", "--wait", "--collect", f"--unit={name}", f"--slice={slice_}",
            *program,
        )  # fmt: skip
        with (vm.folder / "felix.out").open("a") as said:
            self._waits = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
            )

    def ended(self, within: float = 0.0) -> bool:
        with suppress(subprocess.TimeoutExpired):
            self._waits.wait(within)
        return self._waits.poll() is not None

    def signal(self, number: Signals) -> None:
        self._vm.exec("systemctl", "kill", f"--signal={number.name}", self._name, check=False)


@dataclass(frozen=True)
class _Ports:
    """Of loopback: those of the node's two sshds, and of its Felix's health."""

    ssh: int
    kubelet: int
    health: int
