# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watches: which events they send, and where they begin and end."""

from __future__ import annotations

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.workloads import (
    Object,
)


def test_an_update_without_changes_sends_no_event(raw: Client, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    made = raw.do("POST", path, {"metadata": {"name": "one"}, "data": {"a": "0"}})
    version = made["metadata"]["resourceVersion"]
    for value in ("1", "2", "3", "4", "4", "5"):
        raw.do("PATCH", f"{path}/one", {"data": {"a": value}})
    raw.do("POST", path, {"metadata": {"name": "two"}})
    seen = []
    for event in raw.watch(path, resourceVersion=version, timeoutSeconds=10):
        if event["object"]["metadata"]["name"] == "two":
            break
        seen.append((event["type"], event["object"]["data"]["a"]))
    assert seen == [("MODIFIED", value) for value in "12345"]


def test_a_watch_resumes_where_it_was_cut(raw: Client, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    version = raw.do("GET", path)["metadata"]["resourceVersion"]
    for number in range(6):
        raw.do("POST", path, {"metadata": {"name": f"m{number}"}})
    seen: list[str] = []
    while len(seen) < 6:
        events = raw.watch(path, resourceVersion=version, timeoutSeconds=10)
        for event in (next(events), next(events)):
            seen.append(event["object"]["metadata"]["name"])
            version = event["object"]["metadata"]["resourceVersion"]
        events.close()  # type: ignore[attr-defined]
    assert seen == [f"m{number}" for number in range(6)]


def test_a_watch_ends_in_time_and_starts_with_existing_objects(raw: Client, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    raw.do("POST", path, {"metadata": {"name": "mine"}})
    events = [e for e in raw.watch(path, timeoutSeconds=1) if _is(e, "mine")]
    assert [event["type"] for event in events] == ["ADDED"]
    assert events[0]["object"]["kind"] == "ConfigMap"


def test_a_watch_with_a_selector_reports_objects_that_leave_it(raw: Client, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    version = raw.do("GET", path)["metadata"]["resourceVersion"]
    raw.do("POST", path, {"metadata": {"name": "one"}})
    for color in ("red", "blue", "red"):
        raw.do("PATCH", f"{path}/one", {"metadata": {"labels": {"color": color}}})
    raw.do("DELETE", f"{path}/one")
    events = raw.watch(path, resourceVersion=version, labelSelector="color=red", timeoutSeconds=10)
    seen = [next(events)["type"] for _event in range(4)]
    assert seen == ["ADDED", "DELETED", "ADDED", "DELETED"]


def _is(event: Object, name: str) -> bool:
    return bool(event["object"]["metadata"]["name"] == name)
