# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The log files of the calico-node container that ran last on the node."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence

from ..errors import DataplaneError

#: The kubelet's log files: NAMESPACE_POD_UID/CONTAINER/RESTARTS.log, for installations by
#: manifest and by the operator.
DEFAULT = (
    "/var/log/pods/kube-system_calico-node-*/calico-node/*.log",
    "/var/log/pods/calico-system_calico-node-*/calico-node/*.log",
)


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
    """:raises DataplaneError: a file cannot be read."""
    texts = []
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                texts.append(file.read())
        except OSError as error:
            raise DataplaneError(f"cannot read {path}: {error.strerror}") from None
    return "".join(texts)
