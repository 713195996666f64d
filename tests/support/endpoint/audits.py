# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Audits of endpoints on a kernel in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint import (
    audit as audit_module,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.audit import (
    Audit,
    AuditMode,
    AuditOptions,
    audit,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.dataplane import (
    Dataplane,
    Mode,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.snapshot import Reader
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    Endpoint,
    Verdict,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.build import (
    at,
    endpoint,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.fake_kernel import (
    Kernel,
)

HEALTHY = endpoint(at(1), at(1, program=20))
MISMATCH = endpoint(at(1), at(2, program=20))


def named(name: str, ifindex: int, state: Endpoint) -> Endpoint:
    return replace(state, interface=name, ifindex=ifindex)


def run(
    kernel: Kernel,
    mode: AuditMode = AuditMode.AUDIT,
    while_settling: Callable[[], object] = lambda: None,
    mode_of_node: Mode = Mode.EBPF,
    **options: Any,
) -> Audit:
    order = AuditOptions(**{"interfaces": ("cali*",), "mode": mode, **options})
    reader = Reader(kernel, look_into_programs=True, tcx_pins="/nowhere")

    def sleep(seconds: float) -> None:
        if seconds:
            while_settling()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            audit_module, "read_dataplane", lambda *_: Dataplane(mode_of_node, "no trace")
        )
        return audit(order, kernel, reader, sleep)


def verdicts(audited: Audit) -> dict[str, Verdict]:
    return {o.before.interface: o.verdict for o in audited.outcomes}
