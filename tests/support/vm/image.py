# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk that all virtual nodes are overlays of, and the kernels to start it with."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import CHECKOUT

#: Debian 12's kernel, where BCC finds headers, and the one of its backports, which has TCX.
SERIES = ("6.1", "6.12")


@dataclass(frozen=True)
class Image:
    folder: Path

    @property
    def disk(self) -> Path:
        return self.folder / "base.raw"

    @property
    def key(self) -> Path:
        """The key that allows a login, as root or as a user who may become root."""
        return self.folder / "key"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def kernel(self, series: str) -> Path:
        return self.folder / f"vmlinuz-{series}"


def image() -> Image:
    """The image, built if it is not in the cache, which takes minutes and shows progress.

    :raises RuntimeError: the build failed; the reason is on standard error.
    """
    done = subprocess.run(
        [CHECKOUT / "tests/support/vm/build_image.sh"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError("the image of the virtual nodes can't be built, see above")
    return Image(Path(done.stdout.splitlines()[-1]))


def cache() -> Path:
    """The folder that outlives every lab."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dataplane-calico-bpf"
