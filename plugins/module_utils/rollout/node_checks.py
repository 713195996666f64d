# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a node is healthy: compares what was observed there with what is expected. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Seen = Mapping[str, Any]
#: The reporter that is ready only while no endpoint is dirty (felix/dataplane/linux/bpf_ep_mgr.go).
_REPORTER = "BPFEndpointManager"


@dataclass(frozen=True)
class Bounds:
    """The highest values of a healthy node."""

    #: Cores that Felix uses on average.
    cpu: float
    #: ``tc`` processes at a time.
    tc: int
    #: Re-attachments a minute.
    churn: float
    #: Only later lines about dirty endpoints count (ISO time); "" counts all.
    dirty_since: str = ""


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    seen: str
    wanted: str


def verify(
    felix: Seen, parity: Seen, bounds: Bounds, probes: Sequence[Seen] = ()
) -> tuple[Check, ...]:
    """All checks of a node, in the order in which an administrator would make them.

    ``felix`` is what felix_info returns, ``parity`` what qdisc_consistency does, ``probes`` the
    targets of network_probe_info.
    """
    return (
        *_health(felix["health"]),
        _log(felix["log"], bounds),
        _metrics(felix),
        _parity(parity),
        _processes(felix["felix"]),
        *_load(felix, bounds),
        *_probes(probes),
    )


def _health(health: Seen) -> Iterator[Check]:
    wanted = "Felix reports ready"
    if not health["reachable"]:
        yield Check("readiness", False, f"Felix does not answer: {health['error']}", wanted)
        return
    reporters = {reporter["component"]: reporter for reporter in health["reporters"]}
    unready = [f"{n} ({r['detail']})" for n, r in reporters.items() if r["ready"] is False]
    seen = f"HTTP {health['status']}" + (f", not ready: {', '.join(unready)}" if unready else "")
    yield Check("readiness", bool(health["ready"]), seen, wanted)
    manager = reporters.get(_REPORTER)
    if manager is None:
        yield Check(
            _REPORTER, False, "no such reporter", "reports (is the eBPF dataplane enabled?)"
        )
    else:
        seen = manager["detail"] or ("ready" if manager["ready"] else "not ready")
        yield Check(_REPORTER, bool(manager["ready"]), seen, "ready")


def _log(log: Seen | None, bounds: Bounds) -> Check:
    since = f"after {bounds.dirty_since}" if bounds.dirty_since else "since the pod started"
    wanted = f"no endpoint was left dirty {since}"
    if log is None:
        return Check("log", False, "no log of calico-node was found on the node", wanted)
    late = [line for line in log["dirty"] if (line["last_at"] or "~") > bounds.dirty_since]
    lines = [f"{line['interface']} {line['count']} times: {line['message']}" for line in late]
    return Check("log", not late, "; ".join(lines) or "no line", wanted)


def _metrics(felix: Seen) -> Check:
    """Missing metrics are not an error: they are off by default."""
    metrics = felix["metrics"]
    if metrics is None:
        return Check(
            "dirty metric", True, f"not read: {felix['metrics_error']}", "0 if metrics are enabled"
        )
    dirty = metrics["dirty"]
    return Check("dirty metric", dirty == 0, f"{dirty} dirty endpoints", "0")


def _parity(parity: Seen) -> Check:
    verdicts = parity["summary"]["verdicts"]
    bad = verdicts["drifted"] + verdicts["contended"]
    names = [e["interface"] for e in parity["endpoints"] if e["verdict"] != "consistent"]
    seen = f"{bad} of {parity['summary']['endpoints']} drifted"
    return Check("parity", bad == 0, f"{seen}: {', '.join(names)}" if bad else seen, "0 drifted")


def _processes(running: Sequence[Seen]) -> Check:
    pids = ", ".join(str(process["pid"]) for process in running)
    return Check("Felix", len(running) == 1, f"processes: {pids or 'none'}", "exactly one")


def _load(felix: Seen, bounds: Bounds) -> Iterator[Check]:
    """Checks that need an observation period."""
    churn = felix["churn"]
    if churn is None:
        return
    most = felix["tc"]["most"]
    yield Check("tc processes", most <= bounds.tc, f"at most {most}", f"up to {bounds.tc}")
    cpu = sum(process["cpu"] or 0.0 for process in felix["felix"])
    yield Check("CPU of Felix", cpu <= bounds.cpu, f"{cpu:.2f} cores", f"up to {bounds.cpu:g}")
    busy = [f"{e['interface']} {e['attached']}" for e in churn["interfaces"] if e["attached"]]
    seen = f"{churn['per_minute']:g} changes a minute in {churn['seconds']:g} s"
    seen += f" ({', '.join(busy)})" if busy else ""
    calm = churn["per_minute"] <= bounds.churn and not churn["overrun"]
    yield Check("churn", calm, seen, f"up to {bounds.churn:g} a minute")


def _probes(probes: Sequence[Seen]) -> Iterator[Check]:
    for probe in probes:
        seen = f"{probe['elapsed_ms']:.0f} ms" if probe["ok"] else str(probe["error"])
        yield Check(f"probe {probe['target']}", probe["ok"], seen, "reachable")
