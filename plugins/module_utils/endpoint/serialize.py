# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The values that the modules return: the model as plain lists and dicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from ..model import (
    Attachment,
    AttachType,
    Behaviour,
    Endpoint,
    Finding,
    Hook,
    Outlook,
    Step,
    Verdict,
)
from .audit import Audit
from .outlook import predict
from .repair import Outcome

#: Verdicts of endpoints that are not consistent at the end.
DRIFT_REMAINS = (Verdict.DRIFTED, Verdict.CONTENDED)
_QUIET = (Verdict.CONSISTENT, Verdict.UNMANAGED)
#: How many endpoints a result lists, unless the task says otherwise, and how many names it has.
MOST_LISTED = 20
Result = dict[str, Any]


def attachment(a: Attachment) -> Result:
    shown: Result = {
        "attach_type": a.attach_type.value,
        "priority": a.priority,
        "handle": a.handle,
        "program_id": a.program_id,
        "name": a.name,
        "tag": a.tag,
        "direct_action": a.direct_action,
        "calico": a.calico,
    }
    if a.attach_type is AttachType.TCX:
        shown["link_id"] = a.link_id
    else:
        shown.update(kind=a.kind, protocol=a.protocol, chain=a.chain)
    return shown


def endpoint(e: Endpoint) -> Result:
    return {
        "interface": e.interface,
        "ifindex": e.ifindex,
        "qdisc": e.qdisc.value,
        "ingress": [attachment(a) for a in e.ingress],
        "egress": [attachment(a) for a in e.egress],
    }


def finding(f: Finding) -> Result:
    return {
        "code": f.code.value,
        "hook": f.hook.value if f.hook else None,
        "message": f.message,
        "severity": f.severity.value,
        "repairable": f.repairable,
    }


def step(s: Step) -> Result:
    shown: Result = {"action": s.action.value, "hook": s.hook.value}
    if s.filter is None:
        shown["path"] = s.path
    else:
        f = s.filter
        shown.update(
            priority=f.priority,
            handle=f.handle,
            chain=f.chain,
            program_id=f.program_id,
            name=f.name,
        )
    return shown


def outcome(o: Outcome) -> Result:
    """One endpoint: its findings, its plan, the steps done, and its present state."""
    now, judged = o.after or o.before, o.left or o.found
    shown = endpoint(now)
    shown.update(
        verdict=o.verdict.value,
        outlook=judged.outlook.value,
        outlook_by_behaviour={
            behaviour.value: predict(now, behaviour)[0].value for behaviour in Behaviour
        },
        findings=[finding(f) for f in o.found.findings],
        remaining=[finding(f) for f in judged.findings],
        plan=[step(s) for s in o.found.plan],
        done=[step(s) for s in o.done],
        notes=list(o.notes),
    )
    if o.error:
        shown["error"] = o.error
    if judged.felix_message:
        shown["felix_message"] = judged.felix_message
    return shown


def audit_to_dict(s: Audit, *, verbose: bool, with_diff: bool, most: int | None = None) -> Result:
    """The result of qdisc_consistency; a consistent endpoint is listed only if ``verbose``.

    At most ``most`` endpoints are listed, those that need most attention; None lists all.
    """
    changed = [o for o in s.outcomes if o.done]
    wanted = [o for o in s.outcomes if verbose or o.verdict not in _QUIET or o.done or o.error]
    listed = sorted(wanted, key=_urgency)[:most]
    result: Result = {
        "changed": bool(changed),
        "endpoints": [outcome(o) for o in sorted(listed, key=lambda o: o.before.interface)],
        "summary": {**_bounded_summary(s), "not_listed": len(wanted) - len(listed)},
        "dataplane": {"mode": s.dataplane.mode.value, "why": s.dataplane.why},
        "not_judged": list(s.not_judged),
        "unread": s.unread,
    }
    if with_diff and changed:
        result["diff"] = diff((o.before, o.after) for o in changed)
    return result


def _urgency(o: Outcome) -> tuple[int, int, str]:
    """By this order, what needs attention most comes first."""
    remains = o.verdict in DRIFT_REMAINS
    first = (bool(o.error), remains, o.verdict is Verdict.VANISHED, bool(o.done))
    return first.index(True) if any(first) else len(first), -_severity(o), o.before.interface


def _severity(o: Outcome) -> int:
    return (o.left or o.found).outlook.severity


def _bounded_summary(s: Audit) -> Result:
    """Counts of all endpoints, whether they are listed or not."""
    whole = summary(s.outcomes)
    left = Counter((o.left or o.found).outlook for o in s.outcomes if o.verdict in DRIFT_REMAINS)
    return {
        **whole,
        "failed": whole["failed"][:MOST_LISTED],
        "failed_total": len(whole["failed"]),
        "left_by_outlook": {outlook.value: left[outlook] for outlook in Outlook},
        "not_judged": len(s.not_judged),
    }


def summary(outcomes: Iterable[Outcome]) -> Result:
    """How many endpoints, of each verdict, and findings of each code; and whose repair failed."""
    outcomes = tuple(outcomes)
    verdicts = Counter(o.verdict for o in outcomes)
    codes = Counter(f.code.value for o in outcomes for f in o.found.findings)
    return {
        "endpoints": len(outcomes),
        "verdicts": {v.value: verdicts[v] for v in Verdict},
        "findings": dict(sorted(codes.items())),
        "failed": sorted(o.before.interface for o in outcomes if o.error),
    }


def lines(e: Endpoint) -> list[str]:
    """An endpoint as lines of a diff."""
    shown = [f"{e.interface} {h.value}: {a}" for h in Hook for a in e.at(h)]
    shown += [f"{e.interface} {p.hook.value}: dead pin {p.path}" for p in e.dead_pins]
    return shown


def diff(pairs: Iterable[tuple[Endpoint | None, Endpoint | None]]) -> dict[str, str]:
    """Before and after as text; a missing endpoint has no lines."""
    before: list[str] = []
    after: list[str] = []
    for old, new in pairs:
        before += lines(old) if old else []
        after += lines(new) if new else []
    return {"before": "".join(f"{x}\n" for x in before), "after": "".join(f"{x}\n" for x in after)}
