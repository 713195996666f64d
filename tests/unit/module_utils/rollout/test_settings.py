# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The check of the settings: what a person, a survey or a pipeline gives."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import Refusal
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.setting_kinds import (
    Kind,
    Wrong,
    parse,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.settings import (
    SETTINGS,
    check,
    required,
)

NIGHT = {"start": "22:00", "end": "02:00", "timezone": "Europe/Berlin"}
ONCE = {"start": "2026-11-28 22:00", "end": "2026-11-29 02:00"}


def checked(*hosts: dict[str, Any], **variables: Any) -> dict[str, Any]:
    """The settings of a run with ``variables`` for all hosts, and ``hosts`` for each."""
    named = {f"calico_bpf_{name}": value for name, value in variables.items()}
    raw = {f"worker-{n}": {**named, **host} for n, host in enumerate(hosts or ({},), 1)}
    return check(raw["worker-1"], raw)


def refused(*hosts: dict[str, Any], **variables: Any) -> str:
    with pytest.raises(Refusal) as refusal:
        checked(*hosts, **variables)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        (Kind.BOOL, True, True),
        (Kind.BOOL, "True", True),
        (Kind.BOOL, "no", False),
        (Kind.BOOL, 0, False),
        (Kind.COUNT, "20", 20),
        (Kind.COUNT, 0, 0),
        (Kind.SECONDS, 90, 90),
        (Kind.SECONDS, "90", 90),
        (Kind.SECONDS, "90s", 90),
        (Kind.SECONDS, "2m", 120),
        (Kind.SECONDS, "1h 30m", 5400),
        (Kind.BATCHES, [1, "10%", "25%"], [1, "10%", "25%"]),
        (Kind.BATCHES, "1,10%, 25%", [1, "10%", "25%"]),
        (Kind.BATCHES, '[1, "10%"]', [1, "10%"]),
        (Kind.BATCHES, 3, [3]),
        (Kind.BATCHES, "100%", ["100%"]),
        (Kind.WINDOW, NIGHT, NIGHT),
        (Kind.WINDOW, json.dumps(NIGHT), NIGHT),
        (Kind.WINDOW, "22:00-02:00 Europe/Berlin", NIGHT),
        (Kind.WINDOW, "22:00 - 02:00", {"start": "22:00", "end": "02:00"}),
        (Kind.WINDOW, "2026-11-28 22:00-2026-11-29 02:00", ONCE),
        (Kind.WINDOW, {}, {}),
        (Kind.CODES, ["no_room"], ["no_room"]),
        (Kind.CODES, "no_room, node_not_ready", ["no_room", "node_not_ready"]),
        (Kind.VERSION, " v3.29.7-0 ", "v3.29.7-0"),
    ],
)
def test_what_is_accepted(kind: Kind, value: Any, wanted: Any) -> None:
    assert parse(kind, value) == wanted


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Kind.BOOL, "maybe"),
        (Kind.BOOL, 2),
        (Kind.BOOL, [True]),
        (Kind.COUNT, -1),
        (Kind.COUNT, "1000001"),
        (Kind.COUNT, False),
        (Kind.SECONDS, "abc"),
        (Kind.SECONDS, "2 minutes"),
        (Kind.SECONDS, -1),
        (Kind.SECONDS, 1.5),
        (Kind.SECONDS, True),
        (Kind.SECONDS, "9" * 30),
        (Kind.BATCHES, []),
        (Kind.BATCHES, "1,,2"),
        (Kind.BATCHES, ["0"]),
        (Kind.BATCHES, ["101%"]),
        (Kind.BATCHES, "ten"),
        (Kind.BATCHES, [True]),
        (Kind.BATCHES, '[1, "10%"'),
        (Kind.WINDOW, {"from": "22:00", "end": "02:00"}),
        (Kind.WINDOW, {"start": "22:00"}),
        (Kind.WINDOW, {"start": 79200, "end": "02:00"}),
        (Kind.WINDOW, {"start": "25:00", "end": "02:00"}),
        (Kind.WINDOW, "22:00"),
        (Kind.WINDOW, "22:00-02:00 Berlin"),
        (Kind.WINDOW, "[" * 100_000),
        (Kind.WINDOW, ["22:00", "02:00"]),
        (Kind.CODES, ["a b"]),
        (Kind.CODES, [1]),
        (Kind.VERSION, 3.30),
        (Kind.VERSION, "v3 29"),
        (Kind.TEXT, ["a"]),
    ],
)
def test_what_is_refused(kind: Kind, value: Any) -> None:
    with pytest.raises(Wrong):
        parse(kind, value)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(Kind), ANYTHING)
def test_anything_is_parsed_or_refused(kind: Kind, value: Any) -> None:
    """And what is parsed is in its final form."""
    try:
        found = parse(kind, value)
    except Wrong:
        return
    assert parse(kind, found) == found


def test_the_defaults_are_of_their_kind() -> None:
    for setting in SETTINGS:
        if setting.default is not None:
            assert parse(setting.kind, setting.default) == setting.default


def test_nothing_is_given() -> None:
    values = checked()
    assert values == {setting.name: setting.default for setting in SETTINGS}


def test_an_unanswered_question_of_a_survey_is_not_set() -> None:
    empty = {setting.name: "" for setting in SETTINGS}
    assert checked(**empty) == checked()


def test_everything_that_is_wrong_is_named_at_once() -> None:
    text = refused(soak="abc", windw={}, batches="ten")
    assert (
        "calico_bpf_soak is 'abc'; accepted: seconds, such as 90, or a duration, such as \"90s\""
    ) in text
    assert "calico_bpf_windw is not a setting; the nearest is calico_bpf_window" in text
    assert "calico_bpf_batches is 'ten'; accepted: numbers of nodes or percentages" in text
    assert text.endswith("Nothing was started. docs/operations.md lists the settings")


def test_a_reason_that_is_more_than_the_kind() -> None:
    assert "calico_bpf_window is {'from': '1'} ('from' is not one of start, end, timezone)" in (
        refused(window={"from": "1"})
    )
    assert "calico_bpf_lease_duration is 4 (it is less than 5 s)" in refused(lease_duration=4)


def test_a_long_value_is_cut() -> None:
    assert len(refused(soak="x" * 10_000)) < 300


def test_the_name_of_the_node_differs_between_hosts_and_nothing_else_does() -> None:
    nodes = [{"calico_bpf_node": "a"}, {"calico_bpf_node": "b"}, {}]
    assert checked(*nodes)["node"] == "a"
    text = refused({"calico_bpf_soak": 1}, {"calico_bpf_soak": 2}, {"calico_bpf_soak": 3})
    assert text.startswith(
        "calico_bpf_soak is 1 for worker-1 and 2 for worker-2; set it once for all hosts"
    )
    assert "worker-3" not in text


def test_a_misspelled_variable_of_one_host_is_found() -> None:
    assert "calico_bpf_nod is not a setting; the nearest is calico_bpf_node" in refused(
        {}, {"calico_bpf_nod": "a"}
    )


@pytest.mark.parametrize(
    ("values", "what"), [({}, "neither is set"), ({"version": "v1", "manifest": "m"}, "both are")]
)
def test_what_an_upgrade_needs(values: dict[str, Any], what: str) -> None:
    with pytest.raises(Refusal, match="set calico_bpf_version or calico_bpf_manifest: ") as refusal:
        required(checked(**values), ["version", "manifest"])
    assert what in str(refusal.value)
    required(checked(version="v3.29.7"), ["version", "manifest"])
