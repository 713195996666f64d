# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The attachments of an interface, read without the code under test."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Filter, Lab
from ansible_collections.dataplane.calico_bpf.tests.support.tc.tcx import programs

#: (program id, link id or 0), in the order in which they run.
Programs = list[tuple[int, int]]


@dataclass(frozen=True)
class Held:
    """The attachments of an interface, as shown by tc and bpftool."""

    qdiscs: str
    ingress: tuple[Filter, ...]
    egress: tuple[Filter, ...]
    tcx_ingress: Programs
    tcx_egress: Programs

    def filters(self, hook: str) -> tuple[Filter, ...]:
        return self.ingress if hook == "ingress" else self.egress

    def tcx(self, hook: str) -> Programs:
        return self.tcx_ingress if hook == "ingress" else self.tcx_egress


def held(lab: Lab, interface: str) -> Held:
    return Held(
        lab.tc("qdisc", "show", "dev", interface),
        tuple(lab.filters(interface, "ingress")),
        tuple(lab.filters(interface, "egress")),
        programs(lab, interface, "ingress"),
        programs(lab, interface, "egress"),
    )


def without_ids(shown: Any) -> Any:
    """A result without the ids that no prediction can know."""
    text = json.dumps(shown, sort_keys=True)
    text = re.sub(r'"(program_id|link_id)": \d+', r'"\1": 0', text)
    return json.loads(re.sub(r":\[\d+\]", ":[0]", text))
