# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The advisories of each upgrade path, and the paths that are refused."""

from __future__ import annotations

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.calico.advisories import (
    ADVISORIES,
    CODES,
    AdvisorySeverity,
    UpgradePath,
    select,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.calico.versions import parse

OLD, NEW = (5, 15), (6, 12)


def path(
    origin: str,
    target: str,
    kernel: tuple[int, int] | None = OLD,
    encapsulation: str | None = "none",
    attach_type: str | None = "tc",
) -> UpgradePath:
    return UpgradePath(
        origin=parse(origin),
        target=parse(target),
        kernel=kernel,
        encapsulation=encapsulation,
        attach_type=attach_type,
    )


def codes(way: UpgradePath, *severities: AdvisorySeverity) -> set[str]:
    return {a.code for a in select(way) if a.severity in (severities or tuple(AdvisorySeverity))}


def refused(way: UpgradePath) -> set[str]:
    return codes(way, AdvisorySeverity.REFUSE)


@pytest.mark.parametrize(
    ("origin", "target", "encapsulation", "expected"),
    [
        ("v3.30.4", "v3.31.7", "vxlan", True),
        ("v3.30.6", "v3.32.1", "vxlan", True),
        ("v3.29.7", "v3.31.7", "vxlan", True),
        ("v3.30.7", "v3.31.7", "vxlan", False),  # the way round
        ("v3.30.4", "v3.30.7", "vxlan", False),
        ("v3.30.4", "v3.31.7", "ipip", False),
        ("v3.30.4", "v3.31.7", "none", False),
    ],
)
def test_vxlan_across_3_31(origin: str, target: str, encapsulation: str, expected: bool) -> None:
    way = path(origin, target, encapsulation=encapsulation)
    assert ("vxlan_mixed_releases" in refused(way)) is expected


@pytest.mark.parametrize(
    ("target", "kernel", "expected"),
    [
        ("v3.28.5", NEW, True),
        ("v3.29.6", NEW, True),
        ("v3.29.7", NEW, False),
        ("v3.30.4", (6, 17), True),
        ("v3.30.5", (6, 17), False),
        ("v3.31.2", NEW, True),
        ("v3.31.3", NEW, False),
        ("v3.29.6", (6, 11), False),
        ("v3.27.4", NEW, False),  # its load balancer has no program array yet
    ],
)
def test_new_kernels_need_the_fix(target: str, kernel: tuple[int, int], expected: bool) -> None:
    assert ("ctlb_kernel" in refused(path("v3.28.1", target, kernel))) is expected


@pytest.mark.parametrize(
    ("origin", "target", "attach_type", "expected"),
    [
        ("v3.31.7", "v3.30.7", "tcx", {"tcx_downgrade"}),
        ("v3.32.1", "v3.29.7", "tcx", {"tcx_downgrade"}),
        ("v3.31.7", "v3.30.7", "tc", {"tcx_left"}),
        ("v3.31.7", "v3.31.6", "tcx", set()),
        ("v3.30.7", "v3.31.7", "tcx", {"tcx_switch"}),
        ("v3.30.7", "v3.31.7", "tc", set()),
    ],
)
def test_tcx_on_the_way(origin: str, target: str, attach_type: str, expected: set[str]) -> None:
    way = path(origin, target, attach_type=attach_type)
    assert {code for code in codes(way) if code.startswith("tcx")} == expected
    assert ("tcx_downgrade" in refused(way)) is ("tcx_downgrade" in expected)


@pytest.mark.parametrize(
    "target", ["v3.27.5", "v3.28.2", "v3.28.3", "v3.29.0", "v3.29.1", "v3.29.2", "v3.29.3"]
)
def test_no_way_into_the_heartbeat_churn(target: str) -> None:
    assert "heartbeat_churn" in refused(path("v3.26.4", target))


@pytest.mark.parametrize("target", ["v3.28.4", "v3.29.4", "v3.30.0", "v3.29.5", "v3.31.7"])
def test_the_way_out_of_it_is_free(target: str) -> None:
    assert refused(path("v3.29.1", target)) == set()


@pytest.mark.parametrize("target", ["v3.33.0", "v3.23.5", "latest", "v3.31.0-rc1"])
def test_an_unknown_target_is_refused_and_nothing_else_is_said(target: str) -> None:
    (only,) = select(path("v3.30.7", target))
    assert (only.code, only.severity) == ("unknown_version", AdvisorySeverity.REFUSE)


def test_an_unknown_origin_is_a_warning() -> None:
    assert "unknown_origin" in codes(path("latest", "v3.31.7"), AdvisorySeverity.WARN)


@pytest.mark.parametrize(
    ("target", "created", "persists"),
    [
        ("v3.26.4", False, False),
        ("v3.27.0", True, True),
        ("v3.28.0", True, False),
        ("v3.28.4", True, True),
        ("v3.28.5", False, True),
        ("v3.29.4", True, True),
        ("v3.29.5", False, True),
        ("v3.30.0", True, True),
        ("v3.30.7", False, True),
        ("v3.31.0", False, False),
    ],
)
def test_advisories_about_parity(target: str, created: bool, persists: bool) -> None:
    found = codes(path("v3.28.1", target), AdvisorySeverity.WARN)
    assert ("parity_created" in found, "parity_persists" in found) == (created, persists)


@pytest.mark.parametrize(
    ("origin", "target", "warned"),
    [
        ("v3.28.0", "v3.28.5", True),
        ("v3.28.1", "v3.30.7", True),
        ("v3.28.1", "v3.31.0", False),
        ("v3.28.2", "v3.29.7", False),
    ],
)
def test_hooks_that_the_running_release_never_compared(
    origin: str, target: str, warned: bool
) -> None:
    found = codes(path(origin, target), AdvisorySeverity.WARN)
    assert ("parity_unnoticed" in found) is warned


def test_an_unknown_value_never_refuses() -> None:
    way = path("v3.30.4", "v3.31.2", kernel=None, encapsulation=None, attach_type=None)
    assert refused(way) == set()
    texts = {a.code: a.text for a in select(way)}
    assert texts["ctlb_kernel"].startswith("May apply (unknown: the kernel): ")
    assert texts["vxlan_mixed_releases"].startswith("May apply (unknown: the encapsulation): ")
    assert texts["tcx_switch"].startswith("May apply (unknown: the attach type): ")
    # Where another condition already fails, there is no doubt.
    assert "tcx_downgrade" not in texts


def test_nothing_is_said_of_standing_still() -> None:
    assert select(path("v3.29.1", "v3.29.1", NEW, "vxlan", "tcx")) == []


def test_only_another_minor_release_needs_its_manifest() -> None:
    assert "manifest_changed" in codes(path("v3.28.1", "v3.29.5"))
    assert "manifest_changed" not in codes(path("v3.29.4", "v3.29.5"))
    assert "downgrade" in codes(path("v3.29.5", "v3.29.4"))
    assert "downgrade" not in codes(path("v3.29.4", "v3.29.5"))


def test_the_gravest_comes_first_and_each_says_what_to_do() -> None:
    severities = [a.severity for a in select(path("v3.31.7", "v3.29.3", NEW, "vxlan", "tcx"))]
    assert severities == sorted(severities, key=list(AdvisorySeverity).index)
    assert severities[0] is AdvisorySeverity.REFUSE
    assert len(CODES) == len(ADVISORIES) + 2
    for advisory in ADVISORIES:
        assert advisory.text.endswith("."), advisory.code
        assert advisory.advice.endswith("."), advisory.code
        for fixed in advisory.fixed_in:
            release = parse(fixed)
            assert release is not None, advisory.code
            assert advisory.target is None or release not in advisory.target, advisory.code
