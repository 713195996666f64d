# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The namespaces of a node: processes, mounts, network and host name of its own.

Everything in them ends with their init, and so does the init with the process that started it,
however that ends: the init reads a pipe that no other process holds.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.server import run

_KINDS = ("--mount", "--net", "--pid", "--uts")
#: The kubelet sets these sysctls, which belong to the machine: it writes to files instead.
_TUNABLES = {
    "kernel/keys/root_maxbytes": 25000000,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
}
#: Prints the init's process id as it is outside, and becomes the init, whose children are reaped
#: by the kernel. Folders that kubelet and containerd do not let one choose are the node's own:
#: /run/containerd, /var/log/containers and /var/lib/kubelet/device-plugins.
_INIT = r"""
set -e
read -r pid rest < /proc/self/stat
hostname "$0"
mount --make-rshared /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
mkdir -p /run/containerd /run/sysctl /run/overlay/lib /run/overlay/work
mount -t overlay -o lowerdir=/var/lib,upperdir=/run/overlay/lib,workdir=/run/overlay/work \
    overlay /var/lib
for setting in $1; do
    file=/proc/sys/${setting%=*}
    copy=/run/sysctl/${file##*/}
    echo "${setting#*=}" > "$copy"
    mount --bind "$copy" "$file"
done
ip link set lo up
echo "$pid"
exec env --ignore-signal=CHLD cat > /dev/null
"""


class Namespaces:
    """The namespaces of one node, from construction until ``kill``."""

    def __init__(self, hostname: str, log: Path) -> None:
        settings = " ".join(f"{name}={value}" for name, value in _TUNABLES.items())
        words = ["unshare", "--fork", "--kill-child", *_KINDS, "sh", "-c", _INIT, hostname]
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [*words, settings],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # a ctrl-C is for the tests
            )
        assert self._process.stdout
        line = self._process.stdout.readline().strip()
        if not line:
            self._process.wait()
            raise RuntimeError(f"{hostname}: no namespaces: {log.read_text(encoding='utf-8')}")
        #: The process id of the init, as this process sees it.
        self.pid = int(line)

    def words(self, *words: str) -> list[str]:
        """The command that runs a command in the node."""
        return ["nsenter", f"--target={self.pid}", *_KINDS, "--", *words]

    def exec(self, *words: str) -> str:
        """Run a command in the node; its output.

        :raises RuntimeError: it failed; with what it printed.
        """
        return run(*self.words(*words))

    def kill(self) -> None:
        """End the init and thereby all processes, mounts and interfaces of the node."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        if self._process.poll() is None:
            with suppress(ProcessLookupError):  # the end of its input may have ended it already
                os.kill(self.pid, signal.SIGKILL)
        self._process.wait()  # unshare ends after the last process of the namespace
