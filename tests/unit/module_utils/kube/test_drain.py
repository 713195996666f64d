# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a drain cordons its node, and when it uncordons it again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.errors import (
    ApiError,
    DataplaneError,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.annotations import (
    CORDONED_BY,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.api import (
    BudgetExhausted,
    Kube,
    Object,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.clock import Clock
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.drain import (
    Drain,
    DrainSpec,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.lease import LeaseLost
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.session import Session

NODE = "/api/v1/nodes/w1"
NEEDS = "The disruption budget web needs 2 healthy pods and has 2"


@dataclass
class Api:
    """One node with pods; ``evict`` raises the error of an eviction that fails."""

    evict: Callable[[str, bool], None]
    names: list[str]
    node: Object = field(
        default_factory=lambda: {
            "metadata": {"name": "w1", "annotations": {}},
            "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }
    )
    now: float = 0.0
    logged: list[str] = field(default_factory=list)
    #: Each write, and each eviction tried with a dry run.
    done: list[str] = field(default_factory=list)

    def send(
        self, method: str, path: str, query: Mapping[str, Any], content_type: str, body: Any
    ) -> bytes:
        answer: Object = {}
        if path == NODE:
            if method == "PATCH":
                self.patch(body)
            answer = self.node
        elif path == "/api/v1/pods":
            answer = {"items": [pod(name) for name in self.names]}
        else:
            name, dry_run = path.split("/")[6], "dryRun" in query
            self.done.append(f"{'try' if dry_run else 'evict'} {name}")
            self.evict(name, dry_run)
            if not dry_run:
                self.names.remove(name)
        return json.dumps(answer).encode()

    def patch(self, body: Object) -> None:
        self.done.append("cordon" if body["spec"]["unschedulable"] else "uncordon")
        self.node["spec"].update(body["spec"])
        self.node["metadata"]["annotations"].update(body["metadata"]["annotations"])

    @property
    def cordoned(self) -> bool:
        noted = bool(self.node["metadata"]["annotations"].get(CORDONED_BY))
        assert noted is bool(self.node["spec"].get("unschedulable"))
        return noted

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def drain(self, renew: Callable[[], object] = lambda: None, **how: Any) -> Drain:
        clock = Clock(lambda: self.now, self.sleep)
        session = Session(Kube(self.send, 0, clock=clock), self.logged.append, renew, clock)
        return Drain(session, DrainSpec("w1", 30, cordoned_by="anna", **how))


def pod(name: str) -> Object:
    owner = {"kind": "ReplicaSet", "name": "web", "controller": True}
    metadata = {"namespace": "demo", "name": name, "uid": name, "ownerReferences": [owner]}
    return {"metadata": metadata, "spec": {}, "status": {"phase": "Running"}}


def refuse(name: str, dry_run: bool) -> None:
    raise BudgetExhausted("POST", 429, "TooManyRequests", NEEDS)


def allow(name: str, dry_run: bool) -> None:
    pass


def test_a_node_is_cordoned_before_the_first_eviction() -> None:
    api = Api(allow, ["a", "b"])
    result = api.drain().run()
    assert api.done == ["try a", "cordon", "evict a", "evict b"]
    assert (result["cordoned"], api.cordoned) == (True, True)


def test_an_empty_node_is_cordoned_at_once() -> None:
    api = Api(refuse, [])
    assert api.drain().run()["cordoned"]
    assert api.done == ["cordon"]


def test_a_node_without_a_possible_eviction_is_not_cordoned() -> None:
    api = Api(refuse, ["a"])
    with pytest.raises(DataplaneError) as raised:
        api.drain().run()
    assert set(api.done) == {"try a"}
    assert len(api.done) == 7  # every 5 s for 30 s
    facts = raised.value.facts
    assert [facts[key] for key in ("changed", "cordoned", "evicted")] == [False, False, []]
    assert facts["remaining"] == [{"pod": "demo/a", "why": f"refused by a budget: {NEEDS}"}]
    assert str(raised.value).endswith(
        "\nNothing was evicted, so this run does not keep the node cordoned. Fix what blocks these"
        " pods, or set a longer timeout, then rerun: the drain continues with the pods that are"
        " left."
    )
    assert api.logged[0] == f"demo/a: refused by a budget: {NEEDS}; retried every 5 s"
    assert (
        "w1: waiting for 1 pod to go: demo/a, 1 of them refused so far; the node is cordoned when"
        " a pod can be evicted"
    ) in str(api.logged)


def test_a_budget_that_another_drain_uses_up_first_leaves_the_node_uncordoned() -> None:
    """Several drains try at the same moment, and the budget allows one eviction."""
    used = [False]

    def evict(name: str, dry_run: bool) -> None:
        if used[0]:
            refuse(name, dry_run)
        used[0] = dry_run

    api = Api(evict, ["a"])

    def replenish() -> None:
        """After 10 s another pod is Ready, and the budget allows evictions."""
        if api.now >= 10:
            api.evict = allow

    result = api.drain(replenish).run()
    assert api.done[:5] == ["try a", "cordon", "evict a", "uncordon", "try a"]
    assert api.done[-2:] == ["cordon", "evict a"]
    assert (result["cordoned"], api.cordoned) == (True, True)


def test_a_node_stays_cordoned_after_one_eviction() -> None:
    def evict(name: str, dry_run: bool) -> None:
        if name == "b":
            refuse(name, dry_run)

    api = Api(evict, ["a", "b"])
    with pytest.raises(DataplaneError, match=r"\nThe node is left as it is\.") as raised:
        api.drain().run()
    assert raised.value.facts["cordoned"]
    assert api.cordoned


@pytest.mark.parametrize("lost", [False, True])
def test_an_error_before_the_first_eviction_leaves_the_node_uncordoned(lost: bool) -> None:
    """Unless the Lease is lost: then nothing more is changed."""

    def evict(name: str, dry_run: bool) -> None:
        if not dry_run:
            raise ApiError("POST", 403, "Forbidden", "")

    api = Api(evict, ["a"])

    def renew() -> None:
        if lost and "evict a" in api.done:
            raise LeaseLost("lost")

    with pytest.raises(ApiError, match="403") as raised:
        api.drain(renew).run()
    assert raised.value.facts["cordoned"] is lost
    assert api.cordoned is lost


def test_a_forbidden_eviction_fails_before_the_cordon() -> None:
    def evict(name: str, dry_run: bool) -> None:
        raise ApiError("POST", 403, "Forbidden", "")

    api = Api(evict, ["a"])
    with pytest.raises(ApiError, match="403"):
        api.drain().run()
    assert api.done == ["try a"]


def test_a_webhook_without_dry_run_support_does_not_block_the_drain() -> None:
    def evict(name: str, dry_run: bool) -> None:
        if dry_run:
            raise ApiError("POST", 400, "BadRequest", "does not support dry run")

    api = Api(evict, ["a"])
    api.drain().run()
    assert api.done == ["try a", "cordon", "evict a"]


def test_a_node_cordoned_by_someone_else_stays_cordoned() -> None:
    api = Api(refuse, ["a"])
    api.node["spec"]["unschedulable"] = True
    with pytest.raises(DataplaneError):
        api.drain().run()
    assert api.node["spec"]["unschedulable"]
    assert set(api.done) == {"try a"}
