# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which network namespace is looked at, and that looking leaves the process in its own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import Refusal
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.netlink import TcSocket
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.snapshot import Reader
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab, run, run_module


def own_namespace() -> int:
    """The inode that is this thread's network namespace."""
    return os.stat("/proc/thread-self/ns/net").st_ino


def links(shown: str) -> dict[str, int]:
    """Interfaces by name as in ``ip -json link``, with their indexes."""
    return {link["ifname"]: link["ifindex"] for link in json.loads(shown)}


@pytest.mark.parametrize("way", ["name", "path", "default"])
def test_which_namespace_is_audited(lab: Lab, way: str) -> None:
    """By its name or its path; by default the one that the module runs in, here the host's."""
    lab.endpoint("cali1")
    path = f"/run/netns/{lab.netns}"
    netns = {"name": {"netns": lab.netns}, "path": {"netns": path}, "default": {}}[way]
    everything = {"interfaces": ["*"], "verbose_endpoints": True, "settle": 0}
    before = links(run("ip", "-json", "link"))
    result = run_module("qdisc_consistency", {**everything, **netns})
    seen = {e["interface"]: e["ifindex"] for e in result["endpoints"]}
    if way != "default":
        assert seen == links(lab.ip("-json", "link"))
        return
    # Interfaces of other tests may come and go on the host.
    steady = before.items() & links(run("ip", "-json", "link")).items()
    assert steady
    assert seen.items() >= steady
    assert "cali1" not in seen


def test_the_default_is_where_the_module_runs(lab: Lab) -> None:
    lab.endpoint("cali1")
    result = run_module(
        "qdisc_consistency",
        {"interfaces": ["*"], "verbose_endpoints": True, "settle": 0},
        prefix=("nsenter", f"--net=/run/netns/{lab.netns}"),
    )
    assert {e["interface"] for e in result["endpoints"]} == set(links(lab.ip("-json", "link")))


@pytest.mark.parametrize("by_path", [False, True])
def test_a_snapshot_leaves_the_process_in_its_own_namespace(lab: Lab, by_path: bool) -> None:
    lab.endpoint("cali1")
    path = f"/run/netns/{lab.netns}"
    home = own_namespace()
    with entered(path if by_path else lab.netns), TcSocket() as tc:
        assert own_namespace() == os.stat(path).st_ino != home
        snapshot = Reader(tc).read(["cali*"])
    assert own_namespace() == home
    assert [(e.interface, e.ifindex) for e in snapshot.endpoints] == [
        ("cali1", lab.ifindex("cali1"))
    ]


def test_a_failure_inside_leads_home_too(lab: Lab) -> None:
    home, files = own_namespace(), open_files()
    with pytest.raises(ZeroDivisionError), entered(lab.netns):
        raise ZeroDivisionError
    assert own_namespace() == home
    assert open_files() == files


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_no_namespace_means_staying() -> None:
    home = own_namespace()
    with entered(None):
        assert own_namespace() == home


def test_a_file_that_is_not_a_namespace_is_refused(lab: Lab, tmp_path: Path) -> None:
    """And nothing of it blames a missing privilege: root asked."""
    file = tmp_path / "file"
    file.touch()
    mounts = "/proc/self/ns/mnt"
    home, files = own_namespace(), open_files()
    for netns in ("no-such-one", str(tmp_path / "none"), str(file), mounts):
        with pytest.raises(Refusal) as refused, entered(netns):
            pytest.fail("entered")
        assert netns in str(refused.value)
        assert "needs root" not in str(refused.value)
    assert own_namespace() == home
    assert open_files() == files
