# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the embedded API does beyond a real one: faults on order, denials, and leaving no trace."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.embedded import (
    EmbeddedApi,
    embedded_api,
)

MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
def api() -> Iterator[EmbeddedApi]:
    with embedded_api() as made:
        yield made


@pytest.fixture
def raw(api: EmbeddedApi) -> Client:
    return Client(api)


def test_an_ordered_refusal_lasts_as_long_as_ordered(api: EmbeddedApi, raw: Client) -> None:
    api.faults.refuse("GET", "/configmaps", 500, times=2)
    api.faults.refuse("POST", "/eviction$", 429)
    assert [raw.ask("GET", MAPS).code for _attempt in range(3)] == [500, 500, 200]
    pod = "/api/v1/namespaces/default/pods/none/eviction"
    assert [raw.ask("POST", pod, {}).code for _attempt in range(2)] == [429, 404]


def test_a_refused_change_is_not_made(api: EmbeddedApi, raw: Client) -> None:
    api.faults.refuse("POST", "/configmaps", 500)
    assert raw.ask("POST", MAPS, {"metadata": {"name": "one"}}).code == 500
    assert raw.ask("GET", f"{MAPS}/one").code == 404


def test_a_watch_is_cut_in_the_middle(api: EmbeddedApi, raw: Client) -> None:
    for name in ("one", "two", "three"):
        raw.do("POST", MAPS, {"metadata": {"name": name}})
    api.faults.cut_watch("/configmaps", after=2)
    events = raw.watch(MAPS)
    assert [next(events)["type"] for _event in range(2)] == ["ADDED", "ADDED"]
    with pytest.raises(http.client.HTTPException):
        next(events)
    assert len(list(raw.watch(MAPS, timeoutSeconds=1))) == 3


def test_forgotten_versions_can_not_be_watched(api: EmbeddedApi, raw: Client) -> None:
    version = raw.do("GET", MAPS)["metadata"]["resourceVersion"]
    raw.do("POST", MAPS, {"metadata": {"name": "one"}})
    api.store.forget()
    (event,) = raw.watch(MAPS, resourceVersion=version)
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)


def test_a_denial_shows_in_reviews_and_requests(api: EmbeddedApi, raw: Client) -> None:
    api.access.denied.add(("create", "pods/eviction"))
    attributes = {"verb": "create", "resource": "pods", "subresource": "eviction"}
    body = {"spec": {"resourceAttributes": attributes}}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert raw.do("POST", path, body)["status"]["allowed"] is False
    pod = "/api/v1/namespaces/default/pods/none/eviction"
    assert raw.ask("POST", pod, {}).code == 403
    assert raw.ask("GET", "/api/v1/namespaces/default/pods/none").code == 404


def test_nothing_is_left(api: EmbeddedApi) -> None:
    before = set(threading.enumerate())
    with embedded_api() as second:
        client = Client(second)
        client.do("POST", MAPS, {"metadata": {"name": "one"}})
        watch = client.watch(MAPS)
        next(watch)
    with suppress(http.client.HTTPException):
        assert not list(watch)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()
    assert not second.kubeconfig.parent.exists()
    assert api.kubeconfig.exists()


def test_leftovers_of_a_killed_api_are_removed_by_the_next(api: EmbeddedApi) -> None:
    program = (
        "from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.embedded import "
        "embedded_api\n"
        "with embedded_api() as api:\n"
        "    print(api.kubeconfig, flush=True)\n"
        "    input()\n"
    )
    words = [sys.executable, "-c", program]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, text=True, **pipes) as killed:  # type: ignore[call-overload]
        left = Path(killed.stdout.readline().strip())
        os.kill(killed.pid, signal.SIGKILL)
    assert left.exists()
    with embedded_api():
        assert not left.exists()
    assert api.kubeconfig.exists()
