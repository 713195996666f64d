#!/usr/bin/python
# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: bpf_tc_program
short_description: Put one BPF program at one hook of an interface, or take it away
version_added: 0.1.0
description:
  - Attaches a program from an ELF object, a pin, the id of a running program, or BPF C source, as a
    direct-action filter or as a TCX program. What is there under the same name is replaced in one
    step, so that the hook is never bare.
  - An attachment that is neither Calico's nor of the given name is never touched.
  - A program that is attached already is recognized by the kernel's tag, the hash of its instructions,
    for what is loaded by this task. A tag says nothing of a program's maps, so a program that is
    running already (O(pinned), O(program_id)) is also recognized by its id.
options:
  interface:
    description: The interface.
    type: str
    required: true
  hook:
    description: The hook.
    type: str
    choices: [ingress, egress]
    required: true
  state:
    description:
      - V(present) attaches, and needs exactly one of O(object), O(pinned), O(program_id) and
        O(source).
      - V(absent) detaches what is of Calico's at O(priority), and O(handle) if given; or, with
        O(name), what bears that name. It never removes the clsact qdisc.
    type: str
    choices: [present, absent]
    default: present
  object:
    description: An ELF object on the node, loaded with its libbpf (C(libbpf.so.1)).
    type: path
  program:
    description: Which program of O(object); not needed if it holds just one.
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
    description: Which function of O(source).
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
extends_documentation_fragment:
  - dataplane.calico_bpf.attributes
  - dataplane.calico_bpf.attributes.actiongroup
  - dataplane.calico_bpf.netns
attributes:
  check_mode:
    support: full
    details: The program is loaded to see its tag and whether the verifier takes it, then let go.
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - libbpf 1.0 or later (C(libbpf.so.1)), for O(object)
  - BCC (the distribution's C(python3-bpfcc)) and kernel headers, for O(source)
  - pyroute2, where the interface has no clsact qdisc yet
notes:
  - It needs root.
  - Detaching a program of Calico's leaves the hook without any policy until Felix re-attaches.
seealso:
  - module: dataplane.calico_bpf.bpf_endpoint
  - module: dataplane.calico_bpf.qdisc_consistency
author:
  - The dataplane.calico_bpf contributors (@dataplane)
"""

EXAMPLES = r"""
- name: Count a pod's packets ahead of Calico, with a program of one's own
  dataplane.calico_bpf.bpf_tc_program:
    interface: cali0123456789a
    hook: ingress
    object: /opt/bpf/count.o
    program: count
    priority: 100

- name: Take it away again
  dataplane.calico_bpf.bpf_tc_program:
    interface: cali0123456789a
    hook: ingress
    priority: 100
    name: count
    state: absent

- name: Let everything pass but what goes to one port, compiled on the node
  dataplane.calico_bpf.bpf_tc_program:
    interface: eth1
    hook: egress
    name: drop_telnet
    function: drop_telnet
    priority: 10
    source: |
      int drop_telnet(struct __sk_buff *skb) {
          u16 port = load_half(skb, 36);
          return port == 23 ? 2 : -1;  // TC_ACT_SHOT, TC_ACT_UNSPEC
      }

- name: Attach a running program as TCX, with a pinned link
  dataplane.calico_bpf.bpf_tc_program:
    interface: cali0123456789a
    hook: egress
    program_id: 815
    attach_type: tcx
    pin: /sys/fs/bpf/tcx/cali0123456789a_egress

# On the command line:
#   ansible node1 -b -m dataplane.calico_bpf.bpf_tc_program \
#     -a 'interface=eth1 hook=egress state=absent name=drop_telnet priority=10' --check --diff

# In AWX the survey's answers are strings; the module converts them.
- name: Take a filter away that the operator named in a survey
  dataplane.calico_bpf.bpf_tc_program:
    interface: "{{ survey_interface }}"
    hook: "{{ survey_hook }}"
    priority: "{{ survey_priority }}"
    name: "{{ survey_name }}"
    state: absent
"""

RETURN = r"""
interface:
  description: The interface.
  returned: success
  type: str
  sample: cali0123456789a
hook:
  description: The hook.
  returned: success
  type: str
  sample: ingress
attachment:
  description: What is attached there.
  returned: success
  type: dict
  contains:
    before:
      description: >-
        What was there, null if nothing, with the keys of
        RV(dataplane.calico_bpf.qdisc_consistency#module:endpoints[].ingress).
      type: dict
    after:
      description: What is there now, or would be but for check mode; null if nothing.
      type: dict
  sample:
    before: null
    after: {attach_type: tc, chain: 0, direct_action: true, handle: 1, kind: bpf,
            name: "cil_from_contai:[4384]", calico: false, priority: 100, program_id: 4384,
            protocol: 3, tag: 531120f3091b518f}
verifier_log:
  description: What the kernel's verifier, or the compiler, says of a program that it refuses.
  returned: when the program can't be loaded
  type: str
  sample: |
    0: R1=ctx() R10=fp0
    0: (b7) r1 = 0                        ; R1=0
    1: (63) *(u32 *)(r10 -4) = r1         ; R1=0 R10=fp0 fp-8=0000????
    2: (18) r1 = 0xffff88813dae4000       ; R1=map_ptr(map=seen,ks=4,vs=4)
    4: (bf) r2 = r10                      ; R2=fp0 R10=fp0
    5: (07) r2 += -4                      ; R2=fp-4
    6: (85) call bpf_map_lookup_elem#1    ; R0=map_value_or_null(id=1,map=seen,ks=4,vs=4)
    7: (61) r0 = *(u32 *)(r0 +0)
    R0 invalid mem access 'map_value_or_null'
"""

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint import argspec, commands
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.module import NETNS, run


def main() -> None:
    run(
        commands.bpf_tc_program,
        argument_spec={
            **NETNS,
            **argspec.PROGRAM,
            "interface": {"type": "str", "required": True},
            "hook": {"type": "str", "choices": ["ingress", "egress"], "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        mutually_exclusive=[argspec.PROGRAM_SOURCES],
        required_if=[("state", "present", argspec.PROGRAM_SOURCES, True)],
        required_by=argspec.PROGRAM_REQUIRED_BY,
    )


if __name__ == "__main__":
    main()
