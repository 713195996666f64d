# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every refusal: its message, the same in check mode, and a kernel that is left as it was."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import (
    Lab,
    run,
    run_module,
)
from ansible_collections.dataplane.calico_bpf.tests.support.tc.bpf_tc_program import (
    MODULE,
    SOURCES,
    TEXT,
    Options,
    Result,
    endpoint,
)
from ansible_collections.dataplane.calico_bpf.tests.support.tc.bpftool import program_id
from ansible_collections.dataplane.calico_bpf.tests.support.tc.events import (
    wait_until,
)
from ansible_collections.dataplane.calico_bpf.tests.support.tc.held import held
from ansible_collections.dataplane.calico_bpf.tests.support.tc.pins import (
    folder_for_pins,
    make_pins,
)
from ansible_collections.dataplane.calico_bpf.tests.support.tc.tcx import (
    attach_without_link,
    programs,
)


@dataclass(frozen=True)
class Refused:
    check: Result
    real: Result


def _dead_program(lab: Lab) -> int:
    pin = lab.pin()
    number = program_id(pin)
    os.unlink(pin)
    wait_until(lambda: not run("bpftool", "prog", "show", "id", str(number), check=False))
    return number


def _broken(compiled: Path) -> dict[str, str]:
    """Object files that are none: cut off, plain text, empty, a folder, and none at all."""
    whole = (compiled / "several.o").read_bytes()
    (compiled / "cut.o").write_bytes(whole[: len(whole) // 2])
    (compiled / "text.o").write_text("this is no object\n")
    (compiled / "empty.o").touch()
    (compiled / "folder.o").mkdir()
    return {
        name: str(compiled / f"{name}.o") for name in ("cut", "text", "empty", "folder", "none")
    }


REFUSALS: dict[str, str] = {
    # case: what the message must say (a regular expression)
    "verifier-object": r"refused program unchecked of .*several\.o.*nothing was attached",
    "verifier-source": r"function unchecked can't be loaded.*nothing was attached",
    "verifier-tcx": r"refused program unchecked",
    "does-not-compile": r"does not compile.*error: .*undeclared identifier 'nonsense'",
    "no-such-function": r"nowhere",
    "no-such-source": r"source: /no/such/file\.c: No such file",
    "no-such-program": r"several\.o has no program third; it has express, first, second, unch",
    "which-program": r"several\.o has the programs express, first, second, unchecked: choose one",
    "object-cut": r"object .*cut\.o can't be opened",
    "object-text": r"object .*text\.o can't be opened",
    "object-empty": r"object .*empty\.o can't be opened",
    "object-folder": r"there is no file .*folder\.o",
    "object-none": r"there is no file .*none\.o",
    "type-object": r"express of .*express\.o has BPF program type 6; only a TC classifier",
    "type-pinned": r"has BPF program type 6; only a TC classifier",
    "type-id": r"has BPF program type 6; only a TC classifier",
    "pinned-map": r"is a BPF object, but not a program",
    "pinned-file": r"the pin .* can't be opened",
    "pinned-none": r"there is no such file \(is bpffs mounted\?",
    "dead-id": r"program id \d+ can't be opened: no such program is loaded",
    "pin-map": r"pin: .* pins an object other than a program .*; nothing was changed",
    "pin-file": r"pin: .* is not a directory on a BPF file system .*nothing was changed",
    "two-sources": r"mutually exclusive: object\|pinned\|program_id\|source",
    "no-source": r"state is present but any of the following are missing: object, pinned",
    "program-alone": r"required by 'program': object",
    "source-alone": r"required by 'source': function",
    "function-alone": r"required by 'function': source",
    "tcx-handle": r"handle is given, but TCX has no handles; nothing was changed",
    "priority-0": r"priority is 0; it must be from 1 to 65535; nothing was changed",
    "priority-70000": r"priority is 70000; it must be from 1 to 65535; nothing was changed",
    "handle-0": r"handle is 0; it must be from 1 to",
    "program-id-0": r"program_id is 0; it must be from 1 to",
    "no-interface": r"there is no interface nix0 in this network namespace",
    "no-netns": r"cannot open the network namespace /run/netns/no-such-one: No such file",
    "bad-hook": r"value of hook must be one of: ingress, egress, got: sideways",
    "foreign-slot": r"cilium.* is already attached under another name; nothing was changed",
    "foreign-handle": r"cilium.* is already attached under another name; nothing was changed",
    "foreign-absent": r"cilium.* does not belong to Calico; nothing was changed\. To remove it, "
    r"give its name",
    "absent-pin-file": r"pin: .* exists but is not a BPF object .*nothing was changed",
    "several-absent": r"several filters match: .*handle 2.*handle 1.*; choose one with `handle`",
    "other-kind": r"u32 filter at pref 60 .*a priority holds filters of one kind and protocol only",
    "other-protocol": r"protocol 0x0800.*a priority holds filters of one kind and protocol only",
    "ingress-qdisc": r"has an ingress qdisc in the place of clsact\. It belongs to another "
    r"program; nothing was changed",
}


def _refused_options(lab: Lab, compiled: Path, pins: Path, interface: str) -> dict[str, Options]:
    several = str(compiled / "several.o")
    allow: Options = {"object": str(lab.objects / "allow.o")}
    unchecked = {"object": several, "program": "unchecked"}
    express, map_pin = make_pins(compiled, pins)
    absent = {"state": "absent"}
    blocked = endpoint(lab, clsact=False)
    lab.tc("qdisc", "add", "dev", blocked, "ingress")
    options: dict[str, Options] = {
        "verifier-object": unchecked,
        "verifier-source": {"source": str(SOURCES / "unchecked.c"), "function": "unchecked"},
        "verifier-tcx": {**unchecked, "attach_type": "tcx"},
        "does-not-compile": {"source": TEXT.replace("9000", "nonsense"), "function": "from_text"},
        "no-such-function": {"source": TEXT, "function": "nowhere"},
        "no-such-source": {"source": "/no/such/file.c", "function": "f"},
        "no-such-program": {"object": several, "program": "third"},
        "which-program": {"object": several},
        **{f"object-{name}": {"object": path} for name, path in _broken(compiled).items()},
        "type-object": {"object": str(compiled / "express.o")},
        "type-pinned": {"pinned": express},
        "type-id": {"program_id": program_id(express)},
        "pinned-map": {"pinned": map_pin},
        "pinned-file": {"pinned": several},
        "pinned-none": {"pinned": f"{map_pin}-none"},
        "dead-id": {"program_id": _dead_program(lab)},
        "pin-map": {**allow, "pin": map_pin},
        "pin-file": {**allow, "pin": several},
        "two-sources": {**allow, "pinned": express},
        "no-source": {},
        "program-alone": {"pinned": express, "program": "express"},
        "source-alone": {"source": TEXT},
        "function-alone": {**allow, "function": "f"},
        "tcx-handle": {**allow, "attach_type": "tcx", "handle": 1},
        "priority-0": {**allow, "priority": 0},
        "priority-70000": {**allow, "priority": 70000},
        "handle-0": {**allow, "handle": 0},
        "program-id-0": {"program_id": 0},
        "no-interface": {**allow, "interface": "nix0"},
        "no-netns": {**allow, "netns": "no-such-one"},
        "bad-hook": {**allow, "hook": "sideways"},
        "foreign-slot": {**allow, "priority": 50},
        "foreign-handle": {**allow, "priority": 50, "handle": 1, "name": "mine"},
        "foreign-absent": {**absent, "priority": 50, "handle": 1},
        "absent-pin-file": {**absent, "handle": 2, "pin": several},
        "several-absent": absent,
        "other-kind": {**allow, "priority": 60},
        "other-protocol": {**allow, "priority": 70},
        "ingress-qdisc": {**allow, "interface": blocked},
    }
    return {case: {"interface": interface, "hook": "ingress", **o} for case, o in options.items()}


@pytest.fixture(scope="module")
def crowded(module_lab: Lab) -> str:
    """An endpoint with all that can stand in the way."""
    lab, interface = module_lab, endpoint(module_lab)
    lab.attach(interface, "ingress", 1)
    lab.attach(interface, "ingress", 2)
    lab.attach(interface, "egress", 1)
    lab.attach(interface, "ingress", 1, priority=50, variant="foreign", name="cilium")
    dev = ("filter", "add", "dev", interface, "ingress")
    lab.tc(*dev, "pref", "60", "protocol", "all", "u32", "match", "u32", "0", "0")
    lab.attach(interface, "ingress", 1, priority=70, variant="foreign", name="x", protocol="ip")
    attach_without_link(lab, interface, "ingress", lab.pin("foreign"))
    return interface


@pytest.fixture(scope="module")
def refused(
    module_lab: Lab, compiled: Path, crowded: str
) -> tuple[dict[str, Refused], tuple[str, ...], tuple[str, ...]]:
    """Every refusal in check mode and for real, and all that the kernel held before and after."""
    lab = module_lab
    options = _refused_options(lab, compiled, folder_for_pins(lab), crowded)

    def everything() -> tuple[str, ...]:
        names = sorted({crowded, options["ingress-qdisc"]["interface"]})
        filters = [
            lab.tc("filter", "show", "dev", n, h) for n in names for h in ("ingress", "egress")
        ]
        return (*filters, lab.tc("qdisc", "show"), str(programs(lab, crowded, "ingress")),
                str(sorted(str(p) for p in Path("/sys/fs/bpf").rglob("*"))))  # fmt: skip

    before = everything()
    check = lab.modules(MODULE, options, check=True)
    real = lab.modules(MODULE, options)
    after = everything()
    return {case: Refused(check[case], real[case]) for case in options}, before, after


@pytest.mark.parametrize("case", REFUSALS)
def test_refusal(case: str, refused: tuple[dict[str, Refused], object, object]) -> None:
    """A message that says what is wrong, the same in check mode, and no Python traceback."""
    result = refused[0][case]
    assert result.real.get("failed"), result.real
    assert re.search(REFUSALS[case], result.real["msg"], re.DOTALL), result.real["msg"]
    assert "Traceback" not in json.dumps(result.real)
    assert not result.real["changed"]
    ids = re.compile(r"0x[0-9a-f]+|\d+")
    assert ids.sub("#", result.check["msg"]) == ids.sub("#", result.real["msg"])


def test_refusals_leave_everything_as_it_was(
    refused: tuple[dict[str, Refused], tuple[str, ...], tuple[str, ...]],
) -> None:
    _unused, before, after = refused
    assert after == before


@pytest.mark.parametrize("case", ["verifier-object", "verifier-source", "verifier-tcx"])
def test_the_verifiers_log_comes_along(
    case: str, refused: tuple[dict[str, Refused], object, object]
) -> None:
    assert "map_value_or_null" in refused[0][case].real["verifier_log"]


def test_the_compilers_words_come_along(
    refused: tuple[dict[str, Refused], object, object],
) -> None:
    """The module's documentation promises them under the same key."""
    result = refused[0]["does-not-compile"].real
    assert "undeclared identifier 'nonsense'" in result.get("verifier_log", "")


WITHOUT_BPFFS = (
    "unshare", "-m", "sh", "-c",
    'while umount -l /sys/fs/bpf 2>/dev/null; do :; done; exec "$@"', "sh",
)  # fmt: skip


def test_without_a_bpffs(module_lab: Lab) -> None:
    """Pins can be neither opened nor made; the refusal comes before anything is attached."""
    lab, interface = module_lab, endpoint(module_lab)
    lab.attach(interface, "ingress", 1)
    pin = lab.pin("deny")
    place: Options = {"netns": lab.netns, "interface": interface, "hook": "ingress"}
    before = held(lab, interface)
    pinned = run_module(MODULE, {**place, "pinned": pin}, prefix=WITHOUT_BPFFS)
    assert "is bpffs mounted? mount -t bpf bpf /sys/fs/bpf" in pinned["msg"]
    assert held(lab, interface) == before
    deny: Options = {**place, "object": str(lab.objects / "deny.o")}
    refused = run_module(MODULE, {**deny, "pin": "/sys/fs/bpf/mine"}, prefix=WITHOUT_BPFFS)
    assert refused.get("failed"), refused
    assert held(lab, interface) == before
    loaded = run_module(MODULE, deny, prefix=WITHOUT_BPFFS)
    assert loaded["changed"], loaded
