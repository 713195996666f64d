# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Emptying a node: evictions that respect the budgets, and waiting until the pods are gone.

A node is cordoned when its drain begins: when its first pod may go. Cordoned earlier, the nodes of
a batch would take the room that the pods of the first of them need to start elsewhere, and no
budget would let another pod go.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import ApiError, DataplaneError, Refusal
from .api import BudgetExhausted, Object
from .cordon import cordon, uncordon
from .drain_filters import Choice, Leave, choose
from .pdb import obstacles
from .pods import Pod, is_ready, name_of, path_of, terminating_since, uid_of
from .read_pdb import read_budgets
from .session import Session

#: Seconds before a refused eviction is asked for again, as kubectl has it.
_RETRY = 5.0
#: How many pods a line of progress names.
_NAMED = 3


@dataclass(frozen=True)
class Order:
    """What is asked for; times in seconds."""

    node: str
    timeout: float
    poll: float = 1.0
    #: None is each pod's own.
    grace_period: int | None = None
    leave: Leave = field(default_factory=Leave)
    #: Delete the pods, whatever their budgets say.
    disable_eviction: bool = False
    #: The run that cordons the node before the first eviction; None leaves that to the caller.
    cordoned_by: str | None = None


@dataclass
class _Leaving:
    """A pod on its way out; ``why`` it is still there."""

    pod: Pod
    why: str
    asked: bool = False
    next_at: float = 0.0


class Drain:
    """Empties one node."""

    def __init__(self, session: Session, order: Order) -> None:
        self._session = session
        self._kube = session.kube
        self._hasty = session.kube.asking_once()  # one pod's refusal must not hold up the others
        self._order = order
        self._clock = session.clock
        self._progress = session.progress()
        self._cordoned = False
        #: Whether evictions may be asked for: the node is cordoned, or that is the caller's part.
        self._begun = order.cordoned_by is None
        self._choice = Choice()
        self._left: list[_Leaving] = []
        self._evicted: list[str] = []

    def predict(self) -> Object:
        """What ``run`` would do now, as its result, with the ``budgets`` that stand in the way."""
        choice = self._choice = self._choose()
        if self._order.cordoned_by is not None:
            self._cordoned = cordon(self._session, self._order.node, self._order.cordoned_by, True)
        named = [name_of(pod) for pod in choice.evict]
        asked = (
            ()
            if self._order.disable_eviction
            else obstacles(read_budgets(self._kube), choice.evict)
        )
        text = f"would evict {_pods(len(named))} from {self._order.node}"
        blocked = "".join(f"; {each.text}" for each in asked)
        return {
            **self._result(),
            "changed": bool(named) or self._cordoned,
            "evicted": named,
            "budgets": [asdict(each) for each in asked],
            "msg": text + blocked,
        }

    def run(self) -> Object:
        """Empty the node; the result of the action.

        :raises Refusal: there is no such node, or pods on it that only the caller may let go.
        :raises DataplaneError: some are there at the end of the time, with why.
        """
        self._collect()
        try:
            self._empty(self._clock.now() + self._order.timeout)
        except DataplaneError as error:
            with suppress(DataplaneError):  # the Lease was lost, or the API fails
                self._uncordon_if_nothing_went()
            error.facts = {**self._result(), **error.facts}
            raise
        told = f"{self._order.node} is drained: {_pods(len(self._evicted))} evicted"
        return {**self._result(), "msg": f"{told} in {self._progress.seconds:.0f} s"}

    # --- steps ----------------------------------------------------------------------------------

    def _empty(self, until: float) -> None:
        while True:
            if self._may_begin():
                self._begin()
            for each in self._left if self._begun else ():
                self._session.renew_lease()
                self._ask(each)
            self._left = self._still_there()
            if self._begun and not self._left:
                return
            if any(not each.asked for each in self._left):  # another drain used the budgets up
                self._uncordon_if_nothing_went()
            if self._clock.now() >= until:
                raise self._failure()
            self._progress.show(self._waiting())
            self._clock.sleep(max(0.0, min(self._order.poll, until - self._clock.now())))

    def _may_begin(self) -> bool:
        """Whether a pod may go now, or none needs leave to go."""
        if self._begun or self._order.disable_eviction:
            return not self._begun
        self._session.renew_lease()
        asking = [each for each in self._left if not each.asked]
        return not asking or any(self._ask(each, dry_run=True) for each in asking)

    def _begin(self) -> None:
        """Cordon the node; its pods are chosen again, with what was scheduled before that."""
        self._session.renew_lease()
        self._cordoned = cordon(self._session, self._order.node, self._order.cordoned_by or "")
        self._begun = True
        self._collect()

    def _uncordon_if_nothing_went(self) -> None:
        """The drain has not begun then, and the node keeps its room for pods of other nodes."""
        if self._cordoned and not self._evicted:
            self._session.renew_lease()
            uncordon(self._session, self._order.node)
            self._cordoned = self._begun = False

    def _collect(self) -> None:
        self._choice = self._choose()
        self._left = [_Leaving(pod, _ending(pod)) for pod in self._choice.evict]
        for each in self._left:
            each.asked = terminating_since(each.pod) is not None

    def _choose(self) -> Choice:
        node = self._order.node
        if self._node() is None:
            raise Refusal(f"there is no node {node} in the cluster; nothing was evicted")
        choice = choose(self._pods(), self._order.leave)
        if choice.refuse:
            listed = "".join(f"\n  {pod}: {why}" for pod, why in choice.refuse.items())
            raise Refusal(
                f"{node} is not drained, nothing was evicted: {_pods(len(choice.refuse))} here need"
                f" a decision of yours (the option named behind each):{listed}",
                {"remaining": _listed(choice.refuse)},
            )
        return choice

    def _node(self) -> Object | None:
        return self._kube.find(f"/api/v1/nodes/{self._order.node}")

    def _pods(self) -> list[Object]:
        where = f"spec.nodeName={self._order.node}"
        return self._kube.items("/api/v1/pods", fieldSelector=where)

    def _ask(self, each: _Leaving, dry_run: bool = False) -> bool:
        """Evict it, if that is due; whether it goes. What refuses it is asked again later."""
        if each.asked or self._clock.now() < each.next_at:
            return False
        try:
            self._evict(each.pod, dry_run)
        except BudgetExhausted as error:
            self._postpone(each, f"refused by a budget: {error.message}")
            return False
        except ApiError as error:
            if dry_run and error.status == 400:  # a webhook that does not support it
                return True
            if error.status in (404, 409):  # gone, or another pod of the same name is there
                each.why = "was gone before it was evicted"
                return True
            if 400 <= error.status < 500 and error.status != 429:
                raise  # not allowed, or not understood: the next pod would fare no better
            self._postpone(each, f"not evicted: {error}")
            return False
        if not dry_run:
            self._evicted.append(name_of(each.pod))
            each.asked, each.why = True, "evicted, still terminating"
        return True

    def _evict(self, pod: Pod, dry_run: bool) -> None:
        options: Object = {"preconditions": {"uid": uid_of(pod)}}
        if self._order.grace_period is not None:
            options["gracePeriodSeconds"] = self._order.grace_period
        if self._order.disable_eviction:
            self._hasty.delete(path_of(pod), options)
            return
        # Without apiVersion and kind it is understood by servers of either policy version.
        names = {key: pod["metadata"][key] for key in ("name", "namespace")}
        body = {"metadata": names, "deleteOptions": options}
        self._hasty.create(f"{path_of(pod)}/eviction", body, dry_run=dry_run)

    def _postpone(self, each: _Leaving, why: str) -> None:
        each.next_at = self._clock.now() + _RETRY
        if each.why != why:
            self._session.log(f"{name_of(each.pod)}: {why}; asked again every {_RETRY:.0f} s")
        each.why = why

    def _still_there(self) -> list[_Leaving]:
        there = {uid_of(pod): pod for pod in self._pods()}
        remaining = []
        for each in self._left:
            pod = there.get(uid_of(each.pod))
            if pod is None:
                continue
            if terminating_since(pod) is not None:
                each.asked, each.why = True, _ending(pod)
            remaining.append(each)
        return remaining

    # --- telling --------------------------------------------------------------------------------

    def _waiting(self) -> str:
        names = [name_of(each.pod) for each in self._left]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        refused = sum(not each.asked for each in self._left)
        held = f", {refused} of them refused so far" if refused else ""
        held += "" if self._begun else "; not cordoned until one may go"
        text = f"{self._order.node}{self._state_of_node()}: waiting for {_pods(len(names))} to go: "
        return f"{text}{', '.join(names[:_NAMED])}{more}{held}"

    def _result(self) -> dict[str, Any]:
        return {
            "changed": bool(self._evicted) or self._cordoned,
            "cordoned": self._cordoned,
            "evicted": self._evicted,
            # "skipped" would tell Ansible that the task was.
            "kept": _listed(self._choice.skip),
            "remaining": _listed({name_of(each.pod): each.why for each in self._left}),
            "waited_seconds": round(self._progress.seconds, 1),
        }

    def _failure(self) -> DataplaneError:
        listed = "".join(f"\n  {name_of(each.pod)}: {each.why}" for each in self._left)
        began = self._evicted or self._order.cordoned_by is None
        state = (
            "The node is left as it is."
            if began
            else "Nothing was evicted, so this run does not keep the node cordoned."
        )
        return DataplaneError(
            f"{self._order.node} is not empty after {self._order.timeout:.0f} s"
            f"{self._state_of_node()}; evicted: {_pods(len(self._evicted))}; still there:"
            f"{listed}\n{state} Mend what holds them, or give more time, and run this again: it"
            " goes on with what is left."
        )

    def _state_of_node(self) -> str:
        """What is wrong with the node itself, which its pods can't leave then."""
        node = self._node()
        if node is None:
            return " (the node itself is gone from the API)"
        if not is_ready(node):
            return " (the node is NotReady: its kubelet can't end the pods)"
        return ""


def _pods(count: int) -> str:
    return "1 pod" if count == 1 else f"{count} pods"


def _ending(pod: Pod) -> str:
    since = terminating_since(pod)
    if since is None:
        return "not evicted yet"
    finalizers = ", ".join(pod["metadata"].get("finalizers") or ())
    held = f", held by the finalizer {finalizers}" if finalizers else ""
    return f"still terminating, its grace period ends or ended at {since}{held}"


def _listed(reasons: dict[str, str]) -> list[dict[str, str]]:
    return [{"pod": pod, "why": why} for pod, why in reasons.items()]
