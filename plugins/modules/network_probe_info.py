#!/usr/bin/python
# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: network_probe_info
short_description: Check whether addresses can be reached, from a node or from within its pods
version_added: 0.1.0
description:
  - Sends one request to every target, all at the same time, and returns which answered and how fast.
    It changes nothing, and runs nothing in a container.
  - To send a request from within a pod it enters the pod's network namespace, so that the request
    passes the same programs as the pod's own traffic.
options:
  targets:
    description: What to reach. Each is a O(targets[].url), or a O(targets[].host) and a O(targets[].port).
    type: list
    elements: dict
    required: true
    suboptions:
      url:
        description: >-
          An HTTP or HTTPS URL. A status below 400 is a success; redirects are not followed.
        type: str
      host:
        description: The name or address of a TCP service, to which a connection is made and closed.
        type: str
      port:
        description: Its port.
        type: int
      from_pod:
        description: >-
          Ask from within this pod of the node, given as namespace/name; a pod that has an interface
          of Calico's. A name is resolved as the node would, not as the pod, so give addresses.
        type: str
      interface:
        description: Ask from within the pod that has this interface on the node.
        type: str
      interface_prefix:
        description: What the names of Calico's workload interfaces begin with.
        type: str
        default: cali
  timeout:
    description: Seconds within which a target must answer.
    type: float
    default: 5
  fail_on_error:
    description: Fail where a target can't be reached.
    type: bool
    default: false
extends_documentation_fragment:
  - dataplane.calico_bpf.attributes
  - dataplane.calico_bpf.attributes.actiongroup
  - dataplane.calico_bpf.netns
attributes:
  check_mode:
    support: full
    details: It changes nothing.
  diff_mode:
    support: N/A
    details: It changes nothing.
  idempotent:
    support: N/A
    details: It changes nothing.
notes:
  - A pod's network namespace is found among the files in C(/run/netns), where containerd and CRI-O keep
    them. It needs root.
seealso:
  - module: dataplane.calico_bpf.felix_info
author:
  - The dataplane.calico_bpf contributors (@dataplane)
"""

EXAMPLES = r"""
- name: See whether a service is reached from the node and from a pod on it
  dataplane.calico_bpf.network_probe_info:
    targets:
      - url: http://10.96.10.20/healthz
      - host: 10.96.0.10
        port: 53
        from_pod: default/web-0
    fail_on_error: true
  become: true
"""

RETURN = r"""
targets:
  description: What became of each target, in the same order.
  returned: always
  type: list
  elements: dict
  contains:
    target:
      description: The target in words.
      type: str
    ok:
      description: Whether it was reached.
      type: bool
    elapsed_ms:
      description: Milliseconds until it answered, or was given up.
      type: float
    status:
      description: The HTTP status; null where there was none.
      type: int
    error:
      description: Why it was not reached; null where it was.
      type: str
  sample:
    - {target: "http://10.96.10.20/healthz", ok: true, elapsed_ms: 2.1, status: 200, error: null}
    - {target: "10.96.0.10:53 from cali0123456789a", ok: false, elapsed_ms: 5001.3, status: null,
       error: "connect to 10.96.0.10 port 53: no answer within 5 s"}
"""

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.felix import probe
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.module import NETNS, run_info


def main() -> None:
    target = {
        "url": {"type": "str"},
        "host": {"type": "str"},
        "port": {"type": "int"},
        "from_pod": {"type": "str"},
        "interface": {"type": "str"},
        "interface_prefix": {"type": "str", "default": "cali"},
    }
    run_info(
        probe.network_probe_info,
        argument_spec={
            **NETNS,
            "targets": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": target,
                "mutually_exclusive": [("url", "host"), ("from_pod", "interface")],
                "required_one_of": [("url", "host")],
                "required_together": [("host", "port")],
            },
            "timeout": {"type": "float", "default": 5},
            "fail_on_error": {"type": "bool", "default": False},
        },
    )


if __name__ == "__main__":
    main()
