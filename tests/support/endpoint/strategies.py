# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random endpoints, but only such as a kernel can hold."""

from __future__ import annotations

from hypothesis import strategies as st

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint import kernel_rules
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    ETH_P_ALL,
    Attachment,
    Attachments,
    DeadPin,
    Endpoint,
    Hook,
    Qdisc,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint import build

ETH_P_IP = 0x0800
#: Felix's usual place and its neighbours, and what lies at the edges of the kernel's rules.
PRIORITIES = (49152, 49152, 49152, 49151, 49150, 49153, 1, 100, 32768, 65535)
#: By program id: the two hooks never share one, and a hook's filters sometimes do.
PROGRAMS = {Hook.INGRESS: (11, 12, 13), Hook.EGRESS: (21, 22, 23)}
OURS = ("cali_tc_preambl:[1]",) * 5 + ("calico_from_wor:[1]", "allow.o:[tc]")
FOREIGN = "cil_from_contai:[9]"


@st.composite
def filters_of(draw: st.DrawFn, hook: Hook) -> Attachment:
    """One filter, ours or foreign, cls_bpf or not."""
    whose = draw(st.sampled_from(("calico", "calico", "calico", "foreign", "u32")))
    priority = draw(st.sampled_from(PRIORITIES))
    handle = draw(st.integers(1, 4))
    protocol = draw(st.sampled_from((ETH_P_ALL,) * 7 + (ETH_P_IP,)))
    if whose == "u32":
        return build.u32(priority, handle, protocol=protocol)
    program = draw(st.sampled_from(PROGRAMS[hook]))
    direct = draw(st.sampled_from((True,) * 5 + (False,)))
    # One program has one load time. Mostly later programs have higher ids; they wrap, though.
    loaded_at = program if program % 10 != 3 else 1
    if whose == "foreign":
        return build.foreign(
            priority, handle, program + 60, protocol=protocol, direct_action=direct, name=FOREIGN
        )
    return build.ours(
        handle,
        program,
        priority,
        name=draw(st.sampled_from(OURS)),
        protocol=protocol,
        direct_action=direct,
        loaded_at=loaded_at,
    )


def _attached(filters: list[Attachment], chain: int) -> Attachments:
    """``filters`` attached to one chain in this order; those that the kernel refuses are not."""
    attached: Attachments = ()
    for f in filters:
        if any(a.priority == f.priority and a.kind != f.kind for a in attached):
            continue  # kernel_rules.add knows cls_bpf only
        try:
            attached = kernel_rules.add(attached, f)
        except kernel_rules.Refused:
            continue
    return tuple(f._replace(chain=chain) for f in attached)


@st.composite
def hooks(draw: st.DrawFn, hook: Hook, qdisc: Qdisc) -> Attachments:
    tcx: Attachments = ()
    if draw(st.integers(0, 9)) == 0:
        names = st.sampled_from(("cali_tc_preambl", "cil_from_contai"))
        program = 31 if hook is Hook.INGRESS else 32
        tcx = (build.tcx(program, draw(names)),)
    # Asked for egress, an ingress qdisc has nothing.
    if qdisc is Qdisc.NONE or (qdisc is Qdisc.INGRESS and hook is Hook.EGRESS):
        return tcx
    some = st.lists(filters_of(hook), max_size=4)
    main = _attached(draw(some), 0)
    if draw(st.integers(0, 9)):
        return tcx + main
    # The kernel lists chains in the order of their making.
    aside = _attached(draw(st.lists(filters_of(hook), min_size=1, max_size=2)), 5)
    return tcx + (main + aside if draw(st.booleans()) else aside + main)


@st.composite
def endpoints(draw: st.DrawFn) -> Endpoint:
    qdisc = draw(st.sampled_from((Qdisc.CLSACT,) * 10 + (Qdisc.INGRESS, Qdisc.NONE)))
    dead = [DeadPin(h, f"/pins/x_{h.value}") for h in Hook if draw(st.integers(0, 9)) == 0]
    ingress = draw(hooks(Hook.INGRESS, qdisc))
    egress = draw(hooks(Hook.EGRESS, qdisc))
    return build.endpoint(ingress, egress, qdisc, dead_pins=tuple(dead))
