#!/usr/bin/python
# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_record
short_description: Show the progress of a rollout, and keep its journal and report
version_added: 0.1.0
description:
  - >-
    Takes one event of a rollout that goes node by node, shows it at once as one line of progress,
    such as C([node 2/5 worker-2] drain: begun), and, with O(directory), appends it to a journal and
    writes both reports from the journal again, C(report.json) and C(report.html).
  - The journal is only ever appended to, one line of JSON for each event, and is on the disk before
    the task ends. Several nodes of a batch may record at once. A line torn by a crash costs that
    one event; the report names it.
  - The report is written again at each event, so it is complete even if the run is cut off.
    A run is V(completed) only when it said so.
  - The HTML report is one file that needs no network and no script. It begins with the verdict and
    what to do next.
  - It runs on the controller, connects to nothing, and reads no secret. An C(invocation) inside
    O(result) is left out, since it repeats a task's options.
options:
  directory:
    description:
      - A directory on the controller, made if it is not there. Give each rollout its own.
      - Without it, or if empty, progress is shown and nothing is kept.
    type: path
  run:
    description: The id of the run, the same for all its events.
    type: str
    required: true
  status:
    description:
      - V(begun) of a run (without O(node) and O(phase)), of a node, or of a phase.
      - V(done), V(failed) and V(skipped) of a node or of a phase. A node is done too once its phase
        C(resume) or C(rollback) is.
      - V(unreachable) of a node that no longer answers.
      - V(note) for any other message in the report.
      - V(finished), V(stopped) and V(interrupted) end the run. V(stopped) may name the O(node) and
        O(phase); else the report takes the first one that failed. V(interrupted) is said of a run
        by others, after it ended without a word.
    type: str
    required: true
    choices:
      - begun
      - done
      - failed
      - skipped
      - unreachable
      - note
      - finished
      - stopped
      - interrupted
  node:
    description: The node that it happened to; empty for an event of the whole run.
    type: str
  phase:
    description:
      - The phase, such as C(preflight), C(drain), C(qdisc_parity), C(node_upgrade), C(reattach),
        C(verify), C(resume) or C(rollback).
      - A phase without O(node) is one of the whole run.
    type: str
  message:
    description: The reason, for the readers of the report; above all of a failure.
    type: str
  position:
    description: The place of the node in the run, from 1.
    type: int
  total:
    description: How many nodes the run goes to.
    type: int
  result:
    description:
      - What the phase returned. The report knows C(found), C(repaired), C(left) and C(endpoints) of
        repairs (at the top or under C(parity)); C(evicted), C(skipped), C(remaining),
        C(waited_seconds) and C(cordoned) of a drain; C(checks), each with C(name), C(ok), C(seen)
        and C(wanted); C(uncordoned); C(former) and C(pod), the calico-node pods before and after,
        with C(images) or C(version); and C(sent) and C(lost), the packets of a probe.
      - Whatever else it holds is shown as it is.
    type: dict
  begin:
    description:
      - The description of the run, given with its first event. C(title) is the title of the report;
        C(nodes) lists the names of the nodes in their order, or mappings with C(name) and C(version),
        so that the report can also show the nodes that were never reached; C(api), a mapping with
        C(server) and C(cluster), names the API server and the cluster; C(kind), V(audit) or V(repair),
        is for a run that is no rollout.
      - All other keys are shown unchanged.
    type: dict
extends_documentation_fragment:
  - dataplane.calico_bpf.attributes
attributes:
  check_mode:
    support: full
    details:
      - The event is shown, and recorded with C(check) set if there is a O(directory). The reports
        are then C(report.check.json) and C(report.check.html), and say that nothing was changed, so
        that they take no real run's place.
  diff_mode:
    support: none
  idempotent:
    support: none
    details:
      - Each call is an event of its own. RV(ignore:changed) is always V(false), for the cluster is not
        changed.
author:
  - The dataplane.calico_bpf contributors (@dataplane)
"""

EXAMPLES = r"""
- name: Begin the record of a rollout
  dataplane.calico_bpf.rollout_record:
    directory: "{{ calico_bpf_report_directory }}"
    run: "{{ calico_bpf_run }}"
    status: begun
    total: "{{ ansible_play_hosts_all | length }}"
    begin:
      title: Calico v3.28.1 to v3.29.5 on prod-1
      nodes: "{{ ansible_play_hosts_all }}"
  run_once: true

- name: Record that a phase is done, with its result
  dataplane.calico_bpf.rollout_record:
    directory: "{{ calico_bpf_report_directory }}"
    run: "{{ calico_bpf_run }}"
    node: worker-2
    position: 2
    total: 5
    phase: drain
    status: done
    result: "{{ drain_result }}"

- name: Record what stopped the run
  dataplane.calico_bpf.rollout_record:
    directory: "{{ calico_bpf_report_directory }}"
    run: "{{ calico_bpf_run }}"
    node: worker-2
    phase: verify
    status: stopped
    message: "{{ ansible_failed_result.msg }}"
"""

RETURN = r"""
progress:
  description: The line that was shown.
  returned: success
  type: str
  sample: "[node 2/5 worker-2] drain: done in 41 s"
verdict:
  description: V(running), V(completed), V(partial), V(stopped) or V(interrupted), after this event.
  returned: when O(directory) is given
  type: str
  sample: running
directory:
  description: The directory as an absolute path.
  returned: when O(directory) is given
  type: str
  sample: /var/log/calico-bpf/2026-11-23
journal:
  description: The journal's path.
  returned: when O(directory) is given
  type: str
  sample: /var/log/calico-bpf/2026-11-23/journal.jsonl
report_json:
  description: The path of the report for programs.
  returned: when O(directory) is given
  type: str
  sample: /var/log/calico-bpf/2026-11-23/report.json
report_html:
  description: The path of the report for people.
  returned: when O(directory) is given
  type: str
  sample: /var/log/calico-bpf/2026-11-23/report.html
"""
