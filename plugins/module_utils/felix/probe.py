# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probe URLs and TCP ports from the node or from one of its pods."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..calico.workload import interface_of
from ..errors import DataplaneError, Refusal
from ..kernel import namespace, veth_peer
from . import http as http_get

#: Seconds beyond the timeout to wait for a thread that still resolves a name.
_GRACE = 1.0


@dataclass(frozen=True)
class ProbeTarget:
    """A URL or a TCP port; reached from the pod of ``interface``, or from here if None."""

    url: str | None
    host: str | None
    port: int | None
    interface: str | None

    def __str__(self) -> str:
        url = http_get.without_credentials(self.url) if self.url else None
        what = url or f"{self.host}:{self.port}"
        return f"{what} from {self.interface}" if self.interface else what


@dataclass
class Probe:
    target: str
    ok: bool = False
    elapsed_ms: float = 0.0
    status: int | None = None
    error: str | None = None


def network_probe_info(params: Mapping[str, Any]) -> dict[str, Any]:
    """:raises Refusal: a target is malformed; no request was sent."""
    targets = [_target(options) for options in params["targets"]]
    timeout = params["timeout"]
    if not 0 < timeout <= 600:
        raise Refusal(f"timeout is {timeout:g}; it must be more than 0 and up to 600")
    with namespace.entered(params["netns"]):
        probes = probe(targets, timeout)
    result: dict[str, Any] = {"changed": False, "targets": [asdict(p) for p in probes]}
    failed = [f"{p.target}: {p.error}" for p in probes if not p.ok]
    if failed and params["fail_on_error"]:
        raise DataplaneError(f"{len(failed)} of {len(probes)}: {'; '.join(failed)}", result)
    return result


def _target(options: Mapping[str, Any]) -> ProbeTarget:
    url, host, port = options["url"], options["host"], options["port"]
    if url:
        http_get.parts_of(url)
    elif not host or not port or not 0 < port < 1 << 16:
        raise Refusal(
            f"a target needs a url, or a host and a port from 1 to 65535; it is {options}"
        )
    interface = options["interface"]
    if options["from_pod"]:
        interface = _interface_of(options["from_pod"], options["interface_prefix"])
    return ProbeTarget(url, host, port, interface)


def _interface_of(pod: str, prefix: str) -> str:
    """The interface of a pod given as namespace/name."""
    words = pod.split("/")
    if len(words) != 2 or not all(words):
        raise Refusal(f"from_pod is {pod!r}; it must be namespace/name")
    return interface_of(words[0], words[1], prefix)


def probe(targets: Sequence[ProbeTarget], timeout: float) -> list[Probe]:
    """Probe all targets at once, so that they take no longer than the slowest."""
    probes = [Probe(str(target)) for target in targets]
    threads = [
        threading.Thread(target=_run, args=(target, found, timeout), daemon=True)
        for target, found in zip(targets, probes)
    ]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for number, thread in enumerate(threads):
        thread.join(max(0.0, start + timeout + _GRACE - time.monotonic()))
        if thread.is_alive():
            text = (
                f"no result within {timeout:g} s; the name may not have been resolved in that time"
            )
            elapsed = round((time.monotonic() - start) * 1000, 1)
            probes[number] = Probe(str(targets[number]), elapsed_ms=elapsed, error=text)
    return probes


def _run(target: ProbeTarget, found: Probe, timeout: float) -> None:
    start = time.monotonic()
    try:
        # Each thread can enter a network namespace of its own.
        with namespace.entered(
            veth_peer.netns_of_peer(target.interface) if target.interface else None
        ):
            start = time.monotonic()
            _reach(target, found, timeout)
    except DataplaneError as error:
        found.error = str(error)
    found.elapsed_ms = round((time.monotonic() - start) * 1000, 1)
    found.ok = found.error is None


def _reach(target: ProbeTarget, found: Probe, timeout: float) -> None:
    if target.url:
        answer = http_get.get(target.url, timeout)
        found.status = answer.status
        if answer.status >= 400:
            url = http_get.without_credentials(target.url)
            found.error = f"GET {url}: HTTP {answer.status} {answer.reason}"
        return
    connection = http.client.HTTPConnection(target.host or "", target.port, timeout=timeout)
    try:
        connection.connect()
    except OSError as error:
        what = f"connect to {target.host} port {target.port}"
        raise http_get.unreachable(what, error, timeout) from None
    finally:
        connection.close()
