# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab to try things on, as root: ``python tests/support/lab up``, ``status``, ``down``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    # In place of this folder: what is imported from it is imported by its whole name.
    sys.path[0] = str(Path(__file__).resolve().parents[3] / ".build/collections")
    command = import_module("ansible_collections.dataplane.calico_bpf.tests.support.lab.command")
    sys.exit(command.main())
