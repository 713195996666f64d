# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What guests run with: KVM where one really boots with it, else QEMU's own emulation (TCG).

A /dev/kvm that is there may still fail, or hang: the only sign that counts is a kernel that speaks.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.tests.support.vm.image import SERIES, Image, cache

#: Without cmpxchg16b: QEMU 7.2 emulates it in a way that kernel 6.12 dies of.
CPU = {"kvm": "host", "tcg": "Nehalem-v1,-cx16"}
_LIMIT = 10.0
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def accelerator(image: Image) -> str:
    """kvm or tcg; the answer is printed, and cached until this machine reboots."""
    cached, boot = cache() / "vm-accelerator", _BOOT.read_text().strip()
    words = cached.read_text().split() if cached.exists() else []
    if words[:1] != [boot]:
        words = [boot, "kvm" if _boots(image, "kvm") else "tcg"]
        cached.write_text(" ".join(words))
    why = "a kernel boots with it" if words[1] == "kvm" else "no kernel boots with KVM here"
    print(f"accelerator: {words[1]} ({why})", file=sys.stderr)
    return words[1]


def _boots(image: Image, accelerator: str) -> bool:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    with tempfile.TemporaryDirectory() as folder:
        console = Path(folder, "console")
        words = ["qemu-system-x86_64", "-machine", "q35", "-accel", accelerator]
        words += ["-cpu", CPU[accelerator], "-m", "256", "-nodefaults", "-no-user-config"]
        words += ["-display", "none", "-no-reboot", "-serial", f"file:{console}"]
        words += ["-kernel", str(image.kernel(SERIES[0])), "-append", "console=ttyS0 panic=-1"]
        with suppress(subprocess.TimeoutExpired):  # only the output until then matters
            subprocess.run(words, capture_output=True, check=False, timeout=_LIMIT)
        return console.exists() and b"Linux version" in console.read_bytes()
