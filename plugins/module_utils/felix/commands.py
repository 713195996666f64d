# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of the modules that read Felix's state on its node."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..errors import DataplaneError, Refusal
from ..kernel import namespace
from ..kernel.processes import Felix, Process, Sampler, felixes, processes_of_pod
from . import health, http, log, logfiles, metrics
from .observation import watched

Params = Mapping[str, Any]
#: Seconds within which Felix must answer.
_TIMEOUT = 5.0
_LONGEST = 3600
_EXIT_POLL = 0.2


def felix_info(params: Params) -> dict[str, Any]:
    """:raises DataplaneError: a bad option, or no privilege; missing data is not an error."""
    _check(params, window=0, wait_gone=0)
    urls = params["health_url"].rstrip("/") + "/readiness", params["metrics_url"]
    for url in urls:
        http.parts_of(url)
    start = time.monotonic()
    with namespace.entered(params["netns"]):
        left, waited = _await_exit(params["exited_pod_uid"], params["wait_gone"])
        seen = _felixes_and_churn(params)
        result = {
            "changed": False,
            **seen,
            "exited_pod_processes": None if left is None else [asdict(process) for process in left],
            "health": _health(urls[0], len(seen["felix"])),
            **_metrics(urls[1]),
            **_log(params["log_files"] or logfiles.DEFAULT, params["pod_uid"]),
            "waited_seconds": round(waited, 1),
        }
    result["elapsed_ms"] = round((time.monotonic() - start) * 1000, 1)
    return result


def tc_churn_info(params: Params) -> dict[str, Any]:
    """:raises DataplaneError: a bad option, or no privilege."""
    _check(params, window=1)
    start = time.monotonic()
    with namespace.entered(params["netns"]):
        sampler = Sampler()
        churn = watched(params["window"], params["interfaces"], params["exclude"], sampler)
    elapsed = round((time.monotonic() - start) * 1000, 1)
    return {
        "changed": False, "churn": asdict(churn), "tc": asdict(sampler.tc), "elapsed_ms": elapsed
    }  # fmt: skip


def _check(params: Params, **least: int) -> None:
    for option, lowest in least.items():
        if not lowest <= params[option] <= _LONGEST:
            raise Refusal(f"{option} is {params[option]:g}; it must be from {lowest} to {_LONGEST}")


# --- processes and churn --------------------------------------------------------------------------


def _await_exit(pod_uid: str | None, seconds: float) -> tuple[list[Process] | None, float]:
    """Wait until the processes of a pod have exited; (those that remain, seconds waited)."""
    if pod_uid is None:
        return None, 0.0
    start = time.monotonic()
    while left := processes_of_pod(pod_uid):
        if time.monotonic() - start >= seconds:
            break
        time.sleep(_EXIT_POLL)
    return left, time.monotonic() - start


def _felixes_and_churn(params: Params) -> dict[str, Any]:
    sampler, before, start = Sampler(), felixes(), time.monotonic()
    if not params["window"]:
        sampler.look()
        found = [_felix(felix, None) for felix in before]
        return {"felix": found, "tc": asdict(sampler.tc), "churn": None}
    churn = watched(params["window"], params["interfaces"], params["exclude"], sampler)
    after, seconds = felixes(), time.monotonic() - start
    found = [_felix(felix, _cores(felix, before, seconds)) for felix in after]
    return {"felix": found, "tc": asdict(sampler.tc), "churn": asdict(churn)}


def _felix(felix: Felix, cpu: float | None) -> dict[str, Any]:
    return {
        "pid": felix.pid,
        "age_seconds": felix.age_seconds,
        "cpu": cpu,
        "pod_uid": felix.pod_uid,
    }


def _cores(felix: Felix, before: Sequence[Felix], seconds: float) -> float:
    """The cores it used over the window, or since it started within it."""
    for same in before:
        if same.pid == felix.pid and felix.age_seconds >= same.age_seconds:
            return round((felix.cpu_seconds - same.cpu_seconds) / seconds, 3)
    return round(felix.cpu_seconds / max(felix.age_seconds, 0.1), 3)


# --- health, metrics, log -------------------------------------------------------------------------


def _health(url: str, felixes_running: int) -> dict[str, Any]:
    result: dict[str, Any] = {
        "reachable": False, "ready": False, "status": None, "reporters": [], "error": None
    }  # fmt: skip
    try:
        answer = http.get(url, _TIMEOUT)
    except http.Unreachable as error:
        result["error"] = f"{error}{_why_refused(felixes_running) if error.refused else ''}"
        return result
    found = health.reporters(answer.body)
    result.update(reachable=True, status=answer.status)
    if answer.status not in (200, 204, 503) or (found is None and answer.body.strip()):
        start = answer.body[:100].strip()
        result["error"] = (
            f"GET {url}: HTTP {answer.status}, but the answer is not Felix's health: {start!r}"
        )
        return result
    result.update(
        ready=answer.status != 503, reporters=[asdict(reporter) for reporter in found or ()]
    )
    return result


def _why_refused(felixes_running: int) -> str:
    if felixes_running:
        return (
            "; Felix runs: it is still starting, or healthEnabled is false, or it listens "
            "elsewhere (healthHost, healthPort)"
        )
    return "; no Felix runs on this node"


def _metrics(url: str) -> dict[str, Any]:
    try:
        answer = http.get(url, _TIMEOUT)
        if answer.status != 200:
            raise DataplaneError(f"GET {url}: HTTP {answer.status} {answer.reason}")
        return {"metrics": asdict(metrics.read(answer.body)), "metrics_error": None}
    except http.Unreachable as error:
        hint = "; prometheusMetricsEnabled is false by default" if error.refused else ""
        return {"metrics": None, "metrics_error": f"{error}{hint}"}
    except DataplaneError as error:
        return {"metrics": None, "metrics_error": str(error)}


def _log(globs: Sequence[str], pod_uid: str | None) -> dict[str, Any]:
    try:
        files = logfiles.find(globs, pod_uid)
        if not files:
            return {"log": None, "log_error": f"no file matches {', '.join(globs)}"}
        return {
            "log": {"files": files, **asdict(log.read(logfiles.read(files)))},
            "log_error": None,
        }
    except DataplaneError as error:
        return {"log": None, "log_error": str(error)}
