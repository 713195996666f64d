# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replacing calico-node's pod on one node, with a pause while there is none.

Felix is killed with no grace, and its pod may be gone from the API before the process is gone from
the node. So a finalizer of ours keeps the deleted pod, and with it the DaemonSet controller from
making the next one, until the caller has seen on the node that the old Felix is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ApiError, DataplaneError, Refusal
from .api import Kube, Object, unheard
from .clock import CLOCK, Clock
from .lease import not_held
from .pods import (
    REVISION_LABEL,
    Pod,
    condition,
    container_states,
    controller_of,
    is_ready,
    path_of,
    phase_of,
    revision_of,
    terminating_since,
    uid_of,
)
from .progress import Progress

FINALIZER = "dataplane.calico-bpf/felix-must-be-gone"
_CONTAINER = "calico-node"
_LOG_LINES = 20


@dataclass(frozen=True)
class Order:
    """Whose pod, where; times in seconds."""

    node: str
    namespace: str = "kube-system"
    daemonset: str = "calico-node"
    timeout: float = 300.0
    poll: float = 1.0
    #: Stop also a pod of the newest revision.
    replace: bool = False
    #: Started is a pod that is Ready; otherwise one that there is.
    must_be_ready: bool = True


def is_held(pod: Pod) -> bool:
    return FINALIZER in (pod["metadata"].get("finalizers") or ())


def is_stopped(pod: Pod) -> bool:
    """Whether it is deleted, and kept by us: no other takes its place."""
    return is_held(pod) and terminating_since(pod) is not None


def is_current(pod: Pod, revision: str) -> bool:
    """Whether it is one of the revision, to stay."""
    return revision_of(pod) == revision and terminating_since(pod) is None


def is_up(pod: Pod, revision: str) -> bool:
    return is_current(pod, revision) and is_ready(pod)


def described(pod: Pod) -> Object:
    """What the result says of a pod; times as the API gives them, null where not yet."""
    ready = condition(pod, "Ready")
    return {
        "name": pod["metadata"]["name"],
        "uid": uid_of(pod),
        "images": {each["name"]: each["image"] for each in pod["spec"]["containers"]},
        "revision": revision_of(pod),
        "started_at": (pod.get("status") or {}).get("startTime"),
        "ready_at": ready.get("lastTransitionTime") if ready.get("status") == "True" else None,
    }


@dataclass(frozen=True)
class _Seen:
    """One look: the newest revision (None while the controller has not seen the DaemonSet's last
    change) and the DaemonSet's pods on the node, those that stopped first."""

    revision: str | None
    on_delete: bool
    pods: Sequence[Pod]


class CalicoNodePod:
    """The pod of one node; ``keep`` is called while waiting, and may raise to end it."""

    def __init__(
        self,
        kube: Kube,
        order: Order,
        tell: Callable[[str], None] = unheard,
        keep: Callable[[], object] = not_held,
        clock: Clock = CLOCK,
    ) -> None:
        self._kube = kube
        self._order = order
        self._keep = keep
        self._clock = clock
        self._progress = Progress(tell, clock)
        self._name = f"{order.namespace}/{order.daemonset}"
        #: Whether anything was, also when an operation raises.
        self.changed = False
        self._apps = f"/apis/apps/v1/namespaces/{order.namespace}"

    # --- operations -----------------------------------------------------------------------------

    def stop(self, check: bool) -> Object:
        """Delete the pod and keep its place, unless it is of the newest revision already.

        :raises Refusal: there is no such node or DaemonSet.
        :raises DataplaneError: there was no pod in time.
        """
        self._check_node()
        for seen in self._looks():
            pod = next(iter(seen.pods), None)
            if pod is None:
                waits = f"{self._order.node}: waiting for a pod of {self._name} to stop"
            elif is_stopped(pod):
                return {"changed": False, "stopped": True, "pod": described(pod)}
            elif seen.revision is None:
                waits = f"{self._name}: waiting until the controller knows its newest revision"
            elif terminating_since(pod):
                # A finalizer can't be added any more: whoever deleted it, let its successor come.
                waits = f"{self._order.node}: waiting for {pod['metadata']['name']} to be gone"
            elif is_current(pod, seen.revision) and not self._order.replace:
                return {"changed": False, "stopped": False, "pod": described(pod)}
            elif check or self._stop(pod):
                return {"changed": True, "stopped": True, "pod": described(pod)}
            else:
                continue  # it changed under us
            if check:
                return {"changed": True, "stopped": True, "pod": pod and described(pod)}
            self._progress.show(waits)
        raise self._nothing_to_stop()

    def start(self, check: bool) -> Object:
        """Let the next pod come, and wait until one of the newest revision is Ready.

        :raises Refusal: there is no such node or DaemonSet, or the old pod was never stopped.
        :raises DataplaneError: it was not Ready in time, with what is known of it.
        """
        self._check_node()
        last: Pod | None = None
        for seen in self._looks():
            held = [pod for pod in seen.pods if is_held(pod)]
            if check:
                return {"changed": bool(held), "pod": None}
            for pod in held:
                self._edit_finalizers(pod, add=False)
            if held:
                continue
            wanted = is_up if self._order.must_be_ready else is_current
            up = [pod for pod in seen.pods if wanted(pod, seen.revision or "")]
            if up:
                return {"changed": self.changed, "pod": described(up[0])}
            last = next(iter(seen.pods), None)
            self._check_replaceable(seen)
            self._progress.show(self._waiting_for(last, seen.revision))
        raise self._not_ready(last)

    # --- reading --------------------------------------------------------------------------------

    def _looks(self) -> Iterator[_Seen]:
        """One look after the other, until the time is up."""
        until = self._clock.now() + self._order.timeout
        while True:
            self._keep()
            yield self._look()
            left = until - self._clock.now()
            if left <= 0:
                return
            self._clock.sleep(min(self._order.poll, left))

    def _look(self) -> _Seen:
        daemonset = self._kube.find(f"{self._apps}/daemonsets/{self._order.daemonset}")
        if daemonset is None:
            raise Refusal(f"there is no DaemonSet {self._name}; nothing was changed")
        pods = self._kube.items(
            f"/api/v1/namespaces/{self._order.namespace}/pods",
            fieldSelector=f"spec.nodeName={self._order.node}",
        )
        mine = [pod for pod in pods if _belongs(pod, daemonset)]
        mine.sort(key=lambda pod: (not is_stopped(pod), pod["metadata"]["creationTimestamp"]))
        strategy = daemonset["spec"].get("updateStrategy") or {}
        return _Seen(self._newest(daemonset), strategy.get("type") == "OnDelete", mine)

    def _newest(self, daemonset: Object) -> str | None:
        """The hash of the newest revision."""
        status = daemonset.get("status") or {}
        if status.get("observedGeneration", 0) < daemonset["metadata"].get("generation", 0):
            return None
        held = self._kube.items(f"{self._apps}/controllerrevisions")
        ours = [each for each in held if _belongs(each, daemonset)]
        if not ours:
            return None
        newest = max(ours, key=lambda each: int(each["revision"]))
        return str(newest["metadata"]["labels"][REVISION_LABEL])

    def _check_node(self) -> None:
        if self._kube.find(f"/api/v1/nodes/{self._order.node}") is None:
            raise Refusal(f"there is no node {self._order.node}; nothing was changed")

    def _check_replaceable(self, seen: _Seen) -> None:
        """Under OnDelete an old pod that nobody deleted stays for ever."""
        old = [p for p in seen.pods if terminating_since(p) is None and seen.revision]
        old = [pod for pod in old if revision_of(pod) != seen.revision]
        if old and seen.on_delete:
            raise Refusal(
                f"{self._order.node}: {old[0]['metadata']['name']} is of the revision"
                f" {revision_of(old[0])}, the newest is {seen.revision}, and nothing replaces it:"
                " stop it first (state=stopped); nothing was changed"
            )

    # --- writing --------------------------------------------------------------------------------

    def _stop(self, pod: Pod) -> bool:
        """False where the pod changed or went meanwhile."""
        if not is_held(pod) and not self._edit_finalizers(pod, add=True):
            return False
        try:
            self._kube.delete(path_of(pod), {"preconditions": {"uid": uid_of(pod)}})
        except ApiError as error:
            if error.status in (404, 409):
                return False
            raise DataplaneError(
                f"{error}. The pod still runs, and has our finalizer {FINALIZER}: it could not end"
                " for good if it were deleted now; state=started takes that off"
            ) from error
        self.changed = True
        return True

    def _edit_finalizers(self, pod: Pod, add: bool) -> bool:
        """Put ours on the pod, or take it off; False where the pod changed or went meanwhile."""
        metadata = pod["metadata"]
        others = [each for each in metadata.get("finalizers") or () if each != FINALIZER]
        wanted = {
            "resourceVersion": metadata["resourceVersion"],
            "finalizers": [*others, FINALIZER] if add else others,
        }
        try:
            self._kube.patch(path_of(pod), {"metadata": wanted})
        except ApiError as error:
            if error.status in (404, 409):
                return False
            raise
        self.changed = True
        return True

    # --- telling --------------------------------------------------------------------------------

    def _waiting_for(self, pod: Pod | None, revision: str | None) -> str:
        if pod is None:
            return f"{self._order.node}: waiting for a new pod of {self._name}"
        name = pod["metadata"]["name"]
        if terminating_since(pod):
            return f"{self._order.node}: waiting for the old {name} to be gone"
        if revision_of(pod) != revision:
            return f"{self._order.node}: waiting for the old {name} to be replaced"
        states = [f"{c} {s}" for c, s in container_states(pod).items() if s != "ready"]
        detail = ", ".join(states) or phase_of(pod)
        return f"{self._order.node}: waiting for {name} to be Ready: {detail}"

    def _nothing_to_stop(self) -> DataplaneError:
        return DataplaneError(
            f"{self._order.node}: no pod of {self._name} to stop within"
            f" {self._order.timeout:.0f} s. See whether the DaemonSet's nodeSelector and"
            " tolerations let it run there, and whether an older pod can't end",
            {"stopped": False},
        )

    def _not_ready(self, pod: Pod | None) -> DataplaneError:
        node, limit = self._order.node, f"within {self._order.timeout:.0f} s"
        if pod is None:
            text = f"{node}: no new pod of {self._name} came {limit}; is the controller manager up?"
            return DataplaneError(text, {"pod": None})
        facts: dict[str, Any] = {
            "timed_out": True,
            "pod": described(pod),
            "phase": phase_of(pod),
            "conditions": (pod.get("status") or {}).get("conditions") or [],
            "containers": container_states(pod),
            "log": self._log(pod),
        }
        states = "".join(f"\n  {name}: {state}" for name, state in facts["containers"].items())
        log = "".join(f"\n  {line}" for line in facts["log"])
        return DataplaneError(
            f"{node}: {pod['metadata']['name']} is {facts['phase']} and not Ready {limit}. Its"
            f" containers:{states}\nThe end of {_CONTAINER}'s log:{log}",
            facts,
        )

    def _log(self, pod: Pod) -> list[str]:
        """The last lines; of the run before where it crashed and has not begun anew."""
        statuses = (pod.get("status") or {}).get("containerStatuses") or ()
        mine: Object = next((each for each in statuses if each["name"] == _CONTAINER), {})
        crashed = mine.get("restartCount") and "waiting" in (mine.get("state") or {})
        query: Object = {"container": _CONTAINER, "tailLines": _LOG_LINES}
        query |= {"previous": "true"} if crashed else {}
        try:
            return self._kube.asking_once().text(f"{path_of(pod)}/log", **query).splitlines()
        except ApiError as error:
            return [f"can't be read: {error}"]


def _belongs(held: Pod, daemonset: Object) -> bool:
    owner = controller_of(held)
    return owner is not None and owner["uid"] == uid_of(daemonset)
