#!/usr/bin/python
# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: qdisc_consistency
short_description: Audit or repair what Calico's eBPF dataplane attached to a node's endpoints
version_added: 0.1.0
description:
  - Reads every wanted interface of a node in one snapshot (links, qdiscs, filters at both hooks,
    TCX programs), says exactly what is inconsistent, what Felix's next passes will make of it, and,
    if asked to, repairs it in place.
  - A repair re-attaches the program that is already running, by its id and under its old name, at
    the slot that makes both hooks equal, and only then detaches the old filter. No pod is deleted,
    no packet lost, and no hook that had a program is ever without one.
  - What is not Calico's is never touched. Where it stands in the way, a finding says so.
  - The node is in eBPF mode if any interface has a program of Calico, a map of Calico is pinned in
    C(/sys/fs/bpf/tc/globals), or a Felix in this network namespace uses BPF maps. There, an
    endpoint without a program is drifted. Otherwise all endpoints are V(unmanaged), which means not
    judged; O(attach_type) declares the node to be in eBPF mode.
  - Reading needs no privilege but for TCX programs and program arrays; what could not be read is
    listed in RV(unread). Repairing needs root.
options:
  interfaces:
    description:
      - Names or shell globs of the interfaces to look at.
      - Felix compares the hooks of workload interfaces only; a difference at a host's own interface
        does not trouble it, so leave those out.
    type: list
    elements: str
    default: [cali*]
  exclude:
    description: Names or shell globs of interfaces to leave out.
    type: list
    elements: str
    default: []
  state:
    description:
      - V(audited) reads and judges, and writes nothing.
      - V(consistent) also repairs what can be repaired in place.
    type: str
    choices: [audited, consistent]
    default: audited
  fail_on_drift:
    description:
      - Fail if drift remains at the end, or if anything could not be judged, see RV(not_judged).
    type: bool
    default: false
  allow_no_calico:
    description:
      - Accept a host without any trace of Calico's eBPF dataplane, which O(fail_on_drift) refuses.
    type: bool
    default: false
  jump_targets:
    description:
      - Check that what Calico's programs jump to is loaded; without it every packet is dropped.
      - Set it to V(false) for a release whose programs this collection does not know, see
        RV(unread). An endpoint then counts as consistent without that check.
    type: bool
    default: true
  verbose_endpoints:
    description: List consistent endpoints too, not only those that drifted or changed.
    type: bool
    default: false
  max_endpoints:
    description:
      - How many endpoints RV(endpoints) lists at most. V(0) lists all. By default 20, and all with
        O(verbose_endpoints=true). RV(summary) counts the others as C(not_listed).
      - If there are more, endpoints whose repair failed are chosen first, then those that remain
        drifted, the worst outlook first, then those that vanished, were repaired, or are consistent.
    type: int
extends_documentation_fragment:
  - dataplane.calico_bpf.attributes
  - dataplane.calico_bpf.attributes.actiongroup
  - dataplane.calico_bpf.judging
  - dataplane.calico_bpf.netns
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
notes:
  - It needs nothing on the node but Python 3.9 or later, and root to repair.
seealso:
  - module: dataplane.calico_bpf.bpf_endpoint
  - module: dataplane.calico_bpf.bpf_tc_program
  - name: Calico issue 10143
    description: The report of endpoints that stay dirty.
    link: https://github.com/projectcalico/calico/issues/10143
author:
  - The dataplane.calico_bpf contributors (@dataplane)
"""

EXAMPLES = r"""
- name: See what is wrong on a node, and change nothing
  dataplane.calico_bpf.qdisc_consistency:
  register: audit

- name: Repair every endpoint in place, and stop the play where drift remains
  dataplane.calico_bpf.qdisc_consistency:
    state: consistent
    fail_on_drift: true
  become: true

# On the command line, first what would be done, then for real:
#   ansible nodes -b -m dataplane.calico_bpf.qdisc_consistency -a state=consistent --check --diff
#   ansible nodes -b -m dataplane.calico_bpf.qdisc_consistency -a state=consistent --diff

- name: Judge for the version that the cluster will have, Calico 3.29.5
  dataplane.calico_bpf.qdisc_consistency:
    calico_version: v3.29.5

# In AWX, as a job template of type "check" first; the summary becomes an artifact of the job.
- name: Audit for a workflow
  dataplane.calico_bpf.qdisc_consistency:
    interfaces: "{{ calico_bpf_interfaces | default(['cali*']) }}"
  register: audit

- name: Hand the counts on to the next node of the workflow
  ansible.builtin.set_stats:
    data:
      calico_bpf_drifted: "{{ audit.summary.verdicts.drifted }}"
"""

RETURN = r"""
endpoints:
  description:
    - The endpoints that drifted or changed, 20 of them at most, see O(max_endpoints); all
      endpoints with O(verbose_endpoints=true).
    - In check mode, as a real run would leave them.
  returned: always
  type: list
  elements: dict
  contains: &endpoint
    interface:
      description: The interface's name.
      type: str
    ifindex:
      description: The interface's index, V(0) where it vanished.
      type: int
    verdict:
      description: >-
        One of V(consistent), V(drifted), V(repaired), V(contended) (someone else kept writing),
        V(vanished) (the interface disappeared) and V(unmanaged).
      type: str
    outlook:
      description: >-
        What Felix's next passes will make of the endpoint in its present state: V(ok), V(heals) (by itself,
        after an error), V(alternates) (passes fail and succeed in turn, without end) or V(stuck) (every pass fails).
      type: str
    outlook_by_behaviour:
      description: The outlook for each way in which Felix re-attaches; see O(calico_version).
      type: dict
    felix_message:
      description: The line that Felix would log, without its C(wepID).
      returned: when the outlook is V(alternates) or V(stuck)
      type: str
    qdisc:
      description: V(clsact), V(ingress) or V(none).
      type: str
    findings:
      description: What was found, before any repair.
      type: list
      elements: dict
      contains: &finding
        code:
          description: The kind of deviation.
          type: str
        hook:
          description: V(ingress), V(egress), or null where it concerns both.
          type: str
        message:
          description: What is wrong, what is enforced until it is repaired, and what to do.
          type: str
        severity:
          description: V(drift), or V(notice) for what changes no verdict.
          type: str
        repairable:
          description: Whether RV(endpoints[].plan) ends it.
          type: bool
    remaining:
      description: What is still found at the end; RV(endpoints[].findings) where nothing was done.
      type: list
      elements: dict
      contains: *finding
    plan:
      description: The steps that repair it, in order. Check mode and a real run give the same.
      type: list
      elements: dict
      contains: &steps
        action:
          description: V(add), V(replace) (swap the program at that priority and handle), V(delete) or V(unpin).
          type: str
        hook:
          description: V(ingress) or V(egress).
          type: str
        priority:
          description: The filter's priority (pref).
          type: int
        handle:
          description: The filter's handle.
          type: int
        chain:
          description: The filter's chain.
          type: int
        program_id:
          description: The id of the filter's program.
          type: int
        name:
          description: The filter's name.
          type: str
        path:
          description: The pin to be removed.
          returned: with V(unpin)
          type: str
    done:
      description: >-
        The steps carried out; more than the plan if the endpoint was planned again, or if the watchdog attached a
        program again. A step whose answer was lost is listed unless the hook shows that it was not made.
      type: list
      elements: dict
      contains: *steps
    notes:
      description: >-
        What happened on the way, contention above all; also copies of a program that could not be removed.
      type: list
      elements: str
    error:
      description: >-
        Why the repair failed: the operation, interface and hook, the kernel's error, the steps done, what the hooks
        hold now and what to do. The other endpoints are repaired, and the task fails at the end.
      returned: when the repair of this endpoint failed
      type: str
    ingress:
      description: The attachments at ingress, in the order in which the kernel lists them.
      type: list
      elements: dict
      contains: &attachment
        attach_type:
          description: V(tc) or V(tcx).
          type: str
        priority:
          description: The priority (pref); V(0) for TCX.
          type: int
        handle:
          description: The handle; V(0) for TCX.
          type: int
        program_id:
          description: The program's id; V(0) for a filter that is not cls_bpf.
          type: int
        name:
          description: The filter's name; for TCX the program's.
          type: str
        tag:
          description: The kernel's hash of the program's instructions.
          type: str
        direct_action:
          description: Whether the program's return code decides the packet.
          type: bool
        calico:
          description: Whether it is Calico's.
          type: bool
        kind:
          description: The classifier.
          returned: for V(tc)
          type: str
        protocol:
          description: The protocol that it sees; V(3) is all.
          returned: for V(tc)
          type: int
        chain:
          description: The chain.
          returned: for V(tc)
          type: int
        link_id:
          description: The link's id; V(0) where it is attached without one.
          returned: for V(tcx)
          type: int
    egress:
      description: The attachments at egress.
      type: list
      elements: dict
      contains: *attachment
  sample:
    - interface: cali0123456789a
      ifindex: 3
      qdisc: clsact
      verdict: drifted
      outlook: stuck
      outlook_by_behaviour:
        {add_without_compare: ok, add_then_delete: stuck, replace_and_compare: stuck, replace: ok}
      felix_message: >-
        Failed to apply policy to endpoint, leaving it dirty error=ingress qdisc info
        ({true 49152 1}) does not equal egress qdisc info ({true 49152 2}) name="cali0123456789a"
      findings:
        - code: handle_mismatch
          hook: null
          message: >-
            ingress is at pref 49152 handle 1, egress at pref 49152 handle 2: Felix fails every
            10 s, UNTIL REPAIRED
          repairable: true
          severity: drift
      remaining:
        - code: handle_mismatch
          hook: null
          message: >-
            ingress is at pref 49152 handle 1, egress at pref 49152 handle 2: Felix fails every
            10 s, UNTIL REPAIRED
          repairable: true
          severity: drift
      plan:
        - {action: add, chain: 0, handle: 1, hook: egress, name: "cali_tc_preambl:[4180]",
           priority: 49152, program_id: 4180}
        - {action: delete, chain: 0, handle: 2, hook: egress, name: "cali_tc_preambl:[4180]",
           priority: 49152, program_id: 4180}
      done: []
      notes: []
      ingress:
        - {attach_type: tc, chain: 0, direct_action: true, handle: 1, kind: bpf,
           name: "cali_tc_preambl:[4175]", calico: true, priority: 49152, program_id: 4175,
           protocol: 3, tag: 8a3bf813799c98be}
      egress:
        - {attach_type: tc, chain: 0, direct_action: true, handle: 2, kind: bpf,
           name: "cali_tc_preambl:[4180]", calico: true, priority: 49152, program_id: 4180,
           protocol: 3, tag: 8a3bf813799c98be}
summary:
  description: >-
    How many endpoints, how many of each verdict, how many findings of each code, how many entries of
    RV(not_judged), how many endpoints RV(endpoints) does not list for their number, how many that
    remain drifted by their outlook, and how many repairs failed, with the first 20 interfaces.
  returned: always
  type: dict
  sample:
    endpoints: 21
    failed: []
    failed_total: 0
    findings:
      handle_mismatch: 1
    left_by_outlook: {alternates: 0, heals: 0, ok: 0, stuck: 1}
    not_judged: 0
    not_listed: 0
    verdicts:
      consistent: 20
      contended: 0
      drifted: 1
      repaired: 0
      unmanaged: 0
      vanished: 0
dataplane:
  description: Whether the node is in eBPF mode.
  returned: always
  type: dict
  contains:
    mode:
      description: >-
        V(ebpf), V(absent) (there is no trace of it) or V(unknown) (no trace, but not all could be read).
      type: str
    why:
      description: The evidence, or what is missing.
      type: str
  sample:
    mode: ebpf
    why: 21 of 21 interfaces have programs of Calico
not_judged:
  description: What could not be judged, and why. While it is not empty, nothing here shows that the node is healthy.
  returned: always
  type: list
  elements: str
  sample: []
not_judged_error:
  description: >-
    Why this audit does not show that the node is healthy, and what to do. Null if everything was judged, or if
    O(allow_no_calico) accepts what was not. O(fail_on_drift) fails with it, and so does the role qdisc_parity.
  returned: always
  type: str
  sample: null
unread:
  description:
    - What could not be read, and why.
    - For root there is only C(jump targets), where a program with Calico's name is no preamble of a
      known release.
  returned: always
  type: dict
  sample: {}
elapsed_ms:
  description: Milliseconds that reading, judging and repairing took, settling included.
  returned: always
  type: float
  sample: 1004.3
"""

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint import argspec, commands
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.module import NETNS, run


def main() -> None:
    run(
        commands.qdisc_consistency,
        argument_spec={
            **NETNS,
            **argspec.JUDGING,
            "interfaces": {"type": "list", "elements": "str", "default": ["cali*"]},
            "exclude": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["audited", "consistent"], "default": "audited"},
            "fail_on_drift": {"type": "bool", "default": False},
            "allow_no_calico": {"type": "bool", "default": False},
            "jump_targets": {"type": "bool", "default": True},
            "verbose_endpoints": {"type": "bool", "default": False},
            "max_endpoints": {"type": "int"},
        },
    )


if __name__ == "__main__":
    main()
