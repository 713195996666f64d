# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible's connection to a lab node, in place of SSH: enters the namespaces of its init."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: lab_node
short_description: Run tasks in a node of the tests' lab
description: Enters the namespaces of the process whose id a file holds.
author: the dataplane.calico_bpf contributors
options:
  init_file:
    description: The file that holds the process id of the node's init.
    required: true
    vars:
      - name: lab_init_file
"""


class Connection(ConnectionBase):  # type: ignore[misc]  # ansible has no types
    transport = "lab_node"
    has_pipelining = True

    def _connect(self) -> Connection:
        self._init()
        self._connected = True
        return self

    def exec_command(
        self, cmd: str, in_data: bytes | None = None, sudoable: bool = True
    ) -> tuple[int, bytes, bytes]:
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        init = self._init()
        words = ["nsenter", f"--target={init}", "--mount", "--net", "--pid", "--uts", "--"]
        done = subprocess.run(
            [*words, "/bin/sh", "-c", cmd], input=in_data or b"", capture_output=True, check=False
        )
        if done.returncode:
            self._init()  # what ended with its node has not failed: it is unknown
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path: str, out_path: str) -> None:
        super().put_file(in_path, out_path)
        shutil.copyfile(in_path, self._outside(out_path))

    def fetch_file(self, in_path: str, out_path: str) -> None:
        super().fetch_file(in_path, out_path)
        shutil.copyfile(self._outside(in_path), out_path)

    def close(self) -> None:
        self._connected = False

    def _outside(self, path: str) -> Path:
        """A file of the node as it is found from here."""
        return Path(f"/proc/{self._init()}/root", path.lstrip("/"))

    def _init(self) -> int:
        """The process id of the node's init.

        :raises AnsibleConnectionFailure: it is gone.
        """
        path = Path(self.get_option("init_file"))
        try:
            pid = int(path.read_text())
            status = Path(f"/proc/{pid}/status").read_text()
        except (OSError, ValueError) as error:
            raise _unreachable(path, error) from None
        fields: dict[str, Any] = dict(line.split(":\t", 1) for line in status.splitlines())
        if fields["State"].startswith("Z") or fields["NSpid"].split()[-1] != "1":
            raise _unreachable(path, "its init has ended")
        return pid


def _unreachable(path: Path, why: object) -> AnsibleConnectionFailure:
    return AnsibleConnectionFailure(f"the node of {path} is down: {why}")
