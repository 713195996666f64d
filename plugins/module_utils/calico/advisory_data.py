# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Known faults of Calico releases and of upgrade paths: the data of ``advisories.py``.

References are issues, pull requests and commits of projectcalico/calico; the ranges of releases
were checked in its source at the release tags. A row's fields are those of ``Advisory``.
"""

from __future__ import annotations

from typing import Literal, TypedDict


class _Required(TypedDict):
    code: str
    weight: Literal["refuse", "warn", "info"]
    text: str
    advice: str


class AdvisoryRow(_Required, total=False):
    fixed_in: tuple[str, ...]
    refs: tuple[str, ...]
    #: Ranges of releases, as ``releases`` reads them.
    origin: str
    target: str
    kernel: tuple[int, int]
    encapsulation: str
    attach_type: str
    downgrade: bool
    another_minor: bool


_NO_TCX = "-3.30.9999"

ADVISORY_ROWS: tuple[AdvisoryRow, ...] = (
    # --- ways that are known to break ------------------------------------------------------------
    AdvisoryRow(
        code="vxlan_mixed_releases",
        weight="refuse",
        text=(
            "While nodes up to 3.30.6 and from 3.31 on stand side by side under VXLAN, traffic "
            "from host-networked pods to services is dropped on those not upgraded yet."
        ),
        advice="Go to 3.30.7 on all nodes first, then on.",
        fixed_in=("3.30.7",),
        refs=("#11910", "25cb2c376e"),
        origin="-3.30.6",
        target="3.31.0-",
        encapsulation="vxlan",
    ),
    AdvisoryRow(
        code="ctlb_kernel",
        weight="refuse",
        text=(
            "The connect-time load balancer's programs do not load on kernels from 6.12 on (seen "
            "at the latest on 6.17.5): calico-node crash-loops."
        ),
        advice="Choose a target that has the fix.",
        fixed_in=("3.29.7", "3.30.5", "3.31.3"),
        refs=("#11302", "#11399", "#11405", "#11406", "#11407"),
        target="3.28.0-3.29.6 3.30.0-3.30.4 3.31.0-3.31.2",
        kernel=(6, 12),
    ),
    AdvisoryRow(
        code="tcx_downgrade",
        weight="refuse",
        text=(
            "Releases up to 3.30 know nothing of TCX: the links of the newer Felix stay pinned and "
            "run BEFORE every filter, so an OLD POLICY would decide for ever."
        ),
        advice=(
            "Set bpfAttachType to TC in the FelixConfiguration, wait until qdisc_consistency finds "
            "no attachment of type tcx on any node, then downgrade."
        ),
        refs=("#10573",),
        origin="3.31.0-",
        target=_NO_TCX,
        attach_type="tcx",
    ),
    AdvisoryRow(
        code="heartbeat_churn",
        weight="refuse",
        text=(
            "Every heartbeat of the kubelet (about every 10 s) makes Felix re-attach every "
            "endpoint, which burns CPU and is the likeliest way for the two hooks to fall out of "
            "step."
        ),
        advice="Choose a target that has the fix.",
        fixed_in=("3.28.4", "3.29.4", "3.30.0"),
        refs=("#10143", "#10161", "#10163", "#10164", "#10165"),
        target="3.27.5 3.28.2-3.28.3 3.29.0-3.29.3",
    ),
    # --- what may bite on the way ----------------------------------------------------------------
    AdvisoryRow(
        code="parity_persists",
        weight="warn",
        text=(
            "A release from 3.27 to 3.30 demands that both hooks of an endpoint sit at the same "
            "priority and handle; one that does not stays dirty for ever, and calico-node unready."
        ),
        advice=(
            "Audit and repair with qdisc_consistency before and after each node; only 3.31 and "
            "later no longer compare."
        ),
        fixed_in=("3.31.0",),
        refs=("#10143", "#10376", "#10477"),
        target="3.27.0-3.30.9999",
    ),
    AdvisoryRow(
        code="parity_created",
        weight="warn",
        text=(
            "This target re-attaches by adding a filter and deleting the old one, so every pass "
            "that fails half way puts the two hooks of an endpoint out of step."
        ),
        advice="Prefer a target that replaces in place; else go on auditing after the upgrade.",
        fixed_in=("3.28.5", "3.29.5", "3.30.1", "3.31.0"),
        refs=("#10143", "#10376", "#10445", "#10454", "#10455", "#10456"),
        target="3.27.0-3.28.4 3.29.0-3.29.4 3.30.0",
    ),
    AdvisoryRow(
        code="tcx_switch",
        weight="warn",
        text=(
            "From 3.31 on Felix goes from TC to TCX by itself on kernels from 6.6 on. It removes "
            "the whole clsact qdisc, FOREIGN FILTERS INCLUDED, and for a moment one hook may have "
            "no program."
        ),
        advice=(
            "To keep TC, set bpfAttachType to TC in the FelixConfiguration before the upgrade, and "
            "change over later node by node (FelixConfiguration node.NAME)."
        ),
        refs=("#10573",),
        origin=_NO_TCX,
        target="3.31.0-",
        attach_type="tcx",
    ),
    AdvisoryRow(
        code="tcx_left",
        weight="warn",
        text=(
            "Where TCX was in use before bpfAttachType was set to TC, links may still be pinned; a "
            "release up to 3.30 does not know them and they would run BEFORE its filters."
        ),
        advice="Make sure that qdisc_consistency finds no attachment of type tcx on any node.",
        refs=("#10573",),
        origin="3.31.0-",
        target=_NO_TCX,
        attach_type="tc",
    ),
    AdvisoryRow(
        code="conntrack_map",
        weight="warn",
        text=(
            "The conntrack map of 3.31 and later has another version than that of the older "
            "releases: nothing carries its entries back, so established connections may be cut."
        ),
        advice="Keep the nodes drained while they change.",
        refs=("felix/bpf/conntrack/map.go",),
        origin="3.31.0-",
        target=_NO_TCX,
    ),
    AdvisoryRow(
        code="downgrade",
        weight="warn",
        text=(
            "The BPF state of a node outlives its pod: a downgrade brings back neither older maps "
            "nor older pins."
        ),
        advice="Be ready to reboot a drained node that does not verify.",
        downgrade=True,
    ),
    AdvisoryRow(
        code="ctlb_unpinned",
        weight="warn",
        text=(
            "The release that runs now does not pin its connect-time load balancer, so the host's "
            "own connections to services fail while its Felix is down."
        ),
        advice="Expect that on each node from its old pod's end until the new one is Ready.",
        fixed_in=("3.28.5", "3.29.5", "3.30.1", "3.31.0"),
        refs=("#10425", "#9620", "#10466", "#10467", "#10468"),
        origin="-3.28.4 3.29.0-3.29.4 3.30.0",
    ),
    AdvisoryRow(
        code="legacy_programs",
        weight="warn",
        text=(
            "Programs and maps of releases up to 3.25 were seen to stay behind and drop pods' "
            "traffic after an upgrade."
        ),
        advice="qdisc_consistency shows them as legacy_program after each node.",
        refs=("#8897",),
        origin="-3.25.9999",
        target="3.26.0-",
    ),
    AdvisoryRow(
        code="manifest_changed",
        weight="warn",
        text=(
            "Another minor release also changes CRDs, RBAC, init containers and environment, not "
            "only images."
        ),
        advice=(
            "Give that release's manifest (option manifest) with your own settings in it, or be "
            "sure that the new images run with what is there."
        ),
        another_minor=True,
    ),
    AdvisoryRow(
        code="vxlan_vni_zero",
        weight="warn",
        text="The VXLAN VNI is always 0.",
        advice="Choose a target that has the fix.",
        fixed_in=("3.31.4", "3.32.0"),
        refs=("#11689", "#11692", "#11695"),
        target="3.31.0-3.31.3",
        encapsulation="vxlan",
    ),
    AdvisoryRow(
        code="nodeport_refused",
        weight="warn",
        text=(
            "For some seconds after each start of calico-node, connections to NodePorts are "
            "refused."
        ),
        advice="Drain the node before, and take it out of the load balancer.",
        fixed_in=("3.31.6", "3.32.1"),
        refs=("#12192", "#12667"),
        target="3.31.0-3.31.5 3.32.0",
    ),
    AdvisoryRow(
        code="bond_misread",
        weight="warn",
        text=(
            "A veth's peer index may be taken for a bond's, and its TC programs are then detached."
        ),
        advice=(
            "Choose a target that has the fix if nodes have bonds or the host's own interface is a "
            "veth."
        ),
        fixed_in=("3.31.5",),
        refs=("59a43f8aa6",),
        target="3.30.0-3.31.4",
    ),
    AdvisoryRow(
        code="host_ip_absent",
        weight="warn",
        text=(
            "A node whose address Felix does not learn at its start gets no programs, or cannot be "
            "reached."
        ),
        advice="Keep a way to the node that does not need its network.",
        fixed_in=("3.32.1",),
        refs=("#12642", "#12810"),
        target="-3.32.0",
    ),
    AdvisoryRow(
        code="jump_map_size",
        weight="warn",
        text=(
            "The jump map changed its size under its old name: programs do not load after an "
            "upgrade."
        ),
        advice="Choose 3.25.1 or later.",
        fixed_in=("3.25.1",),
        refs=("#7484", "#7487"),
        origin="-3.24.9999",
        target="3.25.0",
    ),
    # --- what to know ----------------------------------------------------------------------------
    AdvisoryRow(
        code="newer_patch",
        weight="info",
        text=(
            "This patch release is newer than what these advisories were checked with (v3.28.5, "
            "v3.29.7, v3.30.7, v3.31.7, v3.32.1)."
        ),
        advice="Read its release notes.",
        target=(
            "3.28.6-3.28.9999 3.29.8-3.29.9999 3.30.8-3.30.9999 3.31.8-3.31.9999 3.32.2-3.32.9999"
        ),
    ),
    AdvisoryRow(
        code="image_registry",
        weight="info",
        text="Calico's own manifests take their images from another registry since 3.31.",
        advice="Make sure that nodes can pull the new images (option image_repository).",
        origin=_NO_TCX,
        target="3.31.0-",
    ),
    AdvisoryRow(
        code="tc_forks",
        weight="info",
        text=(
            "Each re-attach runs tc several times for each interface; many endpoints at once are a "
            "storm of processes."
        ),
        advice="Expect CPU to rise while calico-node starts.",
        fixed_in=("3.31.0",),
        refs=("#10561", "#10143"),
        target=_NO_TCX,
    ),
    AdvisoryRow(
        code="host_networking_lost",
        weight="info",
        text=(
            "The host's own network was seen to fail when calico-node was replaced; which release "
            "fixed it is not known."
        ),
        advice="Keep a way to the node that does not need its network.",
        refs=("#6739", "#8646"),
        origin="-3.28.9999",
    ),
    AdvisoryRow(
        code="typha",
        weight="info",
        text=(
            "Typha belongs to the upgrade, and must not be older than its Felixes; its own roll "
            "makes all of them start over, which in big clusters held traffic up for minutes."
        ),
        advice="Upgrade Typha first, and let it settle before the first node.",
        refs=("#10670",),
    ),
    AdvisoryRow(
        code="map_sizes",
        weight="info",
        text="Changing bpfMapSizeConntrack together with a restart was seen to fail the load.",
        advice="Do not change map sizes in the same run.",
        refs=("#9651",),
    ),
    AdvisoryRow(
        code="host_ip_log",
        weight="info",
        text="Felix logs 'Host IP changed' at every heartbeat although it did not change.",
        advice="It means nothing by itself.",
        refs=("#10143",),
    ),
    AdvisoryRow(
        code="strategy_put_back",
        weight="info",
        text=(
            "Whoever installs Calico from a manifest or by kubespray sets RollingUpdate again, and "
            "then all nodes roll by themselves."
        ),
        advice="Run no installer until the run is over.",
    ),
)
