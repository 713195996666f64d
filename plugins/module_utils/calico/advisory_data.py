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
    severity: Literal["refuse", "warn", "info"]
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
    # --- upgrades that are known to break --------------------------------------------------------
    AdvisoryRow(
        code="vxlan_mixed_releases",
        severity="refuse",
        text=(
            "While some nodes run 3.30.6 or older and others 3.31 or newer under VXLAN, nodes that "
            "are not upgraded yet drop traffic from host-networked pods to services."
        ),
        advice="Upgrade all nodes to 3.30.7 first.",
        fixed_in=("3.30.7",),
        refs=("#11910", "25cb2c376e"),
        origin="-3.30.6",
        target="3.31.0-",
        encapsulation="vxlan",
    ),
    AdvisoryRow(
        code="ctlb_kernel",
        severity="refuse",
        text=(
            "The programs of the connect-time load balancer do not load on kernel 6.12 and later "
            "(last seen on 6.17.5): calico-node crash-loops."
        ),
        advice="Choose a target with the fix.",
        fixed_in=("3.29.7", "3.30.5", "3.31.3"),
        refs=("#11302", "#11399", "#11405", "#11406", "#11407"),
        target="3.28.0-3.29.6 3.30.0-3.30.4 3.31.0-3.31.2",
        kernel=(6, 12),
    ),
    AdvisoryRow(
        code="tcx_downgrade",
        severity="refuse",
        text=(
            "Releases up to 3.30 do not know TCX: the links of the newer Felix stay pinned and run "
            "BEFORE every filter, so an OLD POLICY keeps deciding."
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
        severity="refuse",
        text=(
            "Every heartbeat of the kubelet (about every 10 s) makes Felix re-attach every "
            "endpoint, which uses CPU and is the most likely cause of a mismatch between the two "
            "hooks."
        ),
        advice="Choose a target with the fix.",
        fixed_in=("3.28.4", "3.29.4", "3.30.0"),
        refs=("#10143", "#10161", "#10163", "#10164", "#10165"),
        target="3.27.5 3.28.2-3.28.3 3.29.0-3.29.3",
    ),
    # --- upgrades that may break -----------------------------------------------------------------
    AdvisoryRow(
        code="parity_persists",
        severity="warn",
        text=(
            "Releases from 3.27 to 3.30 (except 3.28.0 and 3.28.1) require both hooks of an "
            "endpoint to have the same priority and handle; with a mismatch the endpoint stays "
            "dirty, and calico-node is not ready."
        ),
        advice=(
            "Audit and repair with qdisc_consistency before and after each node; 3.31 and later no "
            "longer compare the hooks."
        ),
        fixed_in=("3.31.0",),
        refs=("#10143", "#10376", "#10477"),
        target="3.27.0-3.27.9999 3.28.2-3.30.9999",
    ),
    AdvisoryRow(
        code="parity_unnoticed",
        severity="warn",
        text=(
            "3.28.0 and 3.28.1 never compare the two hooks of an endpoint: the hooks can differ "
            "without an error. The target compares them, so such an endpoint becomes dirty there."
        ),
        advice=(
            "Repair with qdisc_consistency before calico-node is replaced (the upgrade does so in "
            "its phase qdisc_parity). A ready calico-node does not show that the hooks agree."
        ),
        refs=("#10143",),
        origin="3.28.0-3.28.1",
        target="3.28.2-3.30.9999",
    ),
    AdvisoryRow(
        code="parity_created",
        severity="warn",
        text=(
            "This target re-attaches by adding a filter and deleting the old one, so every pass "
            "that fails half way can leave a mismatch between the two hooks."
        ),
        advice="Prefer a target that replaces in place; otherwise keep auditing after the upgrade.",
        fixed_in=("3.28.5", "3.29.5", "3.30.1", "3.31.0"),
        refs=("#10143", "#10376", "#10445", "#10454", "#10455", "#10456"),
        target="3.27.0-3.28.4 3.29.0-3.29.4 3.30.0",
    ),
    AdvisoryRow(
        code="tcx_switch",
        severity="warn",
        text=(
            "From 3.31 on Felix switches from TC to TCX by itself on kernel 6.6 and later. It "
            "removes the whole clsact qdisc, FOREIGN FILTERS INCLUDED, and for a moment one hook "
            "may have no program."
        ),
        advice=(
            "To keep TC, set bpfAttachType to TC in the FelixConfiguration before the upgrade, and "
            "switch later node by node (FelixConfiguration node.NAME)."
        ),
        refs=("#10573",),
        origin=_NO_TCX,
        target="3.31.0-",
        attach_type="tcx",
    ),
    AdvisoryRow(
        code="tcx_left",
        severity="warn",
        text=(
            "If TCX was in use before bpfAttachType was set to TC, links may still be pinned; a "
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
        severity="warn",
        text=(
            "The conntrack map of 3.31 and later has another version than that of older releases: "
            "its entries are not carried over, so established connections may break."
        ),
        advice="Keep the nodes drained during their downgrade.",
        refs=("felix/bpf/conntrack/map.go",),
        origin="3.31.0-",
        target=_NO_TCX,
    ),
    AdvisoryRow(
        code="downgrade",
        severity="warn",
        text=(
            "The BPF state of a node outlives its pod: a downgrade does not restore older maps or "
            "pins."
        ),
        advice="Be ready to reboot a drained node that does not verify.",
        downgrade=True,
    ),
    AdvisoryRow(
        code="ctlb_unpinned",
        severity="warn",
        text=(
            "The running release does not pin its connect-time load balancer, so connections from "
            "the host to services fail while its Felix is down."
        ),
        advice="Expect that on each node until the new pod is Ready.",
        fixed_in=("3.28.5", "3.29.5", "3.30.1", "3.31.0"),
        refs=("#10425", "#9620", "#10466", "#10467", "#10468"),
        origin="-3.28.4 3.29.0-3.29.4 3.30.0",
    ),
    AdvisoryRow(
        code="legacy_programs",
        severity="warn",
        text=(
            "Programs and maps of releases up to 3.25 may remain after an upgrade and drop traffic "
            "of pods."
        ),
        advice="qdisc_consistency reports them as legacy_program after each node.",
        refs=("#8897",),
        origin="-3.25.9999",
        target="3.26.0-",
    ),
    AdvisoryRow(
        code="manifest_changed",
        severity="warn",
        text=(
            "Another minor release changes more than images: CRDs, RBAC, init containers and "
            "environment."
        ),
        advice=(
            "Give the manifest of that release (option manifest) with your own settings in it, or "
            "make sure that the new images run with the present manifest."
        ),
        another_minor=True,
    ),
    AdvisoryRow(
        code="vxlan_vni_zero",
        severity="warn",
        text="The VXLAN VNI is always 0.",
        advice="Choose a target with the fix.",
        fixed_in=("3.31.4", "3.32.0"),
        refs=("#11689", "#11692", "#11695"),
        target="3.31.0-3.31.3",
        encapsulation="vxlan",
    ),
    AdvisoryRow(
        code="nodeport_refused",
        severity="warn",
        text=(
            "For some seconds after each start of calico-node, connections to NodePorts are "
            "refused."
        ),
        advice="Drain the node first, and remove it from the load balancer.",
        fixed_in=("3.31.6", "3.32.1"),
        refs=("#12192", "#12667"),
        target="3.31.0-3.31.5 3.32.0",
    ),
    AdvisoryRow(
        code="bond_misread",
        severity="warn",
        text=(
            "Felix may take the peer index of a veth for that of a bond, and detach its TC "
            "programs."
        ),
        advice=(
            "Choose a target with the fix if nodes have bonds or the interface of the host is a "
            "veth."
        ),
        fixed_in=("3.31.5",),
        refs=("59a43f8aa6",),
        target="3.30.0-3.31.4",
    ),
    AdvisoryRow(
        code="host_ip_absent",
        severity="warn",
        text=(
            "If Felix does not learn the address of its node at start, the node gets no programs "
            "or is not reachable."
        ),
        advice="Have access to the node that does not depend on its network.",
        fixed_in=("3.32.1",),
        refs=("#12642", "#12810"),
        target="-3.32.0",
    ),
    AdvisoryRow(
        code="jump_map_size",
        severity="warn",
        text=(
            "The size of the jump map changed, but not its name: programs do not load after an "
            "upgrade."
        ),
        advice="Choose 3.25.1 or later.",
        fixed_in=("3.25.1",),
        refs=("#7484", "#7487"),
        origin="-3.24.9999",
        target="3.25.0",
    ),
    # --- to know ---------------------------------------------------------------------------------
    AdvisoryRow(
        code="newer_patch",
        severity="info",
        text=(
            "This patch release is newer than those that the advisories were checked with "
            "(v3.28.5, v3.29.7, v3.30.7, v3.31.7, v3.32.1)."
        ),
        advice="Read its release notes.",
        target=(
            "3.28.6-3.28.9999 3.29.8-3.29.9999 3.30.8-3.30.9999 3.31.8-3.31.9999 3.32.2-3.32.9999"
        ),
    ),
    AdvisoryRow(
        code="image_registry",
        severity="info",
        text="Since 3.31 Calico's own manifests use images of another registry.",
        advice="Make sure that nodes can pull the new images (option image_repository).",
        origin=_NO_TCX,
        target="3.31.0-",
    ),
    AdvisoryRow(
        code="tc_forks",
        severity="info",
        text=(
            "Each re-attach runs tc several times for each interface; with many endpoints, many "
            "processes start at once."
        ),
        advice="Expect CPU to rise while calico-node starts.",
        fixed_in=("3.31.0",),
        refs=("#10561", "#10143"),
        target=_NO_TCX,
    ),
    AdvisoryRow(
        code="host_networking_lost",
        severity="info",
        text=(
            "The network of the host may fail when calico-node is replaced; it is not known which "
            "release fixed this."
        ),
        advice="Have access to the node that does not depend on its network.",
        refs=("#6739", "#8646"),
        origin="-3.28.9999",
    ),
    AdvisoryRow(
        code="typha",
        severity="info",
        text=(
            "Typha is part of the upgrade and must not be older than Felix. Its own rollout makes "
            "every Felix resynchronize, which in large clusters interrupted traffic for minutes."
        ),
        advice="Upgrade Typha first, and wait until it is stable before the first node.",
        refs=("#10670",),
    ),
    AdvisoryRow(
        code="map_sizes",
        severity="info",
        text=(
            "Programs may fail to load after a change of bpfMapSizeConntrack together with a "
            "restart."
        ),
        advice="Do not change map sizes in the same run.",
        refs=("#9651",),
    ),
    AdvisoryRow(
        code="host_ip_log",
        severity="info",
        text="Felix logs 'Host IP changed' at every heartbeat although it did not change.",
        advice="The message alone is harmless.",
        refs=("#10143",),
    ),
    AdvisoryRow(
        code="strategy_put_back",
        severity="info",
        text=(
            "An installation by manifest or by kubespray sets RollingUpdate again, and then all "
            "nodes are upgraded without this run."
        ),
        advice="Run no installer until the run has finished.",
    ),
)
