# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A map that Felix pins in eBPF mode and keeps open (felix/bpf/conntrack at v3.29.1)."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
_HASH = 1
CONNTRACK = Path("/sys/fs/bpf/tc/globals/cali_v4_ct3")


def pin_map(path: Path = CONNTRACK) -> int:
    """Open the pinned map, or make it; its fd.

    :raises OSError: there is no bpffs, or no privilege.
    """
    held = _libbpf.bpf_obj_get(os.fsencode(path))
    if held >= 0:
        return int(held)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = _libbpf.bpf_map_create(_HASH, path.name.encode(), 16, 64, 1, None)
    if made < 0 or _libbpf.bpf_obj_pin(made, os.fsencode(path)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    return int(made)
