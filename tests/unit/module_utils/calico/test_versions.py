# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases: read from tags, compared, and what each one does."""

from __future__ import annotations

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.calico.versions import (
    Release,
    attach_type,
    behaviour,
    calico_version,
    churns,
    knows_tcx,
    parse,
    parse_kernel,
    releases,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import Behaviour


def release(text: str) -> Release:
    found = parse(text)
    assert found is not None, text
    return found


@pytest.mark.parametrize(
    ("text", "expected", "final"),
    [
        ("v3.29.5", (3, 29, 5), True),
        ("3.29.5", (3, 29, 5), True),
        (" v3.29.5 ", (3, 29, 5), True),
        ("v3.29.5-amd64", (3, 29, 5), True),
        ("v3.29.5-fips", (3, 29, 5), True),
        ("v3.29.5-precompiled", (3, 29, 5), True),
        ("v3.31.0-rc1", (3, 31, 0), False),
        ("v3.31.0-beta.2", (3, 31, 0), False),
        ("v3.33.0-0.dev-482-g0123abcd", (3, 33, 0), False),
    ],
)
def test_a_tag_names_a_release(text: str, expected: tuple[int, int, int], final: bool) -> None:
    found = release(text)
    assert (found.major, found.minor, found.patch) == expected
    assert found.final is final


@pytest.mark.parametrize("text", ["", "latest", "master", "v3.29", "release-v3.29", "v3.29.x"])
def test_anything_else_names_none(text: str) -> None:
    assert parse(text) is None


def test_releases_compare_as_numbers_and_variants_are_the_same() -> None:
    ordered = ["v3.9.9", "v3.28.5", "v3.29.0-rc1", "v3.29.0", "v3.29.9", "v3.29.10", "v4.0.0"]
    assert sorted(ordered, key=release) == ordered
    assert release("v3.29.5-amd64") == release("3.29.5")
    assert str(release("3.29.5-amd64")) == "v3.29.5-amd64"


def test_spans_hold_both_their_ends() -> None:
    some = releases("-3.26.4 3.28.2-3.28.3 3.31.0-")
    inside = ["v3.20.0", "v3.26.4", "v3.28.2", "v3.28.3", "v3.31.0", "v4.1.0"]
    assert [text for text in inside if release(text) not in some] == []
    outside = ["v3.26.5", "v3.28.1", "v3.28.4", "v3.30.7", "v3.31.0-rc1"]
    assert [text for text in outside if release(text) in some] == []
    with pytest.raises(ValueError, match="not a release: soon"):
        releases("3.28.0-soon")


# Read in projectcalico/calico at these tags: felix/bpf/tc/attach.go, bpf_ep_mgr.go.
@pytest.mark.parametrize(
    ("expected", "tags"),
    [
        (None, "3.24.0 3.26.5 3.27.0 3.27.4"),
        (Behaviour.ADD_WITHOUT_COMPARE, "3.28.0 3.28.1"),
        (Behaviour.ADD_THEN_DELETE, "3.27.5 3.28.2 3.28.3 3.28.4 3.29.0 3.29.1 3.29.4 3.30.0"),
        (Behaviour.REPLACE_AND_COMPARE, "3.28.5 3.29.5 3.29.6 3.29.7 3.30.1 3.30.4 3.30.7"),
        (Behaviour.REPLACE, "3.31.0 3.31.7 3.32.0 3.32.1"),
        (None, "3.33.0 4.0.0 3.31.0-rc1"),
    ],
)
def test_the_behaviour_of_each_release(expected: Behaviour | None, tags: str) -> None:
    assert {behaviour(release(tag)) for tag in tags.split()} == {expected}
    assert behaviour(None) is None


def test_only_a_known_release_is_passed_on_to_modules() -> None:
    given = ["v3.24.0", "3.28.1", "v3.29.5-amd64", "v3.32.1", "v3.33.0", "v3.31.0-rc1", "latest"]
    assert [calico_version(parse(text)) for text in given] == [
        "v3.24.0", "v3.28.1", "v3.29.5-amd64", "v3.32.1", "auto", "auto", "auto"
    ]  # fmt: skip


def test_which_releases_churn_with_every_heartbeat() -> None:
    tags = "3.27.4 3.27.5 3.28.1 3.28.2 3.28.3 3.28.4 3.29.0 3.29.3 3.29.4 3.30.0"
    churning = [tag for tag in tags.split() if churns(parse(tag))]
    assert churning == ["3.27.5", "3.28.2", "3.28.3", "3.29.0", "3.29.3"]
    assert not churns(None)


def test_known_releases() -> None:
    assert all(release(tag).known for tag in ("3.24.0", "3.30.7", "3.32.9"))
    assert not any(release(tag).known for tag in ("3.23.5", "3.33.0", "4.0.0", "3.31.0-rc1"))
    assert [knows_tcx(parse(tag)) for tag in ("3.30.7", "3.31.0", "latest")] == [False, True, False]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6.12.57+deb13-amd64", (6, 12)),
        ("5.15.0-105-generic", (5, 15)),
        ("6.6", (6, 6)),
        ("", None),
        ("?", None),
    ],
)
def test_a_kernel_is_its_first_two_numbers(text: str, expected: tuple[int, int] | None) -> None:
    assert parse_kernel(text) == expected


@pytest.mark.parametrize(
    ("configured", "kernel", "expected"),
    [
        (None, (6, 6), "tcx"),
        (None, (6, 5), "tc"),
        (None, None, None),
        ("TC", (6, 12), "tc"),
        ("TC", None, "tc"),
        ("TCX", (6, 12), "tcx"),
        ("TCX", (5, 15), "tc"),  # Felix falls back by itself
    ],
)
def test_how_a_release_that_knows_tcx_attaches(
    configured: str | None, kernel: tuple[int, int] | None, expected: str | None
) -> None:
    assert attach_type(configured, kernel) == expected
