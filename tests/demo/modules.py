# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""See the fault and what the modules do about it, one by one, with traffic nothing may disturb.

    python tests/demo/modules.py

Needs root. Builds some endpoints in namespaces of their own, which go at the end, as they do when
it is interrupted. Exit code 1: something was not as promised.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel import bpf
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    Behaviour,
    named_by_calico,
)
from ansible_collections.dataplane.calico_bpf.tests.demo.stage import (
    Promises,
    heading,
    show,
    unhurried,
)
from ansible_collections.dataplane.calico_bpf.tests.support.felix.lab_felix import Felix
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import (
    Lab,
    compile_programs,
    end_on_signals,
    new_lab,
    private_mounts,
)
from ansible_collections.dataplane.calico_bpf.tests.support.traffic.traffic import (
    CONSISTENT,
    DRIFTS,
    HOOKS,
    Drift,
    Stage,
    Stream,
    streams,
    until,
)

MODULE = "dataplane.calico_bpf.qdisc_consistency"
Result = dict[str, Any]

ENDPOINTS = {
    "cali1f0c4b6e2a9": ("egress was re-attached once more than ingress", "handles 1 and 2"),
    "cali2d71e8a053c": ("the other way round", "handles 2 and 1"),
    "cali3b95f2c7d14": ("Felix was killed between its add and its delete", "duplicate"),
    "cali4e08a6d3f72": ("another's filter sits where Felix attaches", "foreign program at 49152"),
    "cali5a63b1c9e80": ("an older program runs before the new one", "stale program at the head"),
    "cali6c27d4f5b91": ("nothing is wrong", "consistent"),
}


@dataclass
class Endpoint:
    """One endpoint with its two streams of packets, and all programs that were ever at its hooks.

    A program that is held open keeps its counter, also when Felix has long replaced it.
    """

    stage: Stage
    flows: dict[str, Stream]
    held: dict[tuple[str, int], int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.stage.interface

    def hold_programs(self) -> None:
        for hook in HOOKS:
            for f in self.stage.lab.filters(self.name, hook):
                if named_by_calico(f.name) and (hook, f.program_id) not in self.held:
                    self.held[hook, f.program_id] = bpf.program_fd(f.program_id)

    def met(self, hook: str) -> int:
        """How many packets met a program of Calico's at a hook."""
        return sum(self.stage.lab.packets(number) for at, number in self.held if at == hook)

    def close(self) -> None:
        for fd in self.held.values():
            os.close(fd)


@contextmanager
def endpoints(lab: Lab) -> Iterator[list[Endpoint]]:
    """All endpoints, broken as described, with packets in both directions."""
    with ExitStack() as stack:
        made = []
        for name, (_story, kind) in ENDPOINTS.items():
            drift: Drift = DRIFTS.get(kind, CONSISTENT)
            stage = Stage(lab, name, "allow")
            stage.set_out(drift)
            with unhurried():
                endpoint = Endpoint(stage, stack.enter_context(streams(lab, name)))
            stack.callback(endpoint.close)
            endpoint.hold_programs()
            made.append(endpoint)
        for endpoint in made:
            for stream in endpoint.flows.values():
                stream.start()
        yield made


# --- the acts -------------------------------------------------------------------------------------


def slots(attachments: Sequence[Result]) -> str:
    shown = (f"{a['priority']}:{a['handle']}" for a in attachments)
    return " ".join(s if a["calico"] else f"({s})" for s, a in zip(shown, attachments, strict=True))


def show_audit(audit: Result) -> None:
    lines = [("interface", "ingress", "egress", "verdict", "outlook", "findings")]
    for e in audit["endpoints"]:
        codes = ", ".join(sorted({f["code"] for f in e["findings"]})) or "-"
        where = (slots(e["ingress"]), slots(e["egress"]))
        lines.append((e["interface"], *where, e["verdict"], e["outlook"], codes))
    show(lines)


def audit(lab: Lab) -> Result:
    result = lab.module("qdisc_consistency", verbose_endpoints=True)
    show_audit(result)
    return result


def felix_fails(felix: Felix, broken: Endpoint, audited: Result, promises: Promises) -> None:
    """Two passes, as in Felix's retries: a stuck endpoint alternates between two states."""
    logged = []
    for _retry in range(2):
        logged += felix.passes(broken.name, 1)
        broken.hold_programs()
    for line in logged:
        print(f"  {line}")
    predicted = next(e for e in audited["endpoints"] if e["interface"] == broken.name)
    promises.require(None not in logged, f"Felix fails at {broken.name} before the repair")
    promises.require(
        predicted.get("felix_message") == logged[0], "Felix logs the line that the audit predicted"
    )


def repair(lab: Lab, promises: Promises) -> None:
    result = lab.module("qdisc_consistency", state="consistent")
    lines = []
    for e in result["endpoints"]:
        for s in e["done"]:
            what = f"program {s['program_id']} at {s['priority']}:{s['handle']}"
            lines.append((e["interface"], s["hook"], s["action"], what))
    show(lines)
    for e in result["endpoints"]:
        promises.require(e["verdict"] == "repaired", f"{e['interface']} is repaired")
    promises.require(not result.get("failed"), str(result.get("msg")))


def felix_succeeds(felix: Felix, all_of_them: list[Endpoint], promises: Promises) -> None:
    for endpoint in all_of_them:
        for _pass in range(2):
            (line,) = felix.passes(endpoint.name, 1)
            endpoint.hold_programs()
            promises.require(line is None, f"Felix re-attaches {endpoint.name} ({line})")
    if not promises.broken:
        print(f"  {len(all_of_them)} endpoints, each re-attached twice, no error")


def count_packets(all_of_them: list[Endpoint], promises: Promises) -> None:
    """Hold the senders, let the packets under way arrive, and compare."""
    lines: list[Sequence[str]] = [
        ("interface", "direction", "sent", "received", "lost", "doubled", "bypassed")
    ]
    total: Counter[str] = Counter()
    for endpoint in all_of_them:
        for hook, stream in endpoint.flows.items():
            stream.pause()
            with suppress(AssertionError):  # then they are lost, and shown
                until(lambda s=stream: s.received >= s.sent, "arrival", 5)  # type: ignore[misc]
            counts = {
                "sent": stream.sent,
                "received": stream.received,
                "lost": stream.sent + stream.duplicates - stream.received,
                "doubled": stream.duplicates,
                "bypassed": stream.sent - endpoint.met(hook),
            }
            total.update(counts)
            direction = "from the pod" if hook == "ingress" else "to the pod"
            lines.append((endpoint.name, direction, *(f"{n:,}" for n in counts.values())))
            promises.require(stream.sent > 0, f"{endpoint.name}: packets flow {direction}")
    lines.append(("all", "", *(f"{total[name]:,}" for name in counts)))
    show(lines)
    for what in ("lost", "doubled", "bypassed"):
        promises.require(total[what] == 0, f"no packet is {what}")


def play(lab: Lab, promises: Promises) -> None:
    felix = Felix(lab, Behaviour.ADD_THEN_DELETE)
    print(
        f"{len(ENDPOINTS)} pods' endpoints, numbered UDP packets through each in both directions:"
    )
    show([(name, story) for name, (story, _kind) in ENDPOINTS.items()])
    print("Below, 49152:1 is a filter at priority 49152, handle 1; in brackets: not Calico's.")
    print(
        "Outlook: what Felix's next passes make of it, ok, heals (after an error), alternates (it "
        "fails again and again), stuck (every pass fails)."
    )
    with endpoints(lab) as made:
        heading(1, f"Audit: ansible node -m {MODULE}")
        before = audit(lab)
        broken = before["summary"]["verdicts"]["drifted"]
        promises.require(broken == len(made) - 1, "the audit finds what is broken, and only that")
        heading(2, "Felix 3.29.1 re-attaches the first of them, and again at its next retry:")
        felix_fails(felix, made[0], before, promises)
        heading(3, f"Repair in place: ansible node -m {MODULE} -a state=consistent")
        repair(lab, promises)
        heading(4, "Audit again")
        left = audit(lab)["summary"]["verdicts"]["consistent"]
        promises.require(left == len(made), "no drift is left")
        heading(5, "Felix re-attaches all of them:")
        felix_succeeds(felix, made, promises)
        heading(6, "The packets during this (bypassed: delivered without meeting Calico's program)")
        count_packets(made, promises)


def main() -> int:
    start = time.monotonic()
    end_on_signals()
    private_mounts()
    promises = Promises()
    with tempfile.TemporaryDirectory() as directory:
        compile_programs(Path(directory))
        with new_lab(Path(directory)) as lab:
            play(lab, promises)
    verdict = "NOT AS PROMISED" if promises.broken else "All as promised"
    print(f"\n{verdict}, in {time.monotonic() - start:.0f} s; all that was built is gone again.")
    return 1 if promises.broken else 0


if __name__ == "__main__":
    sys.exit(main())
