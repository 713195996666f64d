#!/usr/bin/python
# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: bpf_endpoint
short_description: Bring one Calico endpoint to consistency, or attach and detach its programs
version_added: 0.1.0
description:
  - Looks after both hooks of one workload interface, given by its name or by its pod.
  - By default it repairs the endpoint in place, as dataplane.calico_bpf.qdisc_consistency does.
  - Where a hook has no program at all there is nothing to copy; O(state=attached) puts a program of
    the caller's there.
options:
  interface:
    description: The interface. Give either this, or O(namespace) and O(pod).
    type: str
  namespace:
    description: The namespace of the pod whose interface is meant.
    type: str
  pod:
    description: >-
      The pod whose interface is meant. Calico derives the interface's name from namespace and pod;
      a pod in another network plugin's hands has none such.
    type: str
  interface_prefix:
    description: What the names of Calico's workload interfaces begin with (C(FELIX_INTERFACEPREFIX)).
    type: str
    default: cali
  state:
    description:
      - V(consistent) repairs in place what can be repaired.
      - V(attached) attaches the programs of O(ingress) and O(egress), and leaves a hook that is not
        given alone.
      - V(absent) detaches every program of Calico's from both hooks. No policy is enforced then,
        until Felix re-attaches. What is not Calico's stays, and so does the clsact qdisc.
    type: str
    choices: [consistent, attached, absent]
    default: consistent
  ingress:
    description: The program for ingress, with O(state=attached).
    type: dict
    suboptions: &program
      object:
        description: An ELF object on the node, loaded with its libbpf (C(libbpf.so.1)).
        type: path
      program:
        description: Which program of O(ingress.object); not needed if it holds just one.
        type: str
      pinned:
        description: A pinned program, by the path of its pin.
        type: path
      program_id:
        description: A running program, by its id.
        type: int
      source:
        description: >-
          A program in BPF C, as text or by the absolute path of a file on the node, compiled there by
          BCC (C(python3-bpfcc) and the headers of the running kernel).
        type: str
      function:
        description: Which function of O(ingress.source).
        type: str
      priority:
        description: The priority (pref) of the filter. Has no meaning for TCX.
        type: int
        default: 49152
      handle:
        description: >-
          The handle of the filter. By default that of the filter that is there under this name, else
          V(1).
        type: int
      attach_type:
        description: Attach a filter to the clsact qdisc (V(tc)), or a TCX program (V(tcx), kernel 6.6).
        type: str
        choices: [tc, tcx]
        default: tc
      name:
        description: >-
          The name of the filter; for TCX, by which name of a program to find what is there. By
          default the name of the program and its id, as libbpf writes it.
        type: str
      pin:
        description: >-
          Pin the program here (V(tc)), or the link that holds it (V(tcx)). A TCX program without one
          is attached without a link and stays until it is detached.
        type: path
  egress:
    description: The program for egress, with O(state=attached).
    type: dict
    suboptions: *program
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
requirements:
  - for O(state=attached) those of dataplane.calico_bpf.bpf_tc_program
notes:
  - It needs root.
seealso:
  - module: dataplane.calico_bpf.bpf_tc_program
  - module: dataplane.calico_bpf.qdisc_consistency
author:
  - The dataplane.calico_bpf contributors (@dataplane)
"""

EXAMPLES = r"""
- name: Repair the endpoint of one pod, on the node where it runs
  dataplane.calico_bpf.bpf_endpoint:
    namespace: shop
    pod: cart-7d4b9c5f6-x2x7k

# On the command line, by the interface that Felix names in its log:
#   ansible node1 -b -m dataplane.calico_bpf.bpf_endpoint -a interface=cali0123456789a --diff

- name: Close a bare egress hook until Felix is back
  dataplane.calico_bpf.bpf_endpoint:
    interface: cali0123456789a
    state: attached
    egress:
      object: /opt/bpf/drop_all.o
      program: cali_tc_preamble

# In AWX, with namespace and pod from the job template's survey:
- name: Repair one endpoint by its interface
  dataplane.calico_bpf.bpf_endpoint:
    namespace: "{{ survey_namespace }}"
    pod: "{{ survey_pod }}"
    calico_version: v3.29.5
"""

RETURN = r"""
interface:
  description: The interface.
  returned: success
  type: str
  sample: cali0123456789a
before:
  description: >-
    The endpoint as it was: RV(before.interface), RV(before.ifindex), RV(before.qdisc),
    RV(before.ingress) and RV(before.egress), as in dataplane.calico_bpf.qdisc_consistency.
  returned: success
  type: dict
  contains: &endpoint
    interface:
      description: The interface.
      type: str
    ifindex:
      description: The interface's index.
      type: int
    qdisc:
      description: V(clsact), V(ingress) or V(none).
      type: str
    ingress:
      description: The attachments at ingress.
      type: list
      elements: dict
    egress:
      description: The attachments at egress.
      type: list
      elements: dict
  sample:
    interface: cali0123456789a
    ifindex: 3
    qdisc: clsact
    ingress:
      - {attach_type: tc, chain: 0, direct_action: true, handle: 1, kind: bpf,
         name: "cali_tc_preambl:[4175]", calico: true, priority: 49152, program_id: 4175,
         protocol: 3, tag: 8a3bf813799c98be}
    egress:
      - {attach_type: tc, chain: 0, direct_action: true, handle: 2, kind: bpf,
         name: "cali_tc_preambl:[4180]", calico: true, priority: 49152, program_id: 4180,
         protocol: 3, tag: 8a3bf813799c98be}
after:
  description: The endpoint as it is now, or would be but for check mode; null where it vanished.
  returned: success, and on failure if the endpoint can still be read
  type: dict
  contains: *endpoint
  sample:
    interface: cali0123456789a
    ifindex: 3
    qdisc: clsact
    ingress:
      - {attach_type: tc, chain: 0, direct_action: true, handle: 1, kind: bpf,
         name: "cali_tc_preambl:[4175]", calico: true, priority: 49152, program_id: 4175,
         protocol: 3, tag: 8a3bf813799c98be}
    egress:
      - {attach_type: tc, chain: 0, direct_action: true, handle: 1, kind: bpf,
         name: "cali_tc_preambl:[4180]", calico: true, priority: 49152, program_id: 4180,
         protocol: 3, tag: 8a3bf813799c98be}
verdict:
  description: As in dataplane.calico_bpf.qdisc_consistency.
  returned: with O(state=consistent)
  type: str
  sample: repaired
outlook:
  description: What Felix's next passes will make of the endpoint in its present state.
  returned: with O(state=consistent)
  type: str
  sample: ok
outlook_by_behaviour:
  description: The outlook for each way in which Felix re-attaches; see O(calico_version).
  returned: with O(state=consistent)
  type: dict
  sample: {add_without_compare: ok, add_then_delete: ok, replace_and_compare: ok, replace: ok}
felix_message:
  description: The line that Felix would log, without its C(wepID).
  returned: when the outlook is V(alternates) or V(stuck)
  type: str
findings:
  description: What was found, before any repair.
  returned: with O(state=consistent)
  type: list
  elements: dict
  sample:
    - code: handle_mismatch
      hook: null
      message: >-
        ingress is at pref 49152 handle 1, egress at pref 49152 handle 2: Felix fails every 10 s,
        UNTIL REPAIRED
      repairable: true
      severity: drift
remaining:
  description: What is still found at the end.
  returned: with O(state=consistent)
  type: list
  elements: dict
  sample: []
plan:
  description: The steps that repair it.
  returned: with O(state=consistent)
  type: list
  elements: dict
  sample:
    - {action: add, chain: 0, handle: 1, hook: egress, name: "cali_tc_preambl:[4180]",
       priority: 49152, program_id: 4180}
    - {action: delete, chain: 0, handle: 2, hook: egress, name: "cali_tc_preambl:[4180]",
       priority: 49152, program_id: 4180}
done:
  description: The steps carried out.
  returned: with O(state=consistent)
  type: list
  elements: dict
  sample:
    - {action: add, chain: 0, handle: 1, hook: egress, name: "cali_tc_preambl:[4180]",
       priority: 49152, program_id: 4180}
    - {action: delete, chain: 0, handle: 2, hook: egress, name: "cali_tc_preambl:[4180]",
       priority: 49152, program_id: 4180}
notes:
  description: What happened on the way.
  returned: with O(state=consistent)
  type: list
  elements: str
error:
  description: As in dataplane.calico_bpf.qdisc_consistency.
  returned: when the repair failed
  type: str
verifier_log:
  description: What the kernel's verifier, or the compiler, says of a program that it refuses.
  returned: when a program can't be loaded
  type: str
"""

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint import argspec, commands
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.module import NETNS, run


def main() -> None:
    program = {
        "type": "dict",
        "options": argspec.PROGRAM,
        "mutually_exclusive": [argspec.PROGRAM_SOURCES],
        "required_one_of": [argspec.PROGRAM_SOURCES],
        "required_by": argspec.PROGRAM_REQUIRED_BY,
    }
    run(
        commands.bpf_endpoint,
        argument_spec={
            **NETNS,
            **argspec.JUDGING,
            "interface": {"type": "str"},
            "namespace": {"type": "str"},
            "pod": {"type": "str"},
            "interface_prefix": {"type": "str", "default": "cali"},
            "state": {
                "type": "str",
                "choices": ["consistent", "attached", "absent"],
                "default": "consistent",
            },
            "ingress": program,
            "egress": program,
        },
        mutually_exclusive=[("interface", "namespace"), ("interface", "pod")],
        required_together=[("namespace", "pod")],
        required_one_of=[("interface", "pod")],
        required_if=[("state", "attached", ("ingress", "egress"), True)],
    )


if __name__ == "__main__":
    main()
