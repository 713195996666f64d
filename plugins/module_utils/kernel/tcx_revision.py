# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The number of changes to the TCX programs of a hook, which the kernel only counts."""

from __future__ import annotations

import errno
import struct

from ..errors import KernelError
from ..model import Hook
from . import bpf

_REVISION = struct.Struct("=Q")
#: query.revision in union bpf_attr (include/uapi/linux/bpf.h).
_REVISION_AT = 56


def tcx_revision(ifindex: int, hook: Hook) -> int | None:
    """A number that each attach, replace and detach at the hook increments.

    :returns: None if the interface no longer exists, or the kernel has no TCX.
    :raises KernelError: EPERM without CAP_NET_ADMIN.
    """
    try:
        bpf.tcx_programs(ifindex, hook)
    except KernelError as error:
        if error.errno in (errno.EINVAL, errno.ENODEV):
            return None
        raise
    (revision,) = _REVISION.unpack_from(bpf._attr, _REVISION_AT)
    return int(revision)
