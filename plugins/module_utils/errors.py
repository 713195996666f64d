# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors whose text the user sees. Only module.py and the actions turn them into a failure."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any


class DataplaneError(Exception):
    """The text says what failed, where, and what to do next.

    ``facts`` are returned beside the text: what was changed, what remains.
    """

    def __init__(self, text: str, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(text)
        self.facts = dict(facts or {})


class Refusal(DataplaneError):
    """Bad input or a missing precondition: nothing was changed."""


class KernelError(DataplaneError):
    """The kernel refused ``operation`` with ``errno``.

    ``detail`` is the kernel's own explanation, if any: netlink's extended
    acknowledgement, or the verifier's log.
    """

    def __init__(self, operation: str, number: int, detail: str = "") -> None:
        self.operation = operation
        self.errno = number
        self.detail = detail
        name = errno.errorcode.get(number, str(number))
        text = f"{operation}: {name} ({os.strerror(number)})"
        super().__init__(f"{text}: {detail}" if detail else text)


class ProgramRefused(DataplaneError):
    """The compiler or the kernel's verifier refused a program, as ``verifier_log`` says."""

    def __init__(self, text: str, log: str) -> None:
        super().__init__(f"{text}; nothing was attached:\n{log}", {"verifier_log": log})


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
