# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab to try things on, as root: ``python tests/lab up``, ``status``, ``down``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    # In place of this folder, whose selectors.py is not the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[2] / ".build/collections")
    command = import_module("ansible_collections.dataplane.calico_bpf.tests.lab.command")
    sys.exit(command.main())
