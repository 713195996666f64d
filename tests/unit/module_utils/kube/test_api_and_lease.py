# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Retries of API requests, on the test's own clock, and how a Lease object is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import ApiError
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.api import (
    BudgetExhausted,
    ConnectionLost,
    Kube,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.clock import Clock
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.lease import (
    Record,
    read_record,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


class Server:
    """Raises the given errors, then answers; time passes only while the client sleeps."""

    def __init__(self, *refusals: ApiError) -> None:
        self.refusals = list(refusals)
        self.answers: list[dict[str, Any]] = [{"kind": "Node"}]
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.now = 0.0
        self.logged: list[str] = []

    def send(
        self, method: str, path: str, query: Mapping[str, Any], content_type: str, body: Any
    ) -> bytes:
        self.asked.append((method, path, dict(query)))
        if self.refusals:
            raise self.refusals.pop(0)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return json.dumps(answer).encode()

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def kube(self, patience: float = 60) -> Kube:
        clock = Clock(lambda: self.now, self.sleep)
        return Kube(self.send, patience, self.logged.append, clock)


def refusal(status: int) -> ApiError:
    return ApiError("GET /x", status, "Reason", "message")


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_request_to_a_busy_server_is_retried(status: int) -> None:
    server = Server(*[refusal(status)] * 4)
    assert server.kube().get("/x") == {"kind": "Node"}
    assert len(server.asked) == 5
    assert 1 < server.now < 10
    assert len(server.logged) == 1


def test_a_lost_connection_is_retried() -> None:
    server = Server(ConnectionLost("GET /x", 0, "Refused", ""))
    assert server.kube().get("/x") == {"kind": "Node"}


@pytest.mark.parametrize(
    "error",
    [refusal(code) for code in (400, 401, 403, 404, 409, 422)]
    + [BudgetExhausted("POST /x", 429, "TooManyRequests", "no"), ApiError("GET", 0, "SSL", "")],
)
def test_a_permanent_error_is_not_retried(error: ApiError) -> None:
    server = Server(error)
    with pytest.raises(ApiError) as raised:
        server.kube().get("/x")
    assert raised.value is error
    assert server.now == 0


def test_patience_ends() -> None:
    server = Server(*[refusal(503)] * 1000)
    with pytest.raises(ApiError, match="503"):
        server.kube().get("/x")
    assert 50 < server.now <= 60
    server = Server(refusal(503))
    with pytest.raises(ApiError, match="503"):
        server.kube().without_retries().get("/x")
    assert server.now == 0


def test_find_returns_none_only_for_404() -> None:
    assert Server(refusal(404)).kube().find("/x") is None
    with pytest.raises(ApiError, match="403"):
        Server(refusal(403)).kube().find("/x")


def test_a_lease_is_read() -> None:
    spec = {
        "holderIdentity": "you",
        "acquireTime": "2026-11-23T11:00:00.000000Z",
        "renewTime": "2026-11-23T12:00:00.000000Z",
        "leaseDurationSeconds": 60,
        "leaseTransitions": 3,
    }
    wanted = Record("you", NOON - timedelta(hours=1), NOON, 60.0, 3)
    assert read_record({"spec": spec}) == wanted
    assert wanted.expires == NOON + timedelta(seconds=60)
    assert read_record(None) == read_record({"spec": {}}) == Record()
