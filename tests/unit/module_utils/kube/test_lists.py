# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists are read page by page, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import ApiError
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.api import Kube

Page = dict[str, Any]
EXPIRED = ApiError("GET /x", 410, "Expired", "the continue parameter is too old")


class Pages:
    """Answers with one page after the other, an error among them is raised."""

    def __init__(self, *pages: Page | ApiError) -> None:
        self.pages = list(pages)
        self.asked: list[dict[str, Any]] = []

    def send(
        self, method: str, path: str, query: Mapping[str, Any], content_type: str, body: Any
    ) -> bytes:
        self.asked.append(dict(query))
        page = self.pages.pop(0)
        if isinstance(page, ApiError):
            raise page
        return json.dumps(page).encode()

    def kube(self) -> Kube:
        return Kube(self.send, patience=0)


def page(*values: int, more: str = "") -> Page:
    return {"items": [{"a": value} for value in values], "metadata": {"continue": more}}


def test_a_list_is_read_in_pages() -> None:
    pages = Pages(page(1, 2, more="next"), page(3))
    assert pages.kube().items("/x", labelSelector="a=b") == [{"a": 1}, {"a": 2}, {"a": 3}]
    first, second = pages.asked
    assert first == {"limit": 500, "labelSelector": "a=b"}
    assert second == {**first, "continue": "next"}


def test_only_what_is_asked_for_is_kept() -> None:
    pages = Pages(page(1, 2, more="next"), page(3))
    odd = pages.kube().collect("/x", lambda held: held["a"] if held["a"] % 2 else None)
    assert odd == [1, 3]


def test_an_expired_list_begins_again() -> None:
    """What was kept of the first attempt is of another moment, so it does not count."""
    pages = Pages(page(1, more="next"), EXPIRED, page(2, more="other"), page(3))
    assert pages.kube().items("/x") == [{"a": 2}, {"a": 3}]
    assert [query.get("continue") for query in pages.asked] == [None, "next", None, "other"]


def test_a_list_that_always_expires_is_an_error() -> None:
    attempt = (page(1, more="next"), EXPIRED)
    pages = Pages(*attempt * 20)
    with pytest.raises(ApiError, match="410"):
        pages.kube().items("/x")
    assert len(pages.asked) < 20


@pytest.mark.parametrize("status", [403, 500])
def test_a_list_that_breaks_off_is_an_error(status: int) -> None:
    pages = Pages(page(1, more="next"), ApiError("GET /x", status, "Reason", "message"))
    with pytest.raises(ApiError, match=str(status)):
        pages.kube().items("/x")


def test_an_expired_first_page_is_an_error() -> None:
    """Nothing can have expired there: the answer is another's, and stays so."""
    pages = Pages(EXPIRED, page(1))
    with pytest.raises(ApiError, match="410"):
        pages.kube().items("/x")


@pytest.mark.parametrize("answer", [{"kind": "Status"}, page(1, more="next")])
def test_an_answer_that_is_not_the_next_page_is_an_error(answer: Page) -> None:
    """It contains no list, or names itself as the next page."""
    pages = Pages(page(1, more="next"), *[answer] * 5)
    with pytest.raises(ApiError, match="list"):
        pages.kube().items("/x")


def test_an_empty_list_may_be_null() -> None:
    assert Pages({"items": None, "metadata": {}}).kube().items("/x") == []
