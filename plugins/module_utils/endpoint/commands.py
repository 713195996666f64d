# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of the modules: from their parameters to their results."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from glob import escape
from typing import Any

from ..calico.workload import interface_of
from ..errors import DataplaneError, KernelError, Refusal
from ..kernel import namespace, privilege
from ..kernel.dataplane import Mode
from ..kernel.netlink import TcSocket
from ..kernel.programs import Program, opened
from ..kernel.snapshot import Reader
from ..model import Action, Attachment, AttachType, Endpoint, Hook, ModuleResult, Policy
from . import argspec, serialize
from .attach import (
    Change,
    ProgramAttacher,
    after_change,
    find_again,
    open_endpoint,
    refuse_shared_block,
)
from .attach_tc import TcAttacher
from .attach_tcx import TcxAttacher
from .audit import Audit, AuditMode, AuditOptions, audit, vanished
from .watchdog import Watchdog

Params = Mapping[str, Any]
Attachers = Mapping[AttachType, ProgramAttacher]


@contextmanager
def _node(netns: str | None, jump_targets: bool = True) -> Iterator[tuple[TcSocket, Reader]]:
    with namespace.entered(netns):
        with _before_any_write():
            tc = TcSocket()
        with tc:
            yield tc, Reader(tc, jump_targets=jump_targets)


@contextmanager
def _before_any_write() -> Iterator[None]:
    """:raises DataplaneError: a system call failed; the text says that nothing was changed."""
    try:
        yield
    except KernelError as error:
        advice = f"{error.advice}, and run" if error.advice else "Run"
        raise DataplaneError(f"{error}. Nothing was changed. {advice} the task again") from error


def _attachers(tc: TcSocket, endpoint: Endpoint) -> Attachers:
    return {AttachType.TC: TcAttacher(tc, endpoint), AttachType.TCX: TcxAttacher(endpoint)}


def _watched_audit(order: AuditOptions, tc: TcSocket, reader: Reader) -> Audit:
    """After the first write, errors are part of the audit."""
    with _before_any_write():
        if order.mode is not AuditMode.REPAIR:
            return audit(order, tc, reader)
        with Watchdog(tc, reader) as watchdog:
            return audit(order, tc, reader, watchdog.sleep, watchdog)


def _check(params: Params) -> None:
    wrong = argspec.out_of_range(params)
    if wrong:
        raise Refusal(f"{wrong}; nothing was changed")


def _warnings(unread: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(
        f"could not read {what} ({why}); the verdicts ignore them" for what, why in unread.items()
    )


# --- qdisc_consistency ----------------------------------------------------------------------------


def qdisc_consistency(params: Params, check_mode: bool, with_diff: bool) -> ModuleResult:
    """:raises DataplaneError: before anything is changed."""
    _check(params)
    writing = params["state"] == "consistent"
    order = AuditOptions(
        interfaces=tuple(params["interfaces"]),
        exclude=tuple(params["exclude"]),
        policy=argspec.policy(params),
        mode=_mode(writing, check_mode),
        settle=params["settle"],
        retries=params["retries"],
    )
    if writing:
        privilege.require_for_writing("state=consistent")
    start = time.monotonic()
    with _node(params["netns"], params["jump_targets"]) as (tc, reader):
        audited = _watched_audit(order, tc, reader)
    result = serialize.audit_to_dict(
        audited,
        verbose=params["verbose_endpoints"],
        with_diff=with_diff,
        most=_most_endpoints(params),
    )
    result["elapsed_ms"] = round((time.monotonic() - start) * 1000, 1)
    result["not_judged_error"] = _not_judged_error(audited, params["allow_no_calico"])
    failure = str(audited.error) if audited.error else None
    if failure is None and params["fail_on_drift"]:
        failure = _drift_remains(result) or result["not_judged_error"]
    warnings = _warnings(audited.unread)
    if audited.dataplane.mode is not Mode.EBPF:
        warnings += (f"no endpoint was judged: {audited.dataplane.why}",)
    if not audited.outcomes:
        warnings += (f"no interface matches {', '.join(order.interfaces)}",)
    return ModuleResult(result, failure, warnings)


def _most_endpoints(params: Params) -> int | None:
    """How many endpoints are listed; None for all."""
    most = params["max_endpoints"]
    if most is None:
        return None if params["verbose_endpoints"] else serialize.MOST_LISTED
    return int(most) or None


def _mode(writing: bool, check_mode: bool) -> AuditMode:
    if not writing:
        return AuditMode.AUDIT
    return AuditMode.PREDICT if check_mode else AuditMode.REPAIR


def _drift_remains(result: Mapping[str, Any]) -> str | None:
    left = sum(result["summary"]["verdicts"][verdict.value] for verdict in serialize.DRIFT_REMAINS)
    if not left:
        return None
    remaining = [e for e in result["endpoints"] if e["verdict"] in serialize.DRIFT_REMAINS]
    drifted = "; ".join(
        f"{e['interface']}: {', '.join(f['code'] for f in e['remaining'])}" for e in remaining[:5]
    )
    more = f" and {left - 5} more" if left > 5 else ""
    return (
        f"{left} of {result['summary']['endpoints']} endpoints are not consistent: "
        f"{drifted}{more}. The message of each finding in `endpoints` says what to do"
    )


def _not_judged_error(audited: Audit, allow_no_calico: bool) -> str | None:
    """Why the audit does not show the health of the node; None if it does, or need not."""
    absent = audited.dataplane.mode is Mode.ABSENT
    if not audited.not_judged or (allow_no_calico and absent and not audited.unread):
        return None
    hint = (
        ". For hosts without Calico, set calico_bpf_allow_no_calico (playbooks), "
        "qdisc_parity_allow_no_calico (role) or allow_no_calico (module)"
    )
    return (
        f"the endpoints were not all judged: {'; '.join(audited.not_judged)}. That does not mean "
        f"that they are healthy{hint if absent else ''}"
    )


# --- bpf_endpoint ---------------------------------------------------------------------------------


def _interface(params: Params) -> str:
    """The interface of the options ``interface``, or ``namespace`` and ``pod``."""
    if params["interface"]:
        return str(params["interface"])
    return interface_of(params["namespace"], params["pod"], params["interface_prefix"])


def bpf_endpoint(params: Params, check_mode: bool, with_diff: bool) -> ModuleResult:
    """:raises DataplaneError: the text says what was changed before the error."""
    hooks = {h: params[h.value] for h in Hook if params[h.value]}
    for options in (params, *hooks.values()):
        _check(options)
    policy = argspec.policy(params)
    privilege.require_for_writing(f"state={params['state']}")
    interface = _interface(params)
    with _node(params["netns"]) as (tc, reader):
        with _before_any_write():
            before = open_endpoint(reader, interface)
        if params["state"] == "consistent":
            return _endpoint_consistent(params, policy, check_mode, with_diff, before, tc, reader)
        attachers = _attachers(tc, before)
        if params["state"] == "attached":
            after = _attach(reader, attachers, before, hooks, check_mode)
        else:
            after = _detach(reader, attachers, before, check_mode)
        changed = after is not before
        if changed and not check_mode:
            after = _changed_endpoint(reader, before)
    return ModuleResult(_endpoint_result(changed, before, after, with_diff))


def _endpoint_consistent(
    params: Params,
    policy: Policy,
    check_mode: bool,
    with_diff: bool,
    before: Endpoint,
    tc: TcSocket,
    reader: Reader,
) -> ModuleResult:
    order = AuditOptions(
        interfaces=(escape(before.interface),),
        policy=policy,
        mode=_mode(True, check_mode),
        settle=params["settle"],
        retries=params["retries"],
        managed=True,
    )
    audited = _watched_audit(order, tc, reader)
    outcome = audited.outcomes[0] if audited.outcomes else vanished(before.interface)
    result = _endpoint_result(bool(outcome.done), outcome.before, outcome.after, with_diff)
    shown = serialize.outcome(outcome)
    result.update({key: shown[key] for key in _SHOWN if key in shown})
    failure = str(audited.error) if audited.error else None
    return ModuleResult(result, failure, _warnings(audited.unread))


#: The keys of an endpoint's audit that are returned besides before and after.
_SHOWN = (
    "verdict", "outlook", "outlook_by_behaviour", "felix_message",
    "findings", "remaining", "plan", "done", "notes", "error",
)  # fmt: skip


def _attach(
    reader: Reader,
    attachers: Attachers,
    before: Endpoint,
    hooks: Mapping[Hook, Params],
    check_mode: bool,
) -> Endpoint:
    """Both hooks are planned before either is written, so that a refusal changes neither."""
    with _opened(hooks) as programs:
        places = [argspec.place(options, hook) for hook, options in hooks.items()]
        changes = [
            (place.hook, attachers[place.attach_type].present(place, programs[place.hook]))
            for place in places
        ]
        return _apply(reader, before, changes, check_mode)


def _detach(reader: Reader, attachers: Attachers, before: Endpoint, check_mode: bool) -> Endpoint:
    gone = [(hook, a) for hook in Hook for a in before.at(hook) if a.calico]
    for hook, a in gone:
        refuse_shared_block(before, Action.DELETE, hook, a)
    changes = [
        (hook, Change(a, None, partial(attachers[a.attach_type].remove, hook, a)))
        for hook, a in gone
    ]
    return _apply(reader, before, changes, check_mode)


def _apply(
    reader: Reader, before: Endpoint, changes: list[tuple[Hook, Change]], check_mode: bool
) -> Endpoint:
    """Make the changes in order. Returns ``before`` itself if there are none.

    :raises DataplaneError: the kernel refuses a change; the text says what was changed before.
    """
    after = before
    for hook, change in changes:
        if change.apply is None:
            continue
        try:
            if not check_mode:
                change.apply()
        except KernelError as error:
            raise _failed_change(reader, before, after, hook, error) from error
        after = after_change(after, hook, change)
    return after


def _failed_change(
    reader: Reader, before: Endpoint, after: Endpoint, hook: Hook, error: KernelError
) -> DataplaneError:
    """:param after: the endpoint after the changes before the one that failed."""
    done = set(serialize.lines(before)) ^ set(serialize.lines(after))
    changed = after is not before
    try:
        now = open_endpoint(reader, before.interface)
    except DataplaneError as unread:
        state = f"Whether this hook was changed is unknown ({unread})"
        changed |= error.unanswered
        facts = {}
    else:
        facts = {"after": serialize.endpoint(now)}
        state = "This hook is unchanged"
        if now.at(hook) != after.at(hook):
            changed = True
            state = f"This hook now holds {'; '.join(map(str, now.at(hook))) or 'nothing'}"
        if now.qdisc is not before.qdisc:
            changed = True
            state += ". A clsact qdisc was made, and is left behind"
    advice = f". {error.advice}" if error.advice else ""
    return DataplaneError(
        f"{error.at(f'{before.interface} {hook.value}')}. {state}. Changed before: "
        f"{'; '.join(sorted(done)) or 'nothing'}{advice}",
        {"changed": changed, "before": serialize.endpoint(before), **facts},
    )


def _changed_endpoint(reader: Reader, before: Endpoint) -> Endpoint:
    """The endpoint after all changes.

    :raises DataplaneError: it cannot be read; with ``changed``.
    """
    try:
        return open_endpoint(reader, before.interface)
    except DataplaneError as error:
        raise DataplaneError(
            f"{before.interface} was changed as asked, and could not be read afterwards: {error}",
            {"changed": True, "before": serialize.endpoint(before)},
        ) from error


@contextmanager
def _opened(hooks: Mapping[Hook, Params]) -> Iterator[dict[Hook, Program]]:
    with ExitStack() as stack:
        yield {
            hook: stack.enter_context(opened(argspec.program_spec(options)))
            for hook, options in hooks.items()
        }


def _endpoint_result(
    changed: bool, before: Endpoint, after: Endpoint | None, with_diff: bool
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "changed": changed,
        "interface": before.interface,
        "before": serialize.endpoint(before),
        "after": serialize.endpoint(after) if after else None,
    }
    if with_diff and changed:
        result["diff"] = serialize.diff([(before, after)])
    return result


# --- bpf_tc_program -------------------------------------------------------------------------------


def bpf_tc_program(params: Params, check_mode: bool, with_diff: bool) -> ModuleResult:
    """:raises DataplaneError: the text says what was changed before the error."""
    _check(params)
    privilege.require_for_writing("bpf_tc_program")
    hook = Hook(params["hook"])
    place = argspec.place(params, hook)
    with _node(params["netns"]) as (tc, reader):
        with _before_any_write():
            endpoint = open_endpoint(reader, params["interface"])
        attacher = _attachers(tc, endpoint)[place.attach_type]
        if params["state"] == "absent":
            change = attacher.absent(place)
            _apply(reader, endpoint, [(hook, change)], check_mode)
        else:
            with opened(argspec.program_spec(params)) as program:
                change = attacher.present(place, program)
                _apply(reader, endpoint, [(hook, change)], check_mode)
        if change.apply and change.after and not check_mode:
            now = find_again(_changed_endpoint(reader, endpoint), hook, change.after)
            change = replace(change, after=now)
    return ModuleResult(_program_result(endpoint, hook, change, with_diff))


def _program_result(
    endpoint: Endpoint, hook: Hook, change: Change, with_diff: bool
) -> dict[str, Any]:
    def shown(a: Attachment | None) -> dict[str, Any] | None:
        return serialize.attachment(a) if a else None

    result: dict[str, Any] = {
        "changed": change.apply is not None,
        "interface": endpoint.interface,
        "hook": hook.value,
        "attachment": {"before": shown(change.before), "after": shown(change.after)},
    }
    if with_diff and change.apply is not None:
        result["diff"] = serialize.diff([(endpoint, after_change(endpoint, hook, change))])
    return result
