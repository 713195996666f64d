# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab of virtual machines, as root: ``python tests/support/vm up``, ``status``, ``down``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    # In place of this folder: what is imported from it is imported by its whole name.
    sys.path[0] = str(Path(__file__).resolve().parents[3] / ".build/collections")
    tests = "ansible_collections.dataplane.calico_bpf.tests"
    command = import_module(f"{tests}.support.lab.command")
    nodes = import_module(f"{tests}.support.vm.vm_nodes")
    sys.exit(command.main(kind=nodes.KIND))
