# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drains a node: evicts its pods as their budgets allow, and waits until they are gone.

A node is cordoned when the first eviction is possible. If all nodes of a batch were cordoned
earlier, evicted pods would find no node to start on, and no budget would allow another eviction.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import ApiError, DataplaneError, Refusal
from .api import BudgetExhausted, Object
from .cordon import cordon, uncordon
from .drain_filters import Choice, RemovalOptions, choose
from .pdb import obstacles
from .pods import Pod, is_ready, name_of, path_of, terminating_since, uid_of
from .read_pdb import read_budgets
from .session import Session

#: Seconds before a refused eviction is retried, as in kubectl.
_RETRY = 5.0
#: How many pods a line of progress names.
_NAMED = 3


@dataclass(frozen=True)
class DrainSpec:
    """How to drain a node; times in seconds."""

    node: str
    timeout: float
    poll: float = 1.0
    #: None: the grace period of each pod.
    grace_period: int | None = None
    removal: RemovalOptions = field(default_factory=RemovalOptions)
    #: Delete the pods, which bypasses their budgets.
    disable_eviction: bool = False
    #: The run that cordons the node before the first eviction. None: the caller cordons the node.
    cordoned_by: str | None = None


@dataclass
class _RemainingPod:
    """A pod that is not gone yet, and ``why``."""

    pod: Pod
    why: str
    terminating: bool = False
    retry_at: float = 0.0


class Drain:
    """Drains one node."""

    def __init__(self, session: Session, spec: DrainSpec) -> None:
        self._session = session
        self._kube = session.kube
        # A pod whose eviction is refused must not delay the others.
        self._kube_without_retries = session.kube.without_retries()
        self._spec = spec
        self._clock = session.clock
        self._progress = session.progress()
        self._cordoned = False
        #: Whether pods are evicted: the node is cordoned, or the caller is responsible for that.
        self._evicting = spec.cordoned_by is None
        self._choice = Choice()
        self._remaining: list[_RemainingPod] = []
        self._evicted: list[str] = []

    def predict(self) -> Object:
        """The result that ``run`` would return now, with the ``budgets`` that block evictions."""
        choice = self._choice = self._choose()
        if self._spec.cordoned_by is not None:
            self._cordoned = cordon(self._session, self._spec.node, self._spec.cordoned_by, True)
        named = [name_of(pod) for pod in choice.evict]
        blocking = (
            () if self._spec.disable_eviction else obstacles(read_budgets(self._kube), choice.evict)
        )
        text = f"would evict {_pods(len(named))} from {self._spec.node}"
        blocked = "".join(f"; {each.text}" for each in blocking)
        return {
            **self._result(),
            "changed": bool(named) or self._cordoned,
            "evicted": named,
            "budgets": [asdict(each) for each in blocking],
            "msg": text + blocked,
        }

    def run(self) -> Object:
        """Drain the node; the result of the action.

        :raises Refusal: the node does not exist, or a pod needs an option before it is evicted.
        :raises DataplaneError: pods are left at the end of the timeout; the message says why.
        """
        self._collect()
        try:
            self._empty(self._clock.now() + self._spec.timeout)
        except DataplaneError as error:
            with suppress(DataplaneError):  # the Lease was lost, or the API fails
                self._uncordon_if_nothing_evicted()
            error.facts = {**self._result(), **error.facts}
            raise
        text = f"{self._spec.node} is drained: {_pods(len(self._evicted))} evicted"
        return {**self._result(), "msg": f"{text} in {self._progress.seconds:.0f} s"}

    # --- steps ----------------------------------------------------------------------------------

    def _empty(self, until: float) -> None:
        while True:
            if self._can_start():
                self._start()
            for each in self._remaining if self._evicting else ():
                self._session.renew_lease()
                self._try_evict(each)
            self._remaining = self._read_remaining()
            if self._evicting and not self._remaining:
                return
            if any(
                not each.terminating for each in self._remaining
            ):  # another drain used up the budgets
                self._uncordon_if_nothing_evicted()
            if self._clock.now() >= until:
                raise self._failure()
            self._progress.show(self._waiting())
            self._clock.sleep(max(0.0, min(self._spec.poll, until - self._clock.now())))

    def _can_start(self) -> bool:
        """Whether a pod can be evicted now, or no pod needs the permission of a budget."""
        if self._evicting or self._spec.disable_eviction:
            return not self._evicting
        self._session.renew_lease()
        waiting = [each for each in self._remaining if not each.terminating]
        return not waiting or any(self._try_evict(each, dry_run=True) for each in waiting)

    def _start(self) -> None:
        """Cordon the node, and read its pods again: some may have been scheduled before that."""
        self._session.renew_lease()
        self._cordoned = cordon(self._session, self._spec.node, self._spec.cordoned_by or "")
        self._evicting = True
        self._collect()

    def _uncordon_if_nothing_evicted(self) -> None:
        """Until a pod is evicted, the node stays schedulable for the pods of other nodes."""
        if self._cordoned and not self._evicted:
            self._session.renew_lease()
            uncordon(self._session, self._spec.node)
            self._cordoned = self._evicting = False

    def _collect(self) -> None:
        self._choice = self._choose()
        self._remaining = [_RemainingPod(pod, _ending(pod)) for pod in self._choice.evict]
        for each in self._remaining:
            each.terminating = terminating_since(each.pod) is not None

    def _choose(self) -> Choice:
        node = self._spec.node
        if self._node() is None:
            raise Refusal(f"there is no node {node} in the cluster; nothing was evicted")
        choice = choose(self._pods(), self._spec.removal)
        if choice.refuse:
            listed = "".join(f"\n  {pod}: {why}" for pod, why in choice.refuse.items())
            raise Refusal(
                f"{node} is not drained, nothing was evicted: {_pods(len(choice.refuse))} cannot be"
                f" evicted without the option named after each:{listed}",
                {"remaining": _listed(choice.refuse)},
            )
        return choice

    def _node(self) -> Object | None:
        return self._kube.find(f"/api/v1/nodes/{self._spec.node}")

    def _pods(self) -> list[Object]:
        where = f"spec.nodeName={self._spec.node}"
        return self._kube.items("/api/v1/pods", fieldSelector=where)

    def _try_evict(self, each: _RemainingPod, dry_run: bool = False) -> bool:
        """Whether the pod was evicted. A refused eviction is retried after a pause."""
        if each.terminating or self._clock.now() < each.retry_at:
            return False
        try:
            self._evict(each.pod, dry_run)
        except BudgetExhausted as error:
            self._postpone(each, f"refused by a budget: {error.message}")
            return False
        except ApiError as error:
            if dry_run and error.status == 400:  # a webhook that does not support it
                return True
            if error.status in (404, 409):  # gone, or replaced by a pod of the same name
                each.why = "was gone before it was evicted"
                return True
            if 400 <= error.status < 500 and error.status != 429:
                raise  # forbidden or invalid: the next pod would get the same answer
            self._postpone(each, f"not evicted: {error}")
            return False
        if not dry_run:
            self._evicted.append(name_of(each.pod))
            each.terminating, each.why = True, "evicted, still terminating"
        return True

    def _evict(self, pod: Pod, dry_run: bool) -> None:
        options: Object = {"preconditions": {"uid": uid_of(pod)}}
        if self._spec.grace_period is not None:
            options["gracePeriodSeconds"] = self._spec.grace_period
        if self._spec.disable_eviction:
            self._kube_without_retries.delete(path_of(pod), options)
            return
        # Without apiVersion and kind, servers of either policy version accept it.
        names = {key: pod["metadata"][key] for key in ("name", "namespace")}
        body = {"metadata": names, "deleteOptions": options}
        self._kube_without_retries.create(f"{path_of(pod)}/eviction", body, dry_run=dry_run)

    def _postpone(self, each: _RemainingPod, why: str) -> None:
        each.retry_at = self._clock.now() + _RETRY
        if each.why != why:
            self._session.log(f"{name_of(each.pod)}: {why}; retried every {_RETRY:.0f} s")
        each.why = why

    def _read_remaining(self) -> list[_RemainingPod]:
        present = {uid_of(pod): pod for pod in self._pods()}
        remaining = []
        for each in self._remaining:
            pod = present.get(uid_of(each.pod))
            if pod is None:
                continue
            if terminating_since(pod) is not None:
                each.terminating, each.why = True, _ending(pod)
            remaining.append(each)
        return remaining

    # --- messages and the result ----------------------------------------------------------------

    def _waiting(self) -> str:
        names = [name_of(each.pod) for each in self._remaining]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        refused = sum(not each.terminating for each in self._remaining)
        state = f", {refused} of them refused so far" if refused else ""
        state += "" if self._evicting else "; the node is cordoned when a pod can be evicted"
        text = f"{self._spec.node}{self._state_of_node()}: waiting for {_pods(len(names))} to go: "
        return f"{text}{', '.join(names[:_NAMED])}{more}{state}"

    def _result(self) -> dict[str, Any]:
        return {
            "changed": bool(self._evicted) or self._cordoned,
            "cordoned": self._cordoned,
            "evicted": self._evicted,
            # The key "skipped" would mark the task itself as skipped.
            "kept": _listed(self._choice.skip),
            "remaining": _listed({name_of(each.pod): each.why for each in self._remaining}),
            "waited_seconds": round(self._progress.seconds, 1),
        }

    def _failure(self) -> DataplaneError:
        listed = "".join(f"\n  {name_of(each.pod)}: {each.why}" for each in self._remaining)
        started = self._evicted or self._spec.cordoned_by is None
        state = (
            "The node is left as it is."
            if started
            else "Nothing was evicted, so this run does not keep the node cordoned."
        )
        return DataplaneError(
            f"{self._spec.node} is not empty after {self._spec.timeout:.0f} s"
            f"{self._state_of_node()}; evicted: {_pods(len(self._evicted))}; still there:"
            f"{listed}\n{state} Fix what blocks these pods, or set a longer timeout, then rerun:"
            " the drain continues with the pods that are left."
        )

    def _state_of_node(self) -> str:
        """A problem of the node itself that keeps its pods from ending."""
        node = self._node()
        if node is None:
            return " (the node no longer exists in the API)"
        if not is_ready(node):
            return " (the node is NotReady: its kubelet cannot end the pods)"
        return ""


def _pods(count: int) -> str:
    return "1 pod" if count == 1 else f"{count} pods"


def _ending(pod: Pod) -> str:
    since = terminating_since(pod)
    if since is None:
        return "not evicted yet"
    finalizers = ", ".join(pod["metadata"].get("finalizers") or ())
    blocked = f", blocked by the finalizer {finalizers}" if finalizers else ""
    return f"still terminating, its grace period ends or ended at {since}{blocked}"


def _listed(reasons: dict[str, str]) -> list[dict[str, str]]:
    return [{"pod": pod, "why": why} for pod, why in reasons.items()]
