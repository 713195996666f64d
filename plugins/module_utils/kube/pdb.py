# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which PodDisruptionBudgets block the drain of a node. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .pods import Pod, is_finished, is_ready, name_of, phase_of, terminating_since


@dataclass(frozen=True)
class Budget:
    """One PodDisruptionBudget; ``fields`` are those that matter here, as the API returns them."""

    fields: Mapping[str, Any]
    #: An empty selector selects every pod in policy/v1, and none in policy/v1beta1.
    empty_selects_all: bool

    @property
    def name(self) -> str:
        return name_of(self.fields)

    def covers(self, pod: Pod) -> bool:
        if pod["metadata"]["namespace"] != self.fields["metadata"]["namespace"]:
            return False
        selector = self.fields["spec"].get("selector")
        if not selector:  # null never selects a pod
            return selector is not None and self.empty_selects_all
        return selects(selector, pod["metadata"].get("labels") or {})


#: Key, value and effect.
Taint = tuple[str, str, str]


@dataclass(frozen=True)
class Toleration:
    """An empty effect matches every effect; an empty key with ``exists`` matches every key."""

    key: str
    value: str
    effect: str
    exists: bool


@dataclass(frozen=True)
class Covered:
    """A pod that is evicted only if a budget allows it, with the fields that matter here."""

    #: namespace/name.
    name: str
    ready: bool
    budgets: tuple[Budget, ...]
    tolerations: tuple[Toleration, ...] = ()


class Budgets:
    """All budgets of a cluster, by namespace."""

    def __init__(self, budgets: Iterable[Budget]) -> None:
        self._by_namespace: dict[str, list[Budget]] = {}
        for budget in budgets:
            namespace = budget.fields["metadata"]["namespace"]
            self._by_namespace.setdefault(namespace, []).append(budget)

    def covering(self, pod: Pod) -> Covered | None:
        """None if no budget covers ``pod``, or if the pod needs no permission to be evicted."""
        here = self._by_namespace.get(pod["metadata"]["namespace"], ())
        over = tuple(budget for budget in here if budget.covers(pod))
        if not over or not _needs_permission(pod):
            return None
        return Covered(name_of(pod), is_ready(pod), over, _tolerations(pod))

    def covered(self, pods: Iterable[Pod]) -> list[Covered]:
        return [found for pod in pods if (found := self.covering(pod))]


@dataclass(frozen=True)
class Obstacle:
    """One or more budgets that do not allow these pods to be evicted now."""

    #: namespace/name; several are separated by commas.
    budget: str
    #: namespace/name of each pod of the node that is covered, sorted.
    pods: tuple[str, ...]
    #: Whether waiting does not help: the budget or the workload has to be changed.
    never: bool
    text: str


def obstacles(budgets: Sequence[Budget], pods: Iterable[Pod]) -> list[Obstacle]:
    """The budgets that block the eviction of a node's ``pods`` now, or always.

    ``pods`` are those to be evicted. Pods that are terminating or need no permission are ignored.
    """
    return obstacles_of(Budgets(budgets).covered(pods))


def obstacles_of(covered: Sequence[Covered]) -> list[Obstacle]:
    """``obstacles`` for the pods of a node that a budget covers."""
    found = []
    of_one: dict[str, list[Covered]] = {}
    for pod in covered:
        if len(pod.budgets) == 1:
            of_one.setdefault(pod.budgets[0].name, []).append(pod)
            continue
        over = ", ".join(sorted(budget.name for budget in pod.budgets))
        text = (
            f"{pod.name} is covered by {len(pod.budgets)} budgets, which the eviction API does not "
            "support: narrow their selectors until one is left"
        )
        found.append(Obstacle(over, (pod.name,), True, text))
    for pods in of_one.values():
        (budget,) = pods[0].budgets
        found += _of_one(budget, [pod for pod in pods if not _is_exempt(budget, pod)])
    return sorted(found, key=lambda found: (not found.never, found.budget, found.pods))


def never_met(covered: Sequence[Covered]) -> list[Obstacle]:
    """The obstacles that waiting does not remove."""
    return [obstacle for obstacle in obstacles_of(covered) if obstacle.never]


def not_judged(covered: Sequence[Covered]) -> list[str]:
    """The budgets over these pods of which the API does not say how many pods they allow."""
    budgets = {budget.name: budget for pod in covered for budget in pod.budgets}
    return sorted(
        name
        for name, budget in budgets.items()
        if not _is_strict(budget)
        and not (_is_current(budget) and "expectedPods" in _status(budget))
    )


def _status(budget: Budget) -> Mapping[str, Any]:
    return budget.fields.get("status") or {}


def _is_current(budget: Budget) -> bool:
    """Whether the status is of the present spec."""
    generation = budget.fields["metadata"].get("generation", 0)
    return bool(_status(budget).get("observedGeneration", 0) >= generation)


def _needs_permission(pod: Pod) -> bool:
    done = is_finished(pod) or phase_of(pod) == "Pending"
    return not done and terminating_since(pod) is None


def _tolerations(pod: Pod) -> tuple[Toleration, ...]:
    """The pod's tolerations, without those for the state of a node, which every pod has."""
    return tuple(
        Toleration(
            each.get("key") or "",
            each.get("value") or "",
            each.get("effect") or "",
            each.get("operator") == "Exists",
        )
        for each in pod["spec"].get("tolerations") or ()
        if not (each.get("key") or "").startswith("node.kubernetes.io/")
    )


def _is_exempt(budget: Budget, pod: Covered) -> bool:
    policy = budget.fields["spec"].get("unhealthyPodEvictionPolicy")
    return policy == "AlwaysAllow" and not pod.ready


def _of_one(budget: Budget, pods: Sequence[Covered]) -> list[Obstacle]:
    names = tuple(sorted(pod.name for pod in pods))
    if not names:
        return []
    rule, status, current = _rule(budget), _status(budget), _is_current(budget)
    expected, desired = status.get("expectedPods", 0), status.get("desiredHealthy", 0)
    if _is_strict(budget) or (current and expected and desired >= expected):
        text = f"{rule} of {expected} pods, so none of them may ever be evicted"
        advice = "relax the budget, scale the workload up, or move it off this node by hand"
        return [Obstacle(budget.name, names, True, f"{budget.name}: {text}: {advice}")]
    allowed = status.get("disruptionsAllowed", 0) if current else 0
    if allowed >= len(names):
        return []
    healthy = f"{status.get('currentHealthy', 0)} of {expected} pods are healthy"
    allowed_here = f"{allowed} of the {len(names)} here may be evicted now"
    text = f"{rule}; {healthy}, {desired} are required: {allowed_here}"
    return [Obstacle(budget.name, names, False, f"{budget.name}: {text}")]


def _rule(budget: Budget) -> str:
    spec = budget.fields["spec"]
    if spec.get("maxUnavailable") is not None:
        return f"maxUnavailable {spec['maxUnavailable']}"
    return f"minAvailable {spec.get('minAvailable', 1)}"


def _is_strict(budget: Budget) -> bool:
    """Whether the budget forbids every eviction, for any number of pods."""
    spec = budget.fields["spec"]
    return spec.get("maxUnavailable") in (0, "0", "0%") or spec.get("minAvailable") == "100%"


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector selects an object with these labels; an empty one selects all."""
    wanted = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or ()
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _holds(expression, labels) for expression in expressions
    )


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """:raises ValueError: the API does not have this operator."""
    key, operator, values = expression["key"], expression["operator"], expression.get("values")
    present = key in labels
    outcomes = {
        "In": present and labels.get(key) in (values or ()),
        "NotIn": not present or labels[key] not in (values or ()),
        "Exists": present,
        "DoesNotExist": not present,
    }
    if operator not in outcomes:
        raise ValueError(f"unknown operator in a label selector: {operator}")
    return outcomes[operator]
