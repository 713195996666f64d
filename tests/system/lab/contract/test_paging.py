# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists in pages: how the embedded API and the real one serve them, and how they are read."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.api import Kube
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.api import Api
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.control_plane import (
    ControlPlane,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.embedded import EmbeddedApi

Object = dict[str, Any]
NAMES = ["a", "b", "c", "d", "e"]


@pytest.fixture
def path(raw: Client, space: str) -> str:
    """A list of five objects, two of which have the label odd=no."""
    made = f"/api/v1/namespaces/{space}/secrets"
    for number, name in enumerate(NAMES):
        labels = {"odd": "no" if number % 2 else "yes"}
        raw.do("POST", made, {"metadata": {"name": name, "labels": labels}})
    return made


def names(page: Object) -> list[str]:
    return [item["metadata"]["name"] for item in page["items"]]


def forget(api: Api, raw: Client, path: str) -> None:
    """Change an object, and make the API discard older versions."""
    raw.do("PATCH", f"{path}/e", {"metadata": {"annotations": {"changed": "yes"}}})
    if isinstance(api, EmbeddedApi):
        api.store.forget()
    elif isinstance(api, ControlPlane):
        api.compact(int(raw.do("GET", path)["metadata"]["resourceVersion"]))


def test_a_list_is_read_page_by_page(raw: Client, path: str) -> None:
    first = raw.do("GET", path, limit=2)
    assert names(first) == ["a", "b"]
    assert first["metadata"]["remainingItemCount"] == 3
    more = {"limit": 2, "continue": first["metadata"]["continue"]}
    second = raw.do("GET", path, **more)
    assert names(second) == ["c", "d"]
    assert second["metadata"]["remainingItemCount"] == 1
    last = raw.do("GET", path, **{**more, "continue": second["metadata"]["continue"]})
    assert names(last) == ["e"]
    assert not last["metadata"].get("continue")
    assert "remainingItemCount" not in last["metadata"]


@pytest.mark.parametrize("limit", [0, 5, 6])
def test_a_list_within_the_limit_is_complete(raw: Client, path: str, limit: int) -> None:
    whole = raw.do("GET", path, limit=limit)
    assert names(whole) == NAMES
    assert not whole["metadata"].get("continue")
    assert "remainingItemCount" not in whole["metadata"]


def test_without_a_limit_the_rest_is_returned(raw: Client, path: str) -> None:
    token = raw.do("GET", path, limit=2)["metadata"]["continue"]
    assert names(raw.do("GET", path, **{"continue": token})) == ["c", "d", "e"]


def test_pages_are_of_one_snapshot(raw: Client, path: str) -> None:
    first = raw.do("GET", path, limit=2)
    raw.do("DELETE", f"{path}/c")
    raw.do("POST", path, {"metadata": {"name": "bb"}})
    raw.do("PATCH", f"{path}/d", {"metadata": {"annotations": {"late": "yes"}}})
    rest = raw.do("GET", path, **{"limit": 5, "continue": first["metadata"]["continue"]})
    assert names(rest) == ["c", "d", "e"]
    assert "annotations" not in rest["items"][1]["metadata"]
    assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert names(raw.do("GET", path)) == ["a", "b", "bb", "d", "e"]


def test_a_page_is_filled_with_selected_objects(raw: Client, path: str) -> None:
    """With a selector, the remaining items are not counted."""
    first = raw.do("GET", path, limit=2, labelSelector="odd=yes")
    assert names(first) == ["a", "c"]
    assert "remainingItemCount" not in first["metadata"]
    more = {"limit": 2, "labelSelector": "odd=yes", "continue": first["metadata"]["continue"]}
    assert names(raw.do("GET", path, **more)) == ["e"]


def test_the_last_page_may_be_empty(raw: Client, path: str) -> None:
    """More objects follow, but the selector has not been applied to them yet."""
    query: Object = {"limit": 2, "labelSelector": "odd=no"}
    first = raw.do("GET", path, **query)
    assert names(first) == ["b", "d"]
    last = raw.do("GET", path, **{**query, "continue": first["metadata"]["continue"]})
    assert names(last) == []
    assert not last["metadata"].get("continue")


def test_pages_continue_across_namespaces(raw: Client, path: str) -> None:
    everywhere: list[str] = []
    query: Object = {"limit": 2}
    while True:
        page = raw.do("GET", "/api/v1/secrets", **query)
        everywhere += [item["metadata"]["uid"] for item in page["items"]]
        if not page["metadata"].get("continue"):
            break
        query["continue"] = page["metadata"]["continue"]
    assert len(everywhere) >= len(NAMES)
    assert everywhere == [h["metadata"]["uid"] for h in raw.do("GET", "/api/v1/secrets")["items"]]


@pytest.mark.parametrize("token", ["x", base64.urlsafe_b64encode(b"{}").decode()])
def test_a_foreign_token_is_refused(raw: Client, path: str, token: str) -> None:
    answer = raw.ask("GET", path, **{"continue": token})
    assert (answer.code, answer.body["reason"]) == (400, "BadRequest")


def test_a_list_expires(either_api: Api, raw: Client, path: str) -> None:
    """The answer has a token for the rest as it is now."""
    token = raw.do("GET", path, limit=2)["metadata"]["continue"]
    raw.do("DELETE", f"{path}/c")
    forget(either_api, raw, path)
    answer = raw.ask("GET", path, **{"continue": token})
    assert (answer.code, answer.body["reason"]) == (410, "Expired")
    rest = raw.do("GET", path, **{"limit": 5, "continue": answer.body["metadata"]["continue"]})
    assert names(rest) == ["d", "e"]


def test_reading_an_expired_list_starts_over(
    either_api: Api, raw: Client, path: str, kube: Kube, logged: list[str]
) -> None:
    """The result is of one snapshot."""
    seen: list[str] = []

    def keep(item: Object) -> str:
        name: str = item["metadata"]["name"]
        seen.append(name)
        if seen == ["a"]:
            raw.do("DELETE", f"{path}/b")
            forget(either_api, raw, path)
        return name

    assert kube.collect(path, keep, limit=2) == ["a", "c", "d", "e"]
    assert seen == ["a", "b", "a", "c", "d", "e"]
    assert any("started over" in line for line in logged)
