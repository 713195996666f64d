# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines as Felix writes them, in the wrappings in which they are kept."""

from __future__ import annotations

import json

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.felix.log import Dirty, Log, read

MISMATCH = (
    "Failed to apply policy to endpoint, leaving it dirty error=ingress qdisc info "
    "({true 49152 2}) does not equal egress qdisc info ({true 49152 1})"
)
#: How the workload is written: up to v3.29 a message with String(), from v3.30 on a struct.
IDS = {
    "v3.28.1": 'orchestrator_id:"k8s" workload_id:"default/web-0" endpoint_id:"eth0" ',
    "v3.30.4": '&types.WorkloadEndpointID{OrchestratorId:"k8s", WorkloadId:"default/web-0", '
    'EndpointId:"eth0"}',
}


def felix(second: int, message: str, level: str = "WARNING", pid: int = 60) -> str:
    place = "felix/bpf_ep_mgr.go 2100"
    return f"2026-11-23 22:00:{second:02}.120 [{level}][{pid}] {place}: {message}"


def dirty(second: int, name: str = "cali1", wep: str = IDS["v3.28.1"], pid: int = 60) -> str:
    return felix(second, f'{MISMATCH} name="{name}" wepID={wep}', pid=pid)


def starts(second: int, pid: int = 60) -> str:
    fields = f'GOMAXPROCS=8 builddate="2025-02-01" gitcommit="{"0" * 40}" version="v3.29.1"'
    return felix(second, f"Felix starting up {fields}", "INFO", pid)


def cri(line: str, zone: str = "Z", tag: str = "F") -> str:
    return f"2026-11-23T22:00:{line[17:19]}.123456789{zone} stdout {tag} {line}\n"


def docker(line: str) -> str:
    at = f"2026-11-23T22:00:{line[17:19]}.123456789Z"
    return json.dumps({"log": line + "\n", "stream": "stdout", "time": at}) + "\n"


def at(second: int) -> str:
    return f"2026-11-23T22:00:{second:02}Z"


@pytest.mark.parametrize("wrap", [cri, docker, "{}\n".format], ids=["cri", "docker", "plain"])
@pytest.mark.parametrize("release", IDS)
def test_a_log_of_felix(wrap: object, release: str) -> None:
    assert callable(wrap)
    lines = [starts(1), dirty(5, wep=IDS[release]), felix(6, "Host IP changed"),
             dirty(15, wep=IDS[release])]  # fmt: skip
    assert read("".join(map(wrap, lines))) == Log(
        at(1),
        at(15),
        "v3.29.1",
        (
            Dirty(
                interface="cali1",
                workload="default/web-0",
                count=2,
                first_at=at(5),
                last_at=at(15),
                message=MISMATCH,
            ),
        ),
    )


def test_only_the_felix_that_logged_last_counts() -> None:
    """Felix restarts inside its container where its configuration changes."""
    lines = [starts(1), dirty(2), starts(5, pid=777), dirty(6, "cali2", pid=777)]
    log = read("".join(map(cri, lines)))
    assert log.since == at(5)
    assert [d.interface for d in log.dirty] == ["cali2"]


def test_without_a_start_up_line_the_version_is_not_known() -> None:
    """As with Calico's own manifests, which leave FELIX_LOGSEVERITYSCREEN unset."""
    assert read(cri(dirty(5))).version is None
    log = read(cri(starts(1)) + cri(dirty(5, pid=777)))
    assert (log.version, log.since) == (None, at(5))


def test_an_error_of_several_lines_is_one_message() -> None:
    """As ``tc`` writes it; the name comes in the last."""
    error = [
        felix(5, "Failed to apply policy to endpoint, leaving it dirty error=failed to execute tc "
                 "[filter del]: rc=2 stderr=Error: No such file."),
        "We have an error talking to the kernel",
        f' (exit status 2) name="cali1" wepID={IDS["v3.28.1"]}',
        felix(6, 'Interface remains dirty. name="cali9"', "INFO"),
    ]  # fmt: skip
    stamp = "2026-11-23T22:00:05.1Z stdout F "
    (found,) = read("".join(f"{stamp}{line}\n" for line in error)).dirty
    assert (found.interface, found.workload) == ("cali1", "default/web-0")
    assert found.message.endswith("talking to the kernel\n (exit status 2)")


def test_a_line_that_the_runtime_cut_is_put_together() -> None:
    whole = dirty(5)
    text = cri(whole[:200], tag="P") + f"2026-11-23T22:00:05Z stdout F {whole[200:]}\n"
    assert read(text).dirty == read(cri(whole)).dirty


def test_an_interface_of_the_host_and_an_endpoint_without_workload() -> None:
    data = felix(5, 'Failed to apply policy to interface, will retry error=oops iface="eth0"')
    found = read(cri(data) + cri(dirty(6, wep="(*types.WorkloadEndpointID)(nil)"))).dirty
    assert [(d.interface, d.workload) for d in found] == [
        ("cali1", None),
        ("eth0", None),
    ]
    assert found[1].message == "Failed to apply policy to interface, will retry error=oops"


def test_an_incomplete_line_is_not_lost() -> None:
    (found,) = read(cri(felix(5, MISMATCH))).dirty
    assert (found.interface, found.message) == ("?", MISMATCH)


@pytest.mark.parametrize(
    ("zone", "utc"), [("+02:00", "2026-11-23T20:00"), ("-03:30", "2026-11-24T01:30")]
)
def test_times_are_utc(zone: str, utc: str) -> None:
    """CRI-O stamps in the node's zone."""
    assert read(cri(dirty(5), zone)).newest_at == f"{utc}:05Z"


def test_the_other_processes_of_calico_node_say_nothing_of_felix() -> None:
    other = "2026-11-23 22:00:30.120 [INFO][70] confd/client.go 1: Skipping confd"
    text = cri(starts(1)) + cri("bird: KRT: Received route") + cri(other)
    log = read(cri(starts(1)) + cri(other))
    assert log.newest_at == at(1)
    assert read("") == Log(None, None, None, ())
    assert read(text).version == "v3.29.1"


LOAD = "libbpf: prog 'calico_tc_norm_pol_tail': BPF program load failed: Invalid argument"
OPEN = "libbpf: elf: failed to open /usr/lib/calico/bpf/from_wep_debug.o: No such file or directory"


@pytest.mark.parametrize("wrap", ["2026-11-23T22:00:07.1Z stderr F {}\n".format, "{}\n".format])
def test_lines_of_libbpf_about_programs_that_failed_to_load(wrap: object) -> None:
    assert callable(wrap)
    harmless = "libbpf: Kernel error message: Exclusivity flag on, cannot modify"
    log = read("".join(map(wrap, [LOAD])) + cri(starts(1)) + "".join(
        map(wrap, [LOAD, harmless, OPEN, LOAD])
    ))  # fmt: skip
    assert [(f.message, f.count) for f in log.load_failures] == [(LOAD, 2), (OPEN, 1)]
    assert {f.last_at for f in log.load_failures} <= {at(7), None}


def test_a_hook_whose_program_failed_to_load_is_no_mismatch() -> None:
    line = dirty(5).replace("({true 49152 1})", "({false 0 0})")
    (found,) = read(cri(starts(1)) + cri(line)).dirty
    assert found.load_failed
    assert not read(cri(starts(1)) + cri(dirty(5))).dirty[0].load_failed


def test_a_line_of_any_length_is_cut_with_a_mark() -> None:
    """The container's runtime splits lines, but a plain file does not."""
    error = f"Failed to apply policy to endpoint, leaving it dirty error={'x' * 50_000}"
    lines = [starts(1), f"libbpf: failed to load object {'y' * 50_000}", felix(5, error)]
    log = read("".join(f"{line}\n" for line in lines))
    (failure,), (found,) = log.load_failures, log.dirty
    for message in (failure.message, found.message):
        assert message.endswith(" more characters]")
        assert len(message) < 1_100
