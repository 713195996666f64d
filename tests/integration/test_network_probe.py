# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes of real servers, from the node and from within a pod's network namespace."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pyroute2 import netns as pyroute2_netns

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.felix import http
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.tests.support.netns.answers import answering
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab

CALI = "cali" + hashlib.sha1(b"default.web-0").hexdigest()[:11]
NODE, POD = "192.0.2.1", "192.0.2.2"


@pytest.fixture
def pod(lab: Lab) -> Iterator[str]:
    """The namespace of the pod default/web-0, which can reach its node, by its name."""
    name = f"{lab.netns}-pod"
    pyroute2_netns.create(name)
    try:
        peer = ("peer", "name", "eth0", "netns", name)
        lab.ip("link", "add", CALI, "type", "veth", *peer)
        for where, interface, address in (([], CALI, NODE), (["-n", name], "eth0", POD)):
            lab.ip(*where, "addr", "add", f"{address}/24", "dev", interface)
            lab.ip(*where, "link", "set", interface, "up")
        lab.ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        pyroute2_netns.remove(name)


def probe(lab: Lab, *targets: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    result = lab.module("network_probe_info", targets=list(targets), **options)
    assert not result.get("failed"), result
    found: list[dict[str, Any]] = result["targets"]
    return found


@contextmanager
def silent(netns: str, address: tuple[str, int]) -> Iterator[None]:
    """Takes connections and never says anything."""
    with entered(netns):
        listening = socket.create_server(address)
    with listening:
        yield


def test_from_the_node_and_from_the_pod(lab: Lab, pod: str) -> None:
    """What listens on the pod's loopback is there for the pod alone."""
    answers = {"/": (200, "yes"), "/ill": (503, "no")}
    inside, outside = "http://127.0.0.1:8080", f"http://{NODE}:80"
    with answering(pod, ("127.0.0.1", 8080), answers), answering(lab.netns, (NODE, 80), answers):
        found = probe(
            lab,
            {"url": inside, "from_pod": "default/web-0"},
            {"url": inside, "interface": CALI},
            {"url": inside},
            {"url": outside, "from_pod": "default/web-0"},
            {"host": NODE, "port": 80, "from_pod": "default/web-0"},
            {"host": NODE, "port": 81},
            {"url": f"{outside}/ill"},
            timeout=30,
        )
    assert [result["ok"] for result in found] == [True, True, False, True, True, False, False]
    assert [result["status"] for result in found] == [200, 200, None, 200, None, None, 503]
    assert found[0]["target"] == f"{inside} from {CALI}"
    assert found[2]["error"] == f"GET {inside}: Connection refused"
    assert found[5]["error"] == f"connect to {NODE} port 81: Connection refused"
    assert found[6]["error"] == f"GET {outside}/ill: HTTP 503 Service Unavailable"
    assert all(0 < result["elapsed_ms"] < 30_000 for result in found)
    assert [result["error"] is None for result in found] == [result["ok"] for result in found]


def test_a_missing_pod_is_an_error_of_its_target(lab: Lab, pod: str) -> None:
    lab.endpoint("cali1")  # both its ends are here
    (gone, no_pod) = probe(
        lab,
        {"host": NODE, "port": 80, "from_pod": "default/web-1"},
        {"host": NODE, "port": 80, "interface": "cali1"},
    )
    assert "there is no interface cali" in gone["error"]
    assert "it does not belong to a pod" in no_pod["error"]


def test_a_pod_whose_namespace_has_no_file(lab: Lab, pod: str) -> None:
    """Other files of any kind in the directory do no harm."""
    with entered(pod):
        namespace = open("/proc/thread-self/ns/net", "rb")  # noqa: SIM115
    pyroute2_netns.remove(pod)
    with namespace:
        (found,) = probe(lab, {"host": NODE, "port": 80, "interface": CALI})
    pyroute2_netns.create(pod)  # for the fixture
    assert "is in a network namespace without a file in /run/netns" in found["error"]


def test_silence_ends_at_the_timeout_for_all_together(lab: Lab, pod: str) -> None:
    with silent(lab.netns, (NODE, 80)):
        found = probe(lab, *[{"url": f"http://{NODE}"}] * 4, timeout=2)
    assert {result["error"] for result in found} == {f"GET http://{NODE}: no answer within 2 s"}
    assert all(2_000 <= result["elapsed_ms"] < 6_000 for result in found)


def test_failing_is_asked_for(lab: Lab) -> None:
    target = {"host": "127.0.0.1", "port": 9}
    result = lab.module("network_probe_info", targets=[target], fail_on_error=True)
    assert result.get("failed")
    assert "1 of 1: 127.0.0.1:9: connect to 127.0.0.1 port 9: Connection refused" in result["msg"]
    assert result["targets"][0]["ok"] is False


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ({"url": "ftp://x"}, "'ftp://x' is not an HTTP URL"),
        ({"host": "x", "port": 0}, "a port from 1 to 65535"),
        (
            {"url": "http://x", "from_pod": "web-0"},
            "from_pod is 'web-0'; it must be namespace/name",
        ),
        ({"host": "x"}, "port"),
        ({"url": "http://x", "from_pod": "a/b", "interface": "cali1"}, "mutually exclusive"),
    ],
)
def test_a_malformed_target_is_refused(lab: Lab, target: dict[str, Any], says: str) -> None:
    result = lab.module("network_probe_info", targets=[{"host": "127.0.0.1", "port": 9}, target])
    assert result.get("failed")
    assert says in result["msg"]


def test_a_body_that_trickles_in_ends_at_the_timeout(lab: Lab) -> None:
    """Each piece comes in time, and all of them never would."""
    with entered(lab.netns), socket.create_server(("127.0.0.1", 80)) as listening:
        done = threading.Event()

        def trickle() -> None:
            connection = listening.accept()[0]
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                while not done.wait(0.1):
                    connection.sendall(b".")

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            with pytest.raises(http.Unreachable, match=r"no answer within 0\.5 s"):
                http.get("http://127.0.0.1", 0.5)
        finally:
            done.set()
            thread.join()
