# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Failed system calls as the collection's own errors."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import KernelError

#: A privilege or a feature that the process or the kernel lacks, so that every such call fails. Any
#: other error is one of this call.
LACKING = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})


def failed(operation: str, error: OSError, *, unanswered: bool = False) -> KernelError:
    """``error`` of the system call that ``operation`` needs."""
    detail = "" if error.filename is None else str(error.filename)
    return KernelError(operation, error.errno or errno.EIO, detail, unanswered=unanswered)


@contextmanager
def calling(operation: str) -> Iterator[None]:
    """:raises KernelError: a system call of the body fails."""
    try:
        yield
    except OSError as error:
        raise failed(operation, error) from error


class located:  # in lower case like contextlib's; a generator would cost an audit a tenth
    """Add the place to the KernelErrors of the body."""

    def __init__(self, interface: str, hook: str = "") -> None:
        self._place = interface, hook

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, KernelError):
            raise error.at(" ".join(self._place).rstrip()) from error
