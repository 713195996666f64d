# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors whose text the user sees. Only module.py and the actions turn them into a failure."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any

#: The most characters of a text of another program that a message quotes.
MOST_QUOTED = 1000


def beginning_of(text: str, most: int = MOST_QUOTED) -> str:
    """``text``; of a longer one the beginning, with a mark that it was cut."""
    if len(text) <= most:
        return text
    return f"{text[:most]} [... {len(text) - most} more characters]"


def end_of(text: str, most: int = MOST_QUOTED) -> str:
    """``text``; of a longer one the end, with a mark that it was cut."""
    if len(text) <= most:
        return text
    return f"[{len(text) - most} characters before ...] {text[-most:]}"


class DataplaneError(Exception):
    """The text says what failed, where, and what to do next.

    ``facts`` are returned beside the text: what was changed, what remains.
    """

    def __init__(self, text: str, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(text)
        self.facts = dict(facts or {})


class Refusal(DataplaneError):
    """Bad input or a missing precondition: nothing was changed."""


#: What to do about an errno whose cause is the node, not the endpoint.
_ADVICE = {
    errno.EPERM: "Run the task as root; if it is, a security module or seccomp forbids the call",
    errno.EACCES: "Run the task as root; if it is, a security module forbids the call",
    errno.EMFILE: "Raise the limit of open files of the process (ulimit -n)",
    errno.ENFILE: "The node has too many open files: raise fs.file-max",
    errno.ENOBUFS: "The node is short of socket memory: free memory or wait for the load to drop",
    errno.ENOMEM: "The node is short of memory: free some",
    errno.EOPNOTSUPP: (
        "The kernel does not allow this here. If the interface shares its filters with others (tc "
        "qdisc show dev IFACE shows ingress_block or egress_block), its owner must separate them"
    ),
}


class KernelError(DataplaneError):
    """A system call for ``operation`` failed with ``errno``.

    ``detail`` is the kernel's own explanation, if any: netlink's extended acknowledgement, or the
    verifier's log. ``place`` is the interface and, if there is one, the hook.
    ``unanswered``: the request was sent, but its answer could not be received, so the kernel may
    have carried it out.
    """

    def __init__(
        self,
        operation: str,
        number: int,
        detail: str = "",
        *,
        place: str = "",
        unanswered: bool = False,
    ) -> None:
        self.operation = operation
        self.errno = number
        self.detail = detail
        self.place = place
        self.unanswered = unanswered
        name = errno.errorcode.get(number, str(number))
        text = f"{operation}: {name} ({os.strerror(number)})"
        text = f"{place}: {text}" if place else text
        super().__init__(f"{text}: {detail}" if detail else text)

    @property
    def advice(self) -> str:
        """What to do about it; empty if that depends on the operation."""
        return _ADVICE.get(self.errno, "")

    def at(self, place: str) -> KernelError:
        """The same error with the place where it happened, unless that is known already."""
        if self.place:
            return self
        return KernelError(
            self.operation, self.errno, self.detail, place=place, unanswered=self.unanswered
        )


class ProgramRefused(DataplaneError):
    """The compiler or the kernel's verifier refused a program, as ``verifier_log`` says.

    The message has the end of a long log, where the verifier says what it refuses.
    """

    def __init__(self, text: str, log: str) -> None:
        shown = end_of(log, 4 * MOST_QUOTED)
        super().__init__(f"{text}; nothing was attached:\n{shown}", {"verifier_log": log})


class ApiError(DataplaneError):
    """The Kubernetes API refused ``operation`` with an HTTP ``status``; 0 without an answer.

    ``reason`` is the reason in the API's answer, such as Forbidden or TooManyRequests.
    """

    def __init__(self, operation: str, status: int, reason: str, message: str) -> None:
        self.operation = operation
        self.status = status
        self.reason = reason
        answer = f"HTTP {status} {reason}" if status else reason
        super().__init__(
            f"{operation}: {answer}: {message}" if message else f"{operation}: {answer}"
        )
