# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a node is healthy: compares what was observed there with what is expected. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..errors import beginning_of
from .endpoint_outline import NAMED, outline

Seen = Mapping[str, Any]
#: The reporter that is ready only while no endpoint is dirty (felix/dataplane/linux/bpf_ep_mgr.go).
_REPORTER = "BPFEndpointManager"
#: The most characters of a line of the log in a check.
_WORDS = 300
_NO_LOG = "no log of calico-node was found on the node"


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
    #: Errors of libbpf about loading a program since Felix started.
    load_failures: int = 0


class Result(str, Enum):
    """``not judged``: the evidence is missing, which is never good."""

    GOOD = "good"
    BAD = "bad"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Check:
    name: str
    result: Result
    seen: str
    wanted: str
    #: A node verifies only if each required check is good. Of the others, none may be bad.
    required: bool = True

    @property
    def passes(self) -> bool:
        return self.result is Result.GOOD or (
            self.result is Result.NOT_JUDGED and not self.required
        )


def verify(
    felix: Seen,
    parity: Seen,
    bounds: Bounds,
    probes: Sequence[Seen] = (),
    pods: Sequence[str] | None = None,
) -> tuple[Check, ...]:
    """All checks of a node, in the order in which an administrator would make them.

    ``felix`` is what felix_info returns, ``parity`` what qdisc_consistency does, ``probes`` the
    targets of network_probe_info. ``pods`` are those with a network of their own that run on the
    node, None if the API was not read.
    """
    return (
        *_health(felix["health"]),
        _log(felix["log"], bounds),
        _program_loads(felix["log"], bounds),
        _metrics(felix, parity),
        _parity(parity),
        _endpoints(parity, pods),
        _processes(felix["felix"]),
        *_load(felix, bounds),
        *_probes(probes),
    )


def _judged(good: bool) -> Result:
    return Result.GOOD if good else Result.BAD


def _health(health: Seen) -> Iterator[Check]:
    wanted = "Felix reports ready"
    if not health["reachable"]:
        seen = f"Felix does not answer: {health['error']}"
        yield Check("readiness", Result.BAD, seen, wanted)
        yield Check(_REPORTER, Result.NOT_JUDGED, "Felix does not answer", "ready")
        return
    reporters = {reporter["component"]: reporter for reporter in health["reporters"]}
    unready = [f"{n} ({r['detail']})" for n, r in reporters.items() if r["ready"] is False]
    seen = f"HTTP {health['status']}" + (f", not ready: {', '.join(unready)}" if unready else "")
    yield Check("readiness", _judged(bool(health["ready"])), seen, wanted)
    manager = reporters.get(_REPORTER)
    if manager is None:
        seen, wanted = "no such reporter", "reports (is the eBPF dataplane enabled?)"
        yield Check(_REPORTER, Result.NOT_JUDGED, seen, wanted)
    else:
        seen = manager["detail"] or ("ready" if manager["ready"] else "not ready")
        yield Check(_REPORTER, _judged(bool(manager["ready"])), seen, "ready")


def _log(log: Seen | None, bounds: Bounds) -> Check:
    since = f"after {bounds.dirty_since}" if bounds.dirty_since else "since the pod started"
    wanted = f"no endpoint was left dirty {since}"
    if log is None:
        return Check("log", Result.NOT_JUDGED, _NO_LOG, wanted)
    if not log["dirty"] and _begins_too_late(log, bounds.dirty_since):
        seen = f"the log of Felix begins only at {log['since'] or 'an unknown time'}"
        return Check("log", Result.NOT_JUDGED, seen, wanted)
    late = [line for line in log["dirty"] if (line["last_at"] or "~") > bounds.dirty_since]
    lines = [
        f"{line['interface']} {line['count']} times: {beginning_of(line['message'], _WORDS)}"
        for line in late[:NAMED]
    ]
    if len(late) > NAMED:
        lines.append(f"and {len(late) - NAMED} more interfaces")
    if any(line["load_failed"] for line in late):
        lines.append(
            "({false 0 0}) means that the programs of one direction failed to load: a repair of "
            "the filters does not help until libbpf's error is fixed"
        )
    return Check("log", _judged(not late), "; ".join(lines) or "no line", wanted)


def _begins_too_late(log: Seen, dirty_since: str) -> bool:
    """Whether lines after ``dirty_since`` may be missing: rotated away, or not read.

    With its start-up line, which has the version, the log of a Felix is whole.
    """
    whole = log["version"] is not None
    return bool(dirty_since) and not whole and (log["since"] or "~") > dirty_since


def _program_loads(log: Seen | None, bounds: Bounds) -> Check:
    """A program that failed to load may leave an endpoint attached and ready, but without policy.

    Releases 3.31.7 and 3.32.1 then report ready and no dirty endpoint, and the packets of an
    allowed pod are dropped. A later line of Felix does not show whether a retry succeeded.
    """
    wanted = f"up to {bounds.load_failures} errors of libbpf about loading since Felix started"
    if log is None:
        return Check("program loads", Result.NOT_JUDGED, _NO_LOG, wanted)
    count = sum(failure["count"] for failure in log["load_failures"])
    if count > bounds.load_failures:
        failures = log["load_failures"]
        lines = "; ".join(
            f"{beginning_of(f['message'], _WORDS)} ({f['count']} times)" for f in failures[:NAMED]
        )
        return Check("program loads", Result.NOT_JUDGED, lines, wanted)
    return Check("program loads", Result.GOOD, f"{count} errors", wanted)


def _metrics(felix: Seen, parity: Seen) -> Check:
    """Metrics are off by default; the log and readiness show the same.

    ``happy`` counts the workload endpoints whose policy Felix has applied. The metrics are read
    before the endpoints are, so a few endpoints may be newer.
    """
    metrics = felix["metrics"]
    if metrics is None:
        seen = f"not read: {felix['metrics_error']}"
        wanted = "0 if metrics are enabled"
        return Check("dirty metric", Result.NOT_JUDGED, seen, wanted, required=False)
    dirty, happy = metrics["dirty"], metrics["happy"]
    audited = _audited(parity)
    seen = f"{dirty} dirty endpoints, {happy} happy"
    wanted = f"0 dirty, at least {audited} happy"
    if dirty == 0 and 0 < happy < audited:
        return Check("dirty metric", Result.NOT_JUDGED, seen, wanted, required=False)
    return Check("dirty metric", _judged(dirty == 0 and happy >= audited), seen, wanted)


def _audited(parity: Seen) -> int:
    verdicts = parity["summary"]["verdicts"]
    return int(parity["summary"]["endpoints"] - verdicts["unmanaged"] - verdicts["vanished"])


def _parity(parity: Seen) -> Check:
    verdicts = parity["summary"]["verdicts"]
    bad = verdicts["drifted"] + verdicts["contended"]
    drifted = [e for e in parity["endpoints"] if e["verdict"] in ("drifted", "contended")]
    seen = f"{bad} of {parity['summary']['endpoints']} drifted"
    if bad:
        return Check(
            "parity",
            Result.BAD,
            f"{seen}: {outline(drifted, summary=parity['summary'])}",
            "0 drifted",
        )
    if parity["not_judged"]:
        return Check("parity", Result.NOT_JUDGED, "; ".join(parity["not_judged"]), "0 drifted")
    return Check("parity", Result.GOOD, seen, "0 drifted")


def _endpoints(parity: Seen, pods: Sequence[str] | None) -> Check:
    """Each pod with a network of its own has an interface."""
    wanted = "at least one audited endpoint for each running pod with a network of its own"
    if pods is None:
        seen = "the pods of the node were not read from the API"
        return Check("endpoints", Result.NOT_JUDGED, seen, wanted, required=False)
    audited = _audited(parity)
    seen = f"{audited} endpoints, {len(pods)} pods"
    if audited < len(pods):
        more = f" and {len(pods) - NAMED} more" if len(pods) > NAMED else ""
        seen += f": {', '.join(pods[:NAMED])}{more}"
        return Check("endpoints", Result.BAD, seen, wanted)
    return Check("endpoints", Result.GOOD, seen, wanted)


def _processes(running: Sequence[Seen]) -> Check:
    pids = ", ".join(str(process["pid"]) for process in running)
    return Check("Felix", _judged(len(running) == 1), f"processes: {pids or 'none'}", "exactly one")


def _load(felix: Seen, bounds: Bounds) -> Iterator[Check]:
    """Checks that need an observation period."""
    churn = felix["churn"]
    if churn is None:
        for name in ("tc processes", "CPU of Felix", "churn"):
            yield Check(name, Result.NOT_JUDGED, "not watched: the window is 0 s", "a window > 0")
        return
    most = felix["tc"]["most"]
    seen = f"at most {most}"
    yield Check("tc processes", _judged(most <= bounds.tc), seen, f"up to {bounds.tc}")
    yield _cpu([process["cpu"] for process in felix["felix"]], bounds)
    busy = [f"{e['interface']} {e['attached']}" for e in churn["interfaces"] if e["attached"]]
    seen = f"{churn['per_minute']:g} changes a minute in {churn['seconds']:g} s"
    seen += f" ({', '.join(busy)})" if busy else ""
    calm = churn["per_minute"] <= bounds.churn
    if calm and churn["overrun"]:
        lost = f"{seen}; the kernel dropped notifications"
        yield Check("churn", Result.NOT_JUDGED, lost, f"up to {bounds.churn:g} a minute")
    else:
        yield Check("churn", _judged(calm), seen, f"up to {bounds.churn:g} a minute")


def _cpu(cores: Sequence[float | None], bounds: Bounds) -> Check:
    known = [used for used in cores if used is not None]
    wanted = f"up to {bounds.cpu:g}"
    if not cores or len(known) < len(cores):
        return Check("CPU of Felix", Result.NOT_JUDGED, "not measured", wanted)
    return Check(
        "CPU of Felix", _judged(sum(known) <= bounds.cpu), f"{sum(known):.2f} cores", wanted
    )


def _probes(probes: Sequence[Seen]) -> Iterator[Check]:
    for probe in probes:
        seen = f"{probe['elapsed_ms']:.0f} ms" if probe["ok"] else str(probe["error"])
        yield Check(f"probe {probe['target']}", _judged(bool(probe["ok"])), seen, "reachable")
