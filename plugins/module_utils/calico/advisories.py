# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known to go wrong on the way from one Calico release to another. Pure.

``ADVISORIES`` is the data; ``select`` is the door. References are issues, pull requests and commits
of projectcalico/calico; the ranges were checked in its source at the release tags.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from .versions import Release, Releases, releases


class AdvisorySeverity(str, Enum):
    """``refuse``: known to break, the run does not begin. ``warn``: may bite. ``info``: know it."""

    REFUSE = "refuse"
    WARN = "warn"
    INFO = "info"


@dataclass(frozen=True)
class UpgradePath:
    """A way to go: one node's, or one asked about. None is what is not known."""

    origin: Release | None
    target: Release | None
    kernel: tuple[int, int] | None = None
    #: vxlan, ipip or none.
    encapsulation: str | None = None
    #: tc or tcx: how a release that knows TCX attaches, or would attach, there.
    attach_type: str | None = None


@dataclass(frozen=True)
class Advisory:
    """One thing known. Every condition that is given must hold; kernel means that or newer."""

    code: str
    weight: AdvisorySeverity
    text: str
    #: What to do about it.
    advice: str
    fixed_in: tuple[str, ...] = ()
    refs: tuple[str, ...] = ()
    origin: Releases | None = None
    target: Releases | None = None
    kernel: tuple[int, int] | None = None
    encapsulation: str | None = None
    attach_type: str | None = None
    downgrade: bool = False
    another_minor: bool = False

    def __str__(self) -> str:
        fixed = f" Fixed in {', '.join(self.fixed_in)}." if self.fixed_in else ""
        refs = f" ({', '.join(self.refs)})" if self.refs else ""
        return f"{self.text}{fixed} {self.advice}{refs}"


REFUSE, WARN, INFO = AdvisorySeverity.REFUSE, AdvisorySeverity.WARN, AdvisorySeverity.INFO
_NO_TCX = releases("-3.30.9999")

#: Selected by their code, not by a range: what is said of a release that is no known one.
UNKNOWN_VERSION = Advisory(
    "unknown_version",
    REFUSE,
    "{target} is no release of Calico 3.24 to 3.32, so nothing is known of how it attaches.",
    "Name a release by its tag, such as v3.31.7, also where the image is pinned by digest "
    "(image:tag@digest).",
)
UNKNOWN_ORIGIN = Advisory(
    "unknown_origin",
    WARN,
    "What runs now is no known release of Calico, so what is known of the way from it cannot be "
    "told.",
    "Look up by hand what its image is (calico-node -v inside the pod).",
)

ADVISORIES: tuple[Advisory, ...] = (
    # --- ways that are known to break ------------------------------------------------------------
    Advisory(
        "vxlan_mixed_releases",
        REFUSE,
        "While nodes up to 3.30.6 and from 3.31 on stand side by side under VXLAN, traffic from "
        "host-networked pods to services is dropped on those not upgraded yet.",
        "Go to 3.30.7 on all nodes first, then on.",
        ("3.30.7",),
        ("#11910", "25cb2c376e"),
        origin=releases("-3.30.6"),
        target=releases("3.31.0-"),
        encapsulation="vxlan",
    ),
    Advisory(
        "ctlb_kernel",
        REFUSE,
        "The connect-time load balancer's programs do not load on kernels from 6.12 on (seen at "
        "the latest on 6.17.5): calico-node crash-loops.",
        "Choose a target that has the fix.",
        ("3.29.7", "3.30.5", "3.31.3"),
        ("#11302", "#11399", "#11405", "#11406", "#11407"),
        target=releases("3.28.0-3.29.6 3.30.0-3.30.4 3.31.0-3.31.2"),
        kernel=(6, 12),
    ),
    Advisory(
        "tcx_downgrade",
        REFUSE,
        "Releases up to 3.30 know nothing of TCX: the links of the newer Felix stay pinned and run "
        "BEFORE every filter, so an OLD POLICY would decide for ever.",
        "Set bpfAttachType to TC in the FelixConfiguration, wait until qdisc_consistency finds no "
        "attachment of type tcx on any node, then downgrade.",
        refs=("#10573",),
        origin=releases("3.31.0-"),
        target=_NO_TCX,
        attach_type="tcx",
    ),
    Advisory(
        "heartbeat_churn",
        REFUSE,
        "Every heartbeat of the kubelet (about every 10 s) makes Felix re-attach every endpoint, "
        "which burns CPU and is the likeliest way for the two hooks to fall out of step.",
        "Choose a target that has the fix.",
        ("3.28.4", "3.29.4", "3.30.0"),
        ("#10143", "#10161", "#10163", "#10164", "#10165"),
        target=releases("3.27.5 3.28.2-3.28.3 3.29.0-3.29.3"),
    ),
    # --- what may bite on the way ----------------------------------------------------------------
    Advisory(
        "parity_persists",
        WARN,
        "A release from 3.27 to 3.30 demands that both hooks of an endpoint sit at the same "
        "priority and handle; one that does not stays dirty for ever, and calico-node unready.",
        "Audit and repair with qdisc_consistency before and after each node; only 3.31 and later "
        "no longer compare.",
        ("3.31.0",),
        ("#10143", "#10376", "#10477"),
        target=releases("3.27.0-3.30.9999"),
    ),
    Advisory(
        "parity_created",
        WARN,
        "This target re-attaches by adding a filter and deleting the old one, so every pass that "
        "fails half way puts the two hooks of an endpoint out of step.",
        "Prefer a target that replaces in place; else go on auditing after the upgrade.",
        ("3.28.5", "3.29.5", "3.30.1", "3.31.0"),
        ("#10143", "#10376", "#10445", "#10454", "#10455", "#10456"),
        target=releases("3.27.0-3.28.4 3.29.0-3.29.4 3.30.0"),
    ),
    Advisory(
        "tcx_switch",
        WARN,
        "From 3.31 on Felix goes from TC to TCX by itself on kernels from 6.6 on. It removes the "
        "whole clsact qdisc, FOREIGN FILTERS INCLUDED, and for a moment one hook may have no "
        "program.",
        "To keep TC, set bpfAttachType to TC in the FelixConfiguration before the upgrade, and "
        "change over later node by node (FelixConfiguration node.NAME).",
        refs=("#10573",),
        origin=_NO_TCX,
        target=releases("3.31.0-"),
        attach_type="tcx",
    ),
    Advisory(
        "tcx_left",
        WARN,
        "Where TCX was in use before bpfAttachType was set to TC, links may still be pinned; a "
        "release up to 3.30 does not know them and they would run BEFORE its filters.",
        "Make sure that qdisc_consistency finds no attachment of type tcx on any node.",
        refs=("#10573",),
        origin=releases("3.31.0-"),
        target=_NO_TCX,
        attach_type="tc",
    ),
    Advisory(
        "conntrack_map",
        WARN,
        "The conntrack map of 3.31 and later has another version than that of the older releases: "
        "nothing carries its entries back, so established connections may be cut.",
        "Keep the nodes drained while they change.",
        refs=("felix/bpf/conntrack/map.go",),
        origin=releases("3.31.0-"),
        target=_NO_TCX,
    ),
    Advisory(
        "downgrade",
        WARN,
        "The BPF state of a node outlives its pod: a downgrade brings back neither older maps nor "
        "older pins.",
        "Be ready to reboot a drained node that does not verify.",
        downgrade=True,
    ),
    Advisory(
        "ctlb_unpinned",
        WARN,
        "The release that runs now does not pin its connect-time load balancer, so the host's own "
        "connections to services fail while its Felix is down.",
        "Expect that on each node from its old pod's end until the new one is Ready.",
        ("3.28.5", "3.29.5", "3.30.1", "3.31.0"),
        ("#10425", "#9620", "#10466", "#10467", "#10468"),
        origin=releases("-3.28.4 3.29.0-3.29.4 3.30.0"),
    ),
    Advisory(
        "legacy_programs",
        WARN,
        "Programs and maps of releases up to 3.25 were seen to stay behind and drop pods' traffic "
        "after an upgrade.",
        "qdisc_consistency shows them as legacy_program after each node.",
        refs=("#8897",),
        origin=releases("-3.25.9999"),
        target=releases("3.26.0-"),
    ),
    Advisory(
        "manifest_changed",
        WARN,
        "Another minor release also changes CRDs, RBAC, init containers and environment, not only "
        "images.",
        "Give that release's manifest (option manifest) with your own settings in it, or be sure "
        "that the new images run with what is there.",
        another_minor=True,
    ),
    Advisory(
        "vxlan_vni_zero",
        WARN,
        "The VXLAN VNI is always 0.",
        "Choose a target that has the fix.",
        ("3.31.4", "3.32.0"),
        ("#11689", "#11692", "#11695"),
        target=releases("3.31.0-3.31.3"),
        encapsulation="vxlan",
    ),
    Advisory(
        "nodeport_refused",
        WARN,
        "For some seconds after each start of calico-node, connections to NodePorts are refused.",
        "Drain the node before, and take it out of the load balancer.",
        ("3.31.6", "3.32.1"),
        ("#12192", "#12667"),
        target=releases("3.31.0-3.31.5 3.32.0"),
    ),
    Advisory(
        "bond_misread",
        WARN,
        "A veth's peer index may be taken for a bond's, and its TC programs are then detached.",
        "Choose a target that has the fix if nodes have bonds or the host's own interface is a "
        "veth.",
        ("3.31.5",),
        ("59a43f8aa6",),
        target=releases("3.30.0-3.31.4"),
    ),
    Advisory(
        "host_ip_absent",
        WARN,
        "A node whose address Felix does not learn at its start gets no programs, or cannot be "
        "reached.",
        "Keep a way to the node that does not need its network.",
        ("3.32.1",),
        ("#12642", "#12810"),
        target=releases("-3.32.0"),
    ),
    Advisory(
        "jump_map_size",
        WARN,
        "The jump map changed its size under its old name: programs do not load after an upgrade.",
        "Choose 3.25.1 or later.",
        ("3.25.1",),
        ("#7484", "#7487"),
        origin=releases("-3.24.9999"),
        target=releases("3.25.0"),
    ),
    # --- what to know ----------------------------------------------------------------------------
    Advisory(
        "newer_patch",
        INFO,
        "This patch release is newer than what these advisories were checked with (v3.28.5, "
        "v3.29.7, v3.30.7, v3.31.7, v3.32.1).",
        "Read its release notes.",
        target=releases(
            "3.28.6-3.28.9999 3.29.8-3.29.9999 3.30.8-3.30.9999 3.31.8-3.31.9999 3.32.2-3.32.9999"
        ),
    ),
    Advisory(
        "image_registry",
        INFO,
        "Calico's own manifests take their images from another registry since 3.31.",
        "Make sure that nodes can pull the new images (option image_repository).",
        origin=_NO_TCX,
        target=releases("3.31.0-"),
    ),
    Advisory(
        "tc_forks",
        INFO,
        "Each re-attach runs tc several times for each interface; many endpoints at once are a "
        "storm of processes.",
        "Expect CPU to rise while calico-node starts.",
        ("3.31.0",),
        ("#10561", "#10143"),
        target=_NO_TCX,
    ),
    Advisory(
        "host_networking_lost",
        INFO,
        "The host's own network was seen to fail when calico-node was replaced; which release "
        "fixed it is not known.",
        "Keep a way to the node that does not need its network.",
        refs=("#6739", "#8646"),
        origin=releases("-3.28.9999"),
    ),
    Advisory(
        "typha",
        INFO,
        "Typha belongs to the upgrade, and must not be older than its Felixes; its own roll makes "
        "all of them start over, which in big clusters held traffic up for minutes.",
        "Upgrade Typha first, and let it settle before the first node.",
        refs=("#10670",),
    ),
    Advisory(
        "map_sizes",
        INFO,
        "Changing bpfMapSizeConntrack together with a restart was seen to fail the load.",
        "Do not change map sizes in the same run.",
        refs=("#9651",),
    ),
    Advisory(
        "host_ip_log",
        INFO,
        "Felix logs 'Host IP changed' at every heartbeat although it did not change.",
        "It means nothing by itself.",
        refs=("#10143",),
    ),
    Advisory(
        "strategy_put_back",
        INFO,
        "Whoever installs Calico from a manifest or by kubespray sets RollingUpdate again, and "
        "then all nodes roll by themselves.",
        "Run no installer until the run is over.",
    ),
)

CODES = frozenset(each.code for each in (*ADVISORIES, UNKNOWN_VERSION, UNKNOWN_ORIGIN))


def select(path: UpgradePath) -> list[Advisory]:
    """The advisories for ``path``, the gravest first.

    What depends on something that is not known is told too, though never as ``refuse``.
    """
    if path.target is None or not path.target.known:
        return [unknown_version(str(path.target or "the target"))]
    if path.origin is not None and path.origin == path.target:
        return []
    found = [] if path.origin is not None and path.origin.known else [UNKNOWN_ORIGIN]
    for advisory in ADVISORIES:
        doubts = _doubts(advisory, path)
        if doubts is not None:
            found.append(_doubted(advisory, doubts) if doubts else advisory)
    return gravest_first(found)


def unknown_version(target: str) -> Advisory:
    return replace(UNKNOWN_VERSION, text=UNKNOWN_VERSION.text.format(target=target))


def gravest_first(advisories: Sequence[Advisory]) -> list[Advisory]:
    return sorted(advisories, key=lambda each: list(AdvisorySeverity).index(each.weight))


def _doubts(advisory: Advisory, path: UpgradePath) -> list[str] | None:
    """What would have to be known for it to be certain; None where it does not apply."""
    doubts = []
    for name, held in _conditions(advisory, path):
        if held is None:
            doubts.append(name)
        elif not held:
            return None
    return doubts


def _conditions(advisory: Advisory, path: UpgradePath) -> Iterator[tuple[str, bool | None]]:
    """Each condition by the name of what it is about, and whether it holds, if that is known."""
    origin, target = path.origin, path.target
    if advisory.origin is not None:
        yield "the present release", None if origin is None else origin in advisory.origin
    if advisory.target is not None:
        yield "the target", None if target is None else target in advisory.target
    if advisory.downgrade:
        yield "the present release", None if origin is None or target is None else target < origin
    if advisory.another_minor:
        alike = None if origin is None or target is None else origin.same_minor(target)
        yield "the present release", None if alike is None else not alike
    if advisory.kernel is not None:
        yield "the kernel", None if path.kernel is None else path.kernel >= advisory.kernel
    if advisory.encapsulation is not None:
        word = path.encapsulation
        yield "the encapsulation", None if word is None else word == advisory.encapsulation
    if advisory.attach_type is not None:
        word = path.attach_type
        yield "the attach type", None if word is None else word == advisory.attach_type


def _doubted(advisory: Advisory, doubts: Sequence[str]) -> Advisory:
    weight = WARN if advisory.weight is REFUSE else advisory.weight
    words = " and ".join(dict.fromkeys(doubts))
    return replace(advisory, weight=weight, text=f"May apply (unknown: {words}): {advisory.text}")
