# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong on a lab node, switched while it runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class NodeFaults:
    """The runtime's faults, and through ``felix`` those of the Felix that runs there."""

    #: The file from which the stand-in reads its faults, and the function that writes it.
    file: Path
    write: Callable[[Path, str], None]
    #: Seconds for which a Felix keeps working after it was asked to end.
    linger: float = 0.0
    #: A Felix that was asked to end is reported as ended, and keeps working.
    runtime_loses_felix: bool = False
    #: Where in a pass the kill hits when a Felix is to end: interface, hook and point, see the
    #: stand-in.
    killed_in_pass: dict[str, str] | None = None

    def felix(self, **faults: Any) -> None:
        """Give the Felix exactly these faults; without arguments it has none."""
        self.write(self.file, json.dumps(faults))
