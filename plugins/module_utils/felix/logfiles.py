# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The log files of the calico-node container that ran last on the node."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Sequence

from ..errors import DataplaneError

#: The kubelet's log files: NAMESPACE_POD_UID/CONTAINER/RESTARTS.log, for installations by
#: manifest and by the operator.
DEFAULT = (
    "/var/log/pods/kube-system_calico-node-*/calico-node/*.log",
    "/var/log/pods/calico-system_calico-node-*/calico-node/*.log",
)
#: Bytes that are read of a file, its last. The kubelet rotates a file of 10 MiB by default.
_MOST = 16 << 20


def find(globs: Sequence[str], pod_uid: str | None = None) -> list[str]:
    """The newest file that matches, preceded by the one that the kubelet rotated last.

    :param pod_uid: only files in the directory of that pod.
    """
    found = [path for pattern in globs for path in glob.glob(pattern)]
    if pod_uid:
        found = [path for path in found if f"_{pod_uid}/" in path]
    if not found:
        return []
    newest = max(found, key=os.path.getmtime)
    # The newest rotated one is not compressed (kubelet's container_log_manager.go).
    rotated = sorted(p for p in glob.glob(f"{glob.escape(newest)}.*") if not p.endswith(".gz"))
    return [*rotated[-1:], newest]


def read(paths: Sequence[str]) -> str:
    """The end of each file, one after the other.

    :raises DataplaneError: a file cannot be read, or is not a regular one.
    """
    return "".join(_end_of(path) for path in paths)


def _end_of(path: str) -> str:
    """Whole lines. A FIFO would not be opened, and a device not end; links may point to both."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise DataplaneError(f"cannot read {path}: it is not a regular file")
            cut = about.st_size > _MOST
            file.seek(about.st_size - _MOST if cut else 0)
            found = file.read(_MOST)
    except OSError as error:
        raise DataplaneError(f"cannot read {path}: {error.strerror}") from None
    whole = found[found.find(b"\n") + 1 :] if cut else found
    return whole.decode(errors="replace")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
