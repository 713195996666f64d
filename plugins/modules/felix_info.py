#!/usr/bin/python
# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: felix_info
short_description: Gather the state of Calico's Felix on a node
version_added: 0.1.0
description:
  - Returns which Felix and C(tc) processes run on a node, the health that Felix reports, its metrics
    if they are enabled, and the endpoints that are dirty according to its log. It changes nothing.
  - Over a O(window) it also measures the CPU usage of Felix, the number of concurrent C(tc)
    processes, and which process attaches and detaches filters at which interface.
  - Missing data is not an error. A closed port or a missing log is reported in the result.
options:
  window:
    description:
      - Seconds to watch. V(0) reads the state once, which takes some tenths of a second.
      - Felix retries an endpoint that it failed to program every 10 s, so watch for longer.
    type: float
    default: 0
  interfaces:
    description: Names or shell globs of the interfaces whose changes are counted.
    type: list
    elements: str
    default: [cali*]
  exclude:
    description: Names or shell globs of interfaces to leave out.
    type: list
    elements: str
    default: []
  exited_pod_uid:
    description:
      - The uid of a pod that has ended. RV(exited_pod_processes) lists its processes that still run;
        a container runtime that loses track of a process leaves one behind.
      - A process belongs to a pod by its cgroup.
    type: str
  wait_gone:
    description:
      - Before anything else, wait up to this many seconds until no process of O(exited_pod_uid) is
        left.
    type: float
    default: 0
  health_url:
    description: The URL where Felix reports its health (C(healthHost), C(healthPort)), as seen from the node.
    type: str
    default: http://localhost:9099
  metrics_url:
    description: The URL where Felix serves its metrics, if C(prometheusMetricsEnabled).
    type: str
    default: http://localhost:9091/metrics
  log_files:
    description:
      - Shell globs of the container's log files. The newest file that matches is read, with the one
        before it that was rotated away.
      - By default, those of the pods C(calico-node-*) in C(kube-system) and C(calico-system) under
        C(/var/log/pods).
    type: list
    elements: str
  pod_uid:
    description: Read only the log of the pod with this uid.
    type: str
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
  - It needs root to see the processes and the log. To read metrics it needs C(prometheus_client) on
    the node (C(python3-prometheus-client)); all else is the standard library.
  - Of programs attached as TCX (from 3.31 on, Linux 6.6 or later) the kernel only counts the changes. In
    RV(churn) they are all called attached, by V(unknown).
seealso:
  - module: dataplane.calico_bpf.tc_churn_info
  - module: dataplane.calico_bpf.qdisc_consistency
author:
  - The dataplane.calico_bpf contributors (@dataplane)
"""

EXAMPLES = r"""
- name: See how Felix is
  dataplane.calico_bpf.felix_info:
  become: true
  register: felix

- name: Watch it for longer than it waits before it tries again
  dataplane.calico_bpf.felix_info:
    window: 12
  become: true

- name: Wait until no process of the old pod is left
  dataplane.calico_bpf.felix_info:
    exited_pod_uid: 2f0f5d4e-8a51-4b43-9f0e-1d4f6f0a7c11
    wait_gone: 60
  become: true
  register: felix
  failed_when: felix.exited_pod_processes | length > 0
"""

RETURN = r"""
felix:
  description: Every Felix that runs on the node, whatever container it is in. It should be one.
  returned: always
  type: list
  elements: dict
  contains:
    pid:
      description: The process id.
      type: int
    age_seconds:
      description: Seconds since it began.
      type: float
    cpu:
      description: Cores that it used over the window, its children not counted; null without.
      type: float
    pod_uid:
      description: The uid of its pod, by its cgroup; null where it is in no pod's cgroup.
      type: str
  sample:
    - {pid: 1234, age_seconds: 86400.2, cpu: 0.031, pod_uid: 2f0f5d4e-8a51-4b43-9f0e-1d4f6f0a7c11}
exited_pod_processes:
  description: The processes of O(exited_pod_uid) that still run; null without that option.
  returned: always
  type: list
  elements: dict
  contains:
    pid:
      description: The process id.
      type: int
    name:
      description: Its name, as C(comm) in proc(5).
      type: str
  sample: []
tc:
  description: C(tc) processes. A pile of them is a Felix that can't keep up, or a kernel that hangs.
  returned: always
  type: dict
  contains:
    now:
      description: How many there are at the end.
      type: int
    most:
      description: The most that were seen at a time. Processes are listed every 20 ms; shorter ones are missed.
      type: int
    oldest_seconds:
      description: The greatest age that any was seen at.
      type: float
    pids:
      description: Those that are there at the end.
      type: list
      elements: int
  sample: {now: 0, most: 2, oldest_seconds: 0.0, pids: []}
health:
  description: What Felix says of its health.
  returned: always
  type: dict
  contains:
    reachable:
      description: Whether anyone answered. An answer of HTTP 503 is one.
      type: bool
    ready:
      description: Whether Felix says that it is ready.
      type: bool
    status:
      description: The HTTP status; null without an answer.
      type: int
    reporters:
      description: The parts of Felix that report their health.
      type: list
      elements: dict
      contains:
        component:
          description: The part. C(BPFEndpointManager) is ready while no endpoint is dirty.
          type: str
        ready:
          description: Whether it is ready; null where it does not report that.
          type: bool
        live:
          description: Whether it is live; null where it does not report that.
          type: bool
        detail:
          description: What it says beside.
          type: str
    error:
      description: Why no answer came, or why the answer is not Felix's; null otherwise.
      type: str
  sample:
    reachable: true
    ready: false
    status: 503
    reporters:
      - {component: BPFEndpointManager, ready: false, live: null,
         detail: Failed to configure some interfaces.}
    error: null
metrics:
  description: How many endpoints Felix counts; null where there are no metrics.
  returned: always
  type: dict
  contains:
    endpoints:
      description: Interfaces that Felix looks after, the host's own as well.
      type: int
    dirty:
      description: Those it could not get done with.
      type: int
    happy:
      description: Workloads that it is done with.
      type: int
  sample: {endpoints: 12, dirty: 0, happy: 9}
metrics_error:
  description: Why there are no metrics; null where there are.
  returned: always
  type: str
log:
  description: What the Felix that logged last said; null where there is no log.
  returned: always
  type: dict
  contains:
    files:
      description: The files that were read.
      type: list
      elements: str
    since:
      description: The first line of that Felix, as far as the files reach back (ISO time, UTC).
      type: str
    newest_at:
      description: Its last line (ISO time, UTC).
      type: str
    version:
      description: >-
        Its version, by its start-up line; null where that was not logged. Felix logs it only with
        C(FELIX_LOGSEVERITYSCREEN) set to C(Info) in its environment.
      type: str
    load_failures:
      description: The errors of libbpf about programs that failed to load since it began, at most 20 different ones.
      type: list
      elements: dict
      contains:
        message:
          description: The line of libbpf.
          type: str
        count:
          description: How often it was logged.
          type: int
        last_at:
          description: When it was last logged; null if the container runtime adds no time.
          type: str
    dirty:
      description: The interfaces that it left dirty since it began, healed or not.
      type: list
      elements: dict
      contains:
        interface:
          description: The interface.
          type: str
        workload:
          description: The pod, as namespace/name; null where Felix knows of none.
          type: str
        count:
          description: How often.
          type: int
        first_at:
          description: When first (ISO time, UTC).
          type: str
        last_at:
          description: When last (ISO time, UTC).
          type: str
        message:
          description: What it said last.
          type: str
        load_failed:
          description: >-
            Whether the message says that the programs of one direction failed to load, C(({false 0 0})). The
            slots of the two hooks do not differ then; RV(log.load_failures) has the cause.
          type: bool
  sample:
    files: [/var/log/pods/kube-system_calico-node-x2x4p_5d6f/calico-node/0.log]
    since: "2026-11-23T22:00:00Z"
    newest_at: "2026-11-23T22:10:05Z"
    version: v3.29.1
    dirty:
      - interface: cali0123456789a
        workload: default/web-0
        count: 60
        first_at: "2026-11-23T22:00:05Z"
        last_at: "2026-11-23T22:10:05Z"
        load_failed: false
        message: >-
          Failed to apply policy to endpoint, leaving it dirty error=ingress qdisc info
          ({true 49152 2}) does not equal egress qdisc info ({true 49152 1})
    load_failures: []
log_error:
  description: Why there is no log; null where there is.
  returned: always
  type: str
churn:
  description: The changes of filters and TCX programs over the window; null without one.
  returned: always
  type: dict
  contains:
    seconds:
      description: How long was watched.
      type: float
    changes:
      description: What was attached and detached. What is replaced in place is attached.
      type: int
    per_minute:
      description: The same, a minute.
      type: float
    interfaces:
      description: The interfaces where something changed.
      type: list
      elements: dict
      contains:
        interface:
          description: The interface.
          type: str
        attached:
          description: How often something was attached, or replaced in place.
          type: int
        detached:
          description: How often something was detached.
          type: int
        by:
          description: >-
            The names of the processes that did it. V(gone) is a process that ended before it was
            identified. V(unknown) used a second netlink socket, whose port id does not identify the
            process, as libbpf in Felix does. Two names joined by "or" have the same process id in
            two containers.
          type: list
          elements: str
    overrun:
      description: >-
        Whether the kernel dropped notifications because too many arrived at once, so that changes
        are missing from the counts.
      type: bool
  sample:
    seconds: 12.0
    changes: 8
    per_minute: 40.0
    interfaces:
      - {interface: cali0123456789a, attached: 4, detached: 4, by: [gone, tc, unknown]}
    overrun: false
waited_seconds:
  description: How long it waited for O(exited_pod_uid) to exit.
  returned: always
  type: float
  sample: 0.0
elapsed_ms:
  description: Milliseconds that all took, waiting included.
  returned: always
  type: float
  sample: 61.3
"""

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.felix import commands
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.module import NETNS, run_info


def main() -> None:
    run_info(
        commands.felix_info,
        argument_spec={
            **NETNS,
            "window": {"type": "float", "default": 0},
            "interfaces": {"type": "list", "elements": "str", "default": ["cali*"]},
            "exclude": {"type": "list", "elements": "str", "default": []},
            "exited_pod_uid": {"type": "str"},
            "wait_gone": {"type": "float", "default": 0},
            "health_url": {"type": "str", "default": "http://localhost:9099"},
            "metrics_url": {"type": "str", "default": "http://localhost:9091/metrics"},
            "log_files": {"type": "list", "elements": "str"},
            "pod_uid": {"type": "str"},
        },
    )


if __name__ == "__main__":
    main()
