# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which PodDisruptionBudgets stand in the way of emptying a node. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .pods import Pod, is_finished, is_ready, name_of, phase_of, terminating_since


@dataclass(frozen=True)
class Budget:
    """One PodDisruptionBudget; ``held`` is what is judged of it, as the API gives it."""

    held: Mapping[str, Any]
    #: An empty selector selects every pod in policy/v1, and none in policy/v1beta1.
    empty_selects_all: bool

    @property
    def name(self) -> str:
        return name_of(self.held)

    def covers(self, pod: Pod) -> bool:
        if pod["metadata"]["namespace"] != self.held["metadata"]["namespace"]:
            return False
        selector = self.held["spec"].get("selector")
        if not selector:  # null selects nothing, ever
            return selector is not None and self.empty_selects_all
        return selects(selector, pod["metadata"].get("labels") or {})


#: Key, value and effect.
Taint = tuple[str, str, str]


@dataclass(frozen=True)
class Toleration:
    """Empty is any, of a key only with ``exists``."""

    key: str
    value: str
    effect: str
    exists: bool


@dataclass(frozen=True)
class Covered:
    """A pod that may only go if a budget lets it: all that is judged of it."""

    #: namespace/name.
    name: str
    ready: bool
    budgets: tuple[Budget, ...]
    tolerations: tuple[Toleration, ...] = ()


class Budgets:
    """All budgets of a cluster, found by the namespaces that they cover."""

    def __init__(self, budgets: Iterable[Budget]) -> None:
        self._by_namespace: dict[str, list[Budget]] = {}
        for budget in budgets:
            namespace = budget.held["metadata"]["namespace"]
            self._by_namespace.setdefault(namespace, []).append(budget)

    def covering(self, pod: Pod) -> Covered | None:
        """None where no budget covers ``pod``, or where it needs no leave to go."""
        here = self._by_namespace.get(pod["metadata"]["namespace"], ())
        over = tuple(budget for budget in here if budget.covers(pod))
        if not over or not _needs_leave(pod):
            return None
        return Covered(name_of(pod), is_ready(pod), over, _tolerations(pod))

    def covered(self, pods: Iterable[Pod]) -> list[Covered]:
        return [found for pod in pods if (found := self.covering(pod))]


@dataclass(frozen=True)
class Obstacle:
    """A budget, or several together, that would not let these pods go now."""

    #: namespace/name; several are separated by commas.
    budget: str
    #: namespace/name of each pod of the node that is covered, sorted.
    pods: tuple[str, ...]
    #: Waiting does not help: it takes a change of the budget or of the workload.
    never: bool
    text: str


def obstacles(budgets: Sequence[Budget], pods: Iterable[Pod]) -> list[Obstacle]:
    """What would refuse to evict one or more of a node's ``pods`` now, and what always will.

    ``pods`` are those to be evicted. What terminates already, or needs no leave, is passed over.
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
    return sorted(found, key=lambda each: (not each.never, each.budget, each.pods))


def never_met(covered: Sequence[Covered]) -> list[Obstacle]:
    """The obstacles that no waiting removes."""
    return [each for each in obstacles_of(covered) if each.never]


def _needs_leave(pod: Pod) -> bool:
    done = is_finished(pod) or phase_of(pod) == "Pending"
    return not done and terminating_since(pod) is None


def _tolerations(pod: Pod) -> tuple[Toleration, ...]:
    """Without those that every pod has, for nodes that are not Ready."""
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
    policy = budget.held["spec"].get("unhealthyPodEvictionPolicy")
    return policy == "AlwaysAllow" and not pod.ready


def _of_one(budget: Budget, pods: Sequence[Covered]) -> list[Obstacle]:
    names = tuple(sorted(pod.name for pod in pods))
    if not names:
        return []
    rule, status = _rule(budget), budget.held.get("status") or {}
    current = status.get("observedGeneration", 0) >= budget.held["metadata"].get("generation", 0)
    expected, desired = status.get("expectedPods", 0), status.get("desiredHealthy", 0)
    if _is_strict(budget) or (current and expected and desired >= expected):
        text = f"{rule} of {expected} pods, so none of them may ever be evicted"
        advice = "relax the budget, scale the workload up, or move it off this node by hand"
        return [Obstacle(budget.name, names, True, f"{budget.name}: {text}: {advice}")]
    allowed = status.get("disruptionsAllowed", 0) if current else 0
    if allowed >= len(names):
        return []
    healthy = f"{status.get('currentHealthy', 0)} of {expected} pods are healthy"
    text = f"{rule}; {healthy}, {desired} must be: {allowed} of the {len(names)} here may go now"
    return [Obstacle(budget.name, names, False, f"{budget.name}: {text}")]


def _rule(budget: Budget) -> str:
    spec = budget.held["spec"]
    if spec.get("maxUnavailable") is not None:
        return f"maxUnavailable {spec['maxUnavailable']}"
    return f"minAvailable {spec.get('minAvailable', 1)}"


def _is_strict(budget: Budget) -> bool:
    """By its own words, whatever the number of pods."""
    spec = budget.held["spec"]
    return spec.get("maxUnavailable") in (0, "0", "0%") or spec.get("minAvailable") == "100%"


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector selects an object with these labels; an empty one does."""
    wanted = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or ()
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _holds(expression, labels) for expression in expressions
    )


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """:raises ValueError: an operator that the API does not have either."""
    key, operator, values = expression["key"], expression["operator"], expression.get("values")
    there = key in labels
    outcomes = {
        "In": there and labels.get(key) in (values or ()),
        "NotIn": not there or labels[key] not in (values or ()),
        "Exists": there,
        "DoesNotExist": not there,
    }
    if operator not in outcomes:
        raise ValueError(f"no such operator in a label selector: {operator}")
    return outcomes[operator]
