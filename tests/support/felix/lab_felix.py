# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Felix (tests/support/felix) at work in a lab's namespace, and what its passes come to."""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import Behaviour, Outlook
from ansible_collections.dataplane.calico_bpf.tests.support.felix import passes, releases
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab


@dataclass(frozen=True)
class Felix:
    """A Felix of one of the outlook's behaviours."""

    lab: Lab
    behaviour: Behaviour

    def passes(self, interface: str, count: int = 8) -> list[str | None]:
        """So many passes, as of its retry ticker: for each the line that it logs, None for none."""
        felix = passes.Felix(releases.Behaviour(self.behaviour.value), self.lab.objects / "allow.o")
        with entered(self.lab.netns):
            return [_apply_policy(felix, interface) for _unused in range(count)]


def _apply_policy(felix: passes.Felix, interface: str) -> str | None:
    """The line without its prefix, and without the ``wepID`` that would follow."""
    try:
        felix.apply_policy(interface)
    except passes.FelixError as error:
        sentence = "Failed to apply policy to endpoint, leaving it dirty"
        return f'{sentence} error={error} name="{interface}"'
    return None


def witnessed(lines: list[str | None]) -> tuple[Outlook, str | None]:
    """What a series of passes comes to, and, where it never heals, the first line logged.

    ok: every pass went well. stuck: from some pass on, none did. heals: from some pass on, all did.
    alternates: the rest.
    """
    if not any(lines):
        return Outlook.OK, None
    later = lines[len(lines) // 2 :]
    if not any(later):
        return Outlook.HEALS, None
    outlook = Outlook.STUCK if all(later) else Outlook.ALTERNATES
    return outlook, next(line for line in lines if line)
