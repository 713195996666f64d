# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who changed what, by the numbers that the kernel gives to sockets."""

from __future__ import annotations

import subprocess
import threading
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.felix.churn import Interface
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.felix.observation import watched
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.processes import Sampler
from ansible_collections.dataplane.calico_bpf.tests.support.felix import actors, passes
from ansible_collections.dataplane.calico_bpf.tests.support.felix.releases import Behaviour
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab
from ansible_collections.dataplane.calico_bpf.tests.support.tc.tcx import remove_pins


def churn(lab: Lab, **options: Any) -> dict[str, Any]:
    result = lab.module("tc_churn_info", **{"window": 1, **options})
    assert not result.get("failed"), result
    found: dict[str, Any] = result["churn"]
    return found


@pytest.mark.parametrize("container", [False, True])
def test_a_running_process_is_named(lab: Lab, container: bool) -> None:
    """In a container as well, where the socket's number is the process id as it is in there."""
    interface = lab.endpoint("cali1")
    with actors.attacher(lab, interface, container=container):
        found = churn(lab)
    (cali1,) = found["interfaces"]
    assert cali1["by"] == ["calico-node"]
    assert (cali1["detached"], found["overrun"]) == (0, False)
    assert 5 <= cali1["attached"] == found["changes"] <= 11


def test_a_process_of_the_same_number_elsewhere_is_not_blamed(lab: Lab) -> None:
    """Every container has a process 1, but not every one can change this namespace."""
    words = [*actors.CONTAINER, "sh", "-c", "read -r line"]
    stranger = subprocess.Popen(words, stdin=subprocess.PIPE)
    try:
        with actors.attacher(lab, lab.endpoint("cali1"), container=True):
            (cali1,) = churn(lab)["interfaces"]
    finally:
        stranger.communicate(b"\n")
    assert cali1["by"] == ["calico-node"]


def test_two_containers_with_the_same_numbers_are_both_named(lab: Lab) -> None:
    enter = ["nsenter", f"--net=/run/netns/{lab.netns}"]
    words = [*enter, *actors.CONTAINER, "sh", "-c", "read -r line"]
    twin = subprocess.Popen(words, stdin=subprocess.PIPE)
    try:
        with actors.attacher(lab, lab.endpoint("cali1"), container=True):
            (cali1,) = churn(lab)["interfaces"]
    finally:
        twin.communicate(b"\n")
    assert cali1["by"] == ["calico-node or sh"]


def test_a_further_socket_of_a_process_is_unknown(lab: Lab) -> None:
    with actors.attacher(lab, lab.endpoint("cali1"), which="second"):
        (cali1,) = churn(lab)["interfaces"]
    assert cali1["by"] == ["unknown"]


def test_tcx_is_counted_by_the_kernel_itself(lab: Lab) -> None:
    """Three passes over both hooks; a second interface was attached to before and stays."""
    felix = passes.Felix(Behaviour.TCX, lab.objects / "allow.o")
    busy, calm = lab.endpoint("cali1"), lab.endpoint("cali2")
    done = threading.Event()

    def work() -> None:
        with entered(lab.netns):
            for _pass in range(3):
                done.wait(0.5)
                felix.apply_policy(busy)

    with entered(lab.netns):
        felix.apply_policy(busy)
        felix.apply_policy(calm)
    thread = threading.Thread(target=work)
    try:
        with entered(lab.netns):
            thread.start()
            (cali1,) = watched(2.5, ["cali*"], [], Sampler()).interfaces
    finally:
        thread.join()
        remove_pins([busy, calm])
    assert cali1 == Interface("cali1", attached=6, detached=0, by=["unknown"])


def test_only_wanted_interfaces_count(lab: Lab) -> None:
    with actors.attacher(lab, lab.endpoint("cali1")), actors.attacher(lab, lab.endpoint("eth9")):
        names = [i["interface"] for i in churn(lab)["interfaces"]]
        others = [i["interface"] for i in churn(lab, interfaces=["eth*"])["interfaces"]]
    assert (names, others) == (["cali1"], ["eth9"])


def test_calm(lab: Lab) -> None:
    lab.endpoint("cali1")
    assert churn(lab)["interfaces"] == []
    assert churn(lab)["per_minute"] == 0


def test_a_window_of_nothing_is_refused(lab: Lab) -> None:
    result = lab.module("tc_churn_info", window=0)
    assert result.get("failed")
    assert "window is 0; it must be from 1 to 3600" in result["msg"]
