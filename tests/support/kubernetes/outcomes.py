# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for a condition, and the HTTP status of a call that must fail."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException


def eventually(condition: Callable[[], Any], patience: float = 30) -> Any:
    """The first true answer of a condition; fails when there is none in time."""
    until = time.monotonic() + patience
    while not (answer := condition()):
        assert time.monotonic() < until, "not in time"
        time.sleep(0.02)
    return answer


def status_of(asked: Callable[[], Any]) -> int:
    """The HTTP status of a call that must fail."""
    with pytest.raises(ApiException) as refused:
        asked()
    return int(refused.value.status)
