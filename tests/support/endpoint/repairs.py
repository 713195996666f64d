# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repairs on the kernel in memory, of endpoints that ask for plans of every shape."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.judge import judge
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.repair import (
    Outcome,
    Repairer,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.snapshot import Reader
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    Behaviour,
    Endpoint,
    Policy,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.build import (
    at,
    endpoint,
    foreign,
    listed,
    ours,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.fake_kernel import (
    Kernel,
)

POLICY = Policy(Behaviour.ADD_THEN_DELETE)
#: Endpoints that ask for plans of every shape.
BROKEN = {
    "handle mismatch": endpoint(at(1), at(2, program=20)),
    "priority mismatch": endpoint(at(1), (ours(1, 20, 49151),)),
    "duplicate at one hook": endpoint(at(1), at(1, 2, program=20)),
    "duplicates at both": endpoint(at(1, 3), at(2, 1, 3, program=20)),
    "one hook bare": endpoint((), at(1)),
    "not direct-action": endpoint(at(1), (ours(1, 20, direct_action=False),)),
    "wrong protocol": endpoint(at(1), (ours(1, 20, protocol=0x0800),)),
    "wrong chain": endpoint(at(1), (ours(1, 20), ours(2, 21, chain=5))),
    "among foreign filters": endpoint(
        listed(foreign(1), ours(2, 10), foreign(50000)), listed(foreign(100), ours(1, 20))
    ),
}


class Patch:
    """The patches of the test that runs: a fixture of its file sets them."""

    now: pytest.MonkeyPatch


def kernel_with(broken: Endpoint) -> Kernel:
    kernel = Kernel()
    kernel.put(broken)
    kernel.patch(Patch.now)
    return kernel


def reader_of(kernel: Kernel) -> Reader:
    return Reader(kernel, look_into_programs=False, tcx_pins="/nowhere")


def repair(
    kernel: Kernel,
    broken: Endpoint,
    *,
    retries: int = 3,
    sleep: Callable[[float], None] = lambda seconds: None,
) -> Outcome:
    repairer = Repairer(kernel, reader_of(kernel), POLICY, retries, sleep)
    return repairer.repair(broken, judge(broken, POLICY))


def at_calls(*deeds: tuple[int, Callable[[], object]]) -> Callable[[int], None]:
    """Each mode is done before the call of its number, once."""

    def before(number: int) -> None:
        for point, mode in deeds:
            if point == number:
                mode()

    return before
