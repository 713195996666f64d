# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The outlook, computed from one snapshot, is what Felix's real passes then make of the endpoint.

Each state is built by tc, read once, and judged; then eight passes of Felix (felix.py) run over it
on the running kernel. No verdict may differ, and where none heals, no letter of the log line.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, combinations

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.outlook import predict
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.netlink import TcSocket
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.snapshot import Reader
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import Behaviour, Outlook
from ansible_collections.dataplane.calico_bpf.tests.support.felix.lab_felix import Felix, witnessed
from ansible_collections.dataplane.calico_bpf.tests.support.felix.libbpf import HOOKS
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab

PASSES = 8
ENDPOINTS = {
    Behaviour.ADD_WITHOUT_COMPARE: "calia",
    Behaviour.ADD_THEN_DELETE: "calib",
    Behaviour.REPLACE_AND_COMPARE: "calic",
    Behaviour.REPLACE: "calid",
}


@dataclass(frozen=True)
class Placed:
    """One filter to be made by tc; priority or handle 0 leaves the choice to the kernel."""

    hook: str
    priority: int
    handle: int
    #: A key of ``Bench.pins``, or "u32".
    what: str = "calico"
    protocol: str = "all"
    chain: int = 0
    direct_action: bool = True


State = tuple[Placed, ...]

#: Program and filter name of each kind of filter; what a name that tc gives looks like is in the
#: pin's file name.
PINNED = {
    "calico": ("allow", "cali_tc_preambl"),
    "legacy": ("legacy", "calico_from_wor"),
    "renamed": ("allow", "to_pod"),
    "foreign": ("foreign", "cil_from_container"),
    "named like ours": ("foreign", "my-calico-thing"),
}


@dataclass(frozen=True)
class Bench:
    """An endpoint for each behaviour, which takes on one state after the other."""

    lab: Lab
    pins: Mapping[str, str]

    def build(self, state: State, interface: str) -> None:
        """A fresh clsact with the state's filters; what the kernel refuses is not in the state."""
        lines = [f"qdisc del dev {interface} clsact", f"qdisc add dev {interface} clsact"]
        lines += [self._line(placed, interface) for placed in state]
        batch = "\n".join(lines)
        netns = f"--net=/run/netns/{self.lab.netns}"
        words = ["nsenter", netns, "tc", "-force", "-batch", "-"]
        subprocess.run(words, input=batch, text=True, capture_output=True, check=False)

    def _line(self, f: Placed, interface: str) -> str:
        words = [f"filter add dev {interface} {f.hook} protocol {f.protocol}"]
        words += [f"chain {f.chain}"] if f.chain else []
        words += [f"pref {f.priority}"] if f.priority else []
        if f.what == "u32":
            return " ".join([*words, "u32 match u32 0 0 classid 1:1"])
        words += [f"handle {f.handle:#x}"] if f.handle else []
        words += [f"bpf object-pinned {self.pins[f.what]}"]
        words += ["direct-action"] if f.direct_action else []
        return " ".join(words)

    def computed(self, interface: str, behaviour: Behaviour) -> tuple[Outlook, str | None]:
        with entered(self.lab.netns), TcSocket() as tc:
            (endpoint,) = Reader(tc).read([interface]).endpoints
        return predict(endpoint, behaviour)

    def disagreements(self, states: Iterator[State], behaviour: Behaviour) -> list[str]:
        """Every state of which the outlook and Felix's passes say different things."""
        found = []
        for state in states:
            self.build(state, ENDPOINTS[behaviour])
            computed = self.computed(ENDPOINTS[behaviour], behaviour)
            lines = Felix(self.lab, behaviour).passes(ENDPOINTS[behaviour], PASSES)
            if computed != witnessed(lines):
                listed = "\n  ".join(map(str, state))
                found.append(f"\n  {listed}\n outlook: {computed}\n Felix: {lines}")
        return found


@pytest.fixture(scope="module")
def bench(module_lab: Lab) -> Bench:
    for interface in ENDPOINTS.values():
        module_lab.endpoint(interface)
    return Bench(module_lab, {what: module_lab.pin(*names) for what, names in PINNED.items()})


SUBSETS = [*chain.from_iterable(combinations((1, 2, 3), size) for size in range(4))]


@pytest.mark.parametrize("behaviour", Behaviour)
def test_all_pairs_of_handles(bench: Bench, behaviour: Behaviour) -> None:
    """Every way to hold some of the handles 1, 2 and 3 at either hook: all 64."""
    states = (
        (*at_hook("ingress", ingress), *at_hook("egress", egress))
        for ingress in SUBSETS
        for egress in SUBSETS
    )
    assert bench.disagreements(states, behaviour) == []


def at_hook(hook: str, handles: tuple[int, ...]) -> Iterator[Placed]:
    return (Placed(hook, 49152, handle) for handle in handles)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("behaviour", Behaviour)
def test_random_states(bench: Bench, behaviour: Behaviour, seed: int) -> None:
    """300 mixtures of foreign filters, other priorities, old names, wrong protocols and chains."""
    dice = random.Random(seed)
    assert bench.disagreements((random_state(dice) for _unused in range(30)), behaviour) == []


def random_state(dice: random.Random) -> State:
    """Half of them plain, so that enough do heal; the rest with filters in odd places."""
    odd = dice.choice((0.0, 0.0, 0.15, 0.5))
    return tuple(
        random_filter(dice, hook, odd)
        for hook in HOOKS
        for _unused in range(dice.choice((0, 1, 1, 1, 2, 2, 3, 5)))
    )


def random_filter(dice: random.Random, hook: str, odd: float) -> Placed:
    strange = dice.random() < odd
    what = dice.choice(("foreign", "u32", *PINNED)) if dice.random() < max(odd, 0.2) else "calico"
    priorities = (49151, 49153, 100, 100, 32768, 1, 0) if strange else (49152, 49152, 49152, 49151)
    return Placed(
        hook,
        dice.choice((*priorities, 49152, 49152)),
        dice.choice((0, 1, 1, 1, 2, 2, 3, 4, 0x7FFF)),
        what,
        protocol="ip" if dice.random() < odd / 3 else "all",
        chain=5 if strange and dice.random() < 0.6 else 0,
        direct_action=dice.random() < 0.9,
    )


#: What chance seldom throws: add_then_delete deletes in chain 0 what it listed in chain 5, and tc's
#: answers differ with what is there instead. Felix lists the newest of a priority first.
SELDOM = {
    "another kind there": (
        Placed("ingress", 100, 0, "u32"),
        Placed("ingress", 100, 1, chain=5),
        Placed("ingress", 49152, 1, chain=5),
    ),
    "a foreign filter there": (
        Placed("ingress", 100, 1, "foreign"),
        Placed("ingress", 100, 1, chain=5),
        Placed("ingress", 49152, 1, chain=5),
    ),
    "no chain any more": (
        Placed("ingress", 49152, 2, chain=5),
        Placed("ingress", 49152, 1, chain=5),
    ),
}


@pytest.mark.parametrize("behaviour", Behaviour)
@pytest.mark.parametrize("state", SELDOM.values(), ids=SELDOM)
def test_seldom_seen_states(bench: Bench, behaviour: Behaviour, state: State) -> None:
    assert bench.disagreements(iter([state]), behaviour) == []


@pytest.mark.parametrize("behaviour", Behaviour)
def test_no_clsact(module_lab: Lab, bench: Bench, behaviour: Behaviour) -> None:
    """Felix makes the qdisc itself."""
    interface = module_lab.endpoint(f"cali-none-{list(Behaviour).index(behaviour)}", clsact=False)
    computed = bench.computed(interface, behaviour)
    assert (
        computed == witnessed(Felix(module_lab, behaviour).passes(interface)) == (Outlook.OK, None)
    )


@pytest.mark.parametrize("behaviour", Behaviour)
@pytest.mark.parametrize("program", [False, True], ids=["bare", "with a program"])
def test_ingress_qdisc(module_lab: Lab, bench: Bench, behaviour: Behaviour, program: bool) -> None:
    """It excludes clsact permanently, unless Felix removes it."""
    interface = module_lab.endpoint(
        f"cali-ing-{list(Behaviour).index(behaviour)}{program:d}", clsact=False
    )
    module_lab.tc("qdisc", "add", "dev", interface, "ingress")
    if program:
        module_lab.attach(interface, "ingress", 2)
    computed = bench.computed(interface, behaviour)
    assert computed == witnessed(Felix(module_lab, behaviour).passes(interface))
    if behaviour is not Behaviour.REPLACE:
        line = "Failed to apply policy to endpoint, leaving it dirty error=creating qdisc file "
        assert computed == (Outlook.STUCK, f'{line}exists name="{interface}"')
