# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TCX links (tests/support/felix/tcx.py) in a lab's namespace, of programs that are pinned."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.tests.support.felix import tcx
from ansible_collections.dataplane.calico_bpf.tests.support.felix.libbpf import HOOKS
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab

PINS = tcx.PINS


def attach(lab: Lab, interface: str, hook: str, program: str) -> Path:
    """Attach a pinned program by a link; where the link is pinned."""
    with _opened(program) as fd, entered(lab.netns):
        return tcx.attach(interface, hook, fd)


def attach_without_link(lab: Lab, interface: str, hook: str, program: str) -> None:
    """Attach a pinned program behind those that are there; it stays until it is detached."""
    with _opened(program) as fd, entered(lab.netns):
        tcx.attach_without_link(interface, hook, fd)


def programs(lab: Lab, interface: str, hook: str) -> list[tuple[int, int]]:
    """(program id, link id) of each TCX program at a hook, in the order in which they run."""
    with entered(lab.netns):
        return tcx.programs(interface, hook)


def remove_pins(interfaces: list[str]) -> None:
    """What is pinned for interfaces that are gone outlives them."""
    for interface in interfaces:
        for hook in HOOKS:
            tcx.pin_of(interface, hook).unlink(missing_ok=True)


@contextmanager
def _opened(pin: str) -> Iterator[int]:
    fd = tcx.pinned(Path(pin))
    try:
        yield fd
    finally:
        os.close(fd)
