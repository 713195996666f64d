# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replaces calico-node's pod on one node so that two Felix processes never run there at once.

calico-node has a grace period of 0. After a plain deletion its pod leaves the API at once, and the
successor's Felix starts while the old one still runs. The collection's finalizer keeps the deleted
pod in the API until the kubelet reports that its containers have ended. The DaemonSet controller
does not create the successor earlier. From Kubernetes 1.27 on it does so at that moment, since the
kubelet then reports a terminal phase; before 1.27 when the finalizer is removed and the pod leaves
the API.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ApiError, DataplaneError, Refusal
from ..kube.annotations import FINALIZER
from ..kube.api import Object
from ..kube.pods import (
    REVISION_LABEL,
    Pod,
    condition,
    container_states,
    controller_of,
    has_own_network,
    is_finished,
    is_ready,
    name_of,
    path_of,
    phase_of,
    revision_of,
    terminating_since,
    uid_of,
)
from ..kube.session import Session

_CONTAINER = "calico-node"
_LOG_LINES = 20
#: Seconds for which all containers must be reported as terminated where the phase does not say it:
#: a container that crashed just before the deletion may have been restarted since the last report.
_SETTLE = 3.0


@dataclass(frozen=True)
class PodOptions:
    """Which pod, on which node; times are in seconds."""

    node: str
    namespace: str = "kube-system"
    daemonset: str = "calico-node"
    #: For each step: until the old containers have ended, and until there is a successor.
    timeout: float = 300.0
    poll: float = 1.0
    #: Also replace a pod that already has the newest revision.
    replace: bool = False


def has_finalizer(pod: Pod) -> bool:
    return FINALIZER in (pod["metadata"].get("finalizers") or ())


def is_current(pod: Pod, revision: str | None) -> bool:
    """Whether it has that revision and is not being deleted."""
    return revision_of(pod) == revision and terminating_since(pod) is None


def containers_terminated(pod: Pod) -> bool:
    """Whether the kubelet reports every container as terminated, in any phase."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return bool(statuses) and all(
        "terminated" in (status.get("state") or {}) for status in statuses
    )


def pod_to_dict(pod: Pod) -> Object:
    """The pod as the result shows it; times as the API returns them, null if not reached."""
    ready = condition(pod, "Ready")
    return {
        "name": pod["metadata"]["name"],
        "uid": uid_of(pod),
        "images": {spec["name"]: spec["image"] for spec in pod["spec"]["containers"]},
        "revision": revision_of(pod),
        "started_at": (pod.get("status") or {}).get("startTime"),
        "ready_at": ready.get("lastTransitionTime") if ready.get("status") == "True" else None,
    }


@dataclass(frozen=True)
class _Seen:
    """The DaemonSet's pods on the node at one time, oldest first.

    ``revision`` is the newest one; None until the controller has observed the DaemonSet's last
    change.
    """

    revision: str | None
    on_delete: bool
    pods: Sequence[Pod]

    @property
    def leaving(self) -> Pod | None:
        """The pod that is being deleted; one that the finalizer keeps is preferred."""
        deleted = [pod for pod in self.pods if terminating_since(pod)]
        return min(deleted, key=lambda pod: not has_finalizer(pod), default=None)

    @property
    def live(self) -> Pod | None:
        return next((pod for pod in self.pods if terminating_since(pod) is None), None)


class CalicoNodePod:
    """The pod of one node."""

    def __init__(self, session: Session, options: PodOptions) -> None:
        self._session = session
        self._kube = session.kube
        self._options = options
        self._clock = session.clock
        self._progress = session.progress()
        self._name = f"{options.namespace}/{options.daemonset}"
        #: Whether anything was changed, also if an operation raises.
        self.changed = False
        self._apps = f"/apis/apps/v1/namespaces/{options.namespace}"
        self._deadline = 0.0
        self._former: Pod | None = None
        self._terminated_since: float | None = None

    # --- operations -----------------------------------------------------------------------------

    def replace(self, check: bool) -> Object:
        """Replace the pod unless it has the newest revision; complete an interrupted replacement.

        :raises Refusal: the node or the DaemonSet does not exist.
        :raises DataplaneError: the old containers did not end in time, or no successor was created.
        """
        self._check_node()
        for seen in self._looks():
            if self._former is None and seen.leaving and has_finalizer(seen.leaving):
                self._former = seen.leaving  # left by an interrupted run
            if check and seen.revision is not None:
                return self._predicted(seen)
            pod = None if check else self._advance(seen)
            if pod is not None:
                return self._replaced(self.changed, pod)
        raise self._not_replaced(self._look().leaving)

    def wait_ready(self, check: bool) -> Object:
        """Wait until a pod with the newest revision is Ready. Changes nothing.

        :raises Refusal: no such node or DaemonSet, or the update strategy keeps an old pod.
        :raises DataplaneError: the pod was not Ready in time; the facts describe it.
        """
        self._check_node()
        pod: Pod | None = None
        for seen in self._looks():
            pod = seen.live or seen.leaving
            if check:
                return {"changed": False, "pod": None, "networked_pods": None}
            if pod and is_current(pod, seen.revision) and is_ready(pod):
                networked = self._networked_pods()
                return {"changed": False, "pod": pod_to_dict(pod), "networked_pods": networked}
            self._check_replaceable(seen)
            self._progress.show(self._waiting_for(pod, seen.revision))
        raise self._not_ready(pod)

    # --- the steps of a replacement -------------------------------------------------------------

    def _advance(self, seen: _Seen) -> Pod | None:
        """Take the next step if possible; returns the pod that stays once nothing is left to do."""
        node, live, leaving = self._options.node, seen.live, seen.leaving
        if leaving and has_finalizer(leaving):
            name = leaving["metadata"]["name"]
            if self._has_ended(leaving):
                self._begin_step(self._edit_finalizers(leaving, add=False))
            else:
                self._progress.show(f"{node}: waiting until the containers of {name} have ended")
        elif seen.revision is None:
            self._progress.show(
                f"{self._name}: waiting for its controller to observe the last change"
            )
        elif live and self._stays(live, seen.revision):
            if not has_finalizer(live):
                return live
            self._edit_finalizers(live, add=False)  # left by a run that ended before the deletion
        elif live:
            self._begin_step(self._delete(live))
        elif leaving:
            self._progress.show(f"{node}: waiting until {leaving['metadata']['name']} is gone")
        else:
            self._progress.show(f"{node}: waiting for a new pod of {self._name}")
        return None

    def _stays(self, pod: Pod, revision: str | None) -> bool:
        if not is_current(pod, revision):
            return False
        former = self._former and uid_of(self._former)
        return not self._options.replace or former not in (None, uid_of(pod))

    def _has_ended(self, pod: Pod) -> bool:
        """Whether the kubelet has reported that all containers of a deleted pod have ended."""
        if not containers_terminated(pod):
            self._terminated_since = None
        elif self._terminated_since is None:
            self._terminated_since = self._clock.now()
        since = self._terminated_since
        settled = since is not None and self._clock.now() - since >= _SETTLE
        return is_finished(pod) or settled

    def _predicted(self, seen: _Seen) -> Object:
        live = seen.live
        if self._former is None and live and not self._stays(live, seen.revision):
            self._former = live
        left_over = live is not None and has_finalizer(live)
        stays = live if live and self._stays(live, seen.revision) else None
        return self._replaced(self._former is not None or left_over, stays)

    def _replaced(self, changed: bool, pod: Pod | None) -> Object:
        return {
            "changed": changed,
            "replaced": self._former is not None,
            "former": self._former and pod_to_dict(self._former),
            "pod": pod and pod_to_dict(pod),
        }

    # --- reading --------------------------------------------------------------------------------

    def _begin_step(self, done: bool) -> None:
        """Restart the time limit if a step is done."""
        if done:
            self._deadline = self._clock.now() + self._options.timeout

    def _looks(self) -> Iterator[_Seen]:
        """Poll the pods until the time limit of the current step."""
        self._begin_step(True)
        while True:
            self._session.renew_lease()
            yield self._look()
            left = self._deadline - self._clock.now()
            if left <= 0:
                return
            self._clock.sleep(min(self._options.poll, left))

    def _look(self) -> _Seen:
        daemonset = self._kube.find(f"{self._apps}/daemonsets/{self._options.daemonset}")
        if daemonset is None:
            raise Refusal(f"there is no DaemonSet {self._name}; nothing was changed")
        pods = self._kube.items(
            f"/api/v1/namespaces/{self._options.namespace}/pods",
            fieldSelector=f"spec.nodeName={self._options.node}",
        )
        owned = [pod for pod in pods if _belongs(pod, daemonset)]
        owned.sort(key=lambda pod: pod["metadata"]["creationTimestamp"])
        strategy = daemonset["spec"].get("updateStrategy") or {}
        return _Seen(self._newest(daemonset), strategy.get("type") == "OnDelete", owned)

    def _networked_pods(self) -> list[str]:
        on_node = f"spec.nodeName={self._options.node}"
        pods = self._kube.items("/api/v1/pods", fieldSelector=on_node)
        return sorted(name_of(pod) for pod in pods if has_own_network(pod))

    def _newest(self, daemonset: Object) -> str | None:
        """The hash of the newest revision."""
        status = daemonset.get("status") or {}
        if status.get("observedGeneration", 0) < daemonset["metadata"].get("generation", 0):
            return None
        revisions = self._kube.items(f"{self._apps}/controllerrevisions")
        owned = [revision for revision in revisions if _belongs(revision, daemonset)]
        if not owned:
            return None
        newest = max(owned, key=lambda revision: int(revision["revision"]))
        return str(newest["metadata"]["labels"][REVISION_LABEL])

    def _check_node(self) -> None:
        if self._kube.find(f"/api/v1/nodes/{self._options.node}") is None:
            raise Refusal(f"there is no node {self._options.node}; nothing was changed")

    def _check_replaceable(self, seen: _Seen) -> None:
        """Under OnDelete an old pod stays until it is deleted."""
        pod = seen.live
        if pod and seen.on_delete and seen.revision not in (None, revision_of(pod)):
            raise Refusal(
                f"{self._options.node}: {pod['metadata']['name']} has the revision"
                f" {revision_of(pod)}, but the newest is {seen.revision}, and the update strategy"
                " OnDelete does not replace it. Replace it first (state=replaced). Nothing was"
                " changed"
            )

    # --- writing --------------------------------------------------------------------------------

    def _delete(self, pod: Pod) -> bool:
        """Add the finalizer and delete the pod; False if the pod has changed or is gone."""
        if not has_finalizer(pod) and not self._edit_finalizers(pod, add=True):
            return False
        try:
            self._kube.delete(path_of(pod), {"preconditions": {"uid": uid_of(pod)}})
        except ApiError as error:
            if error.status in (404, 409):
                return False
            raise DataplaneError(
                f"{error}. The pod still runs and has the finalizer {FINALIZER}: if it is deleted"
                " now, it stays Terminating. Rerun the same task: it removes the finalizer"
            ) from error
        self.changed = True
        self._former, self._terminated_since = pod, None
        return True

    def _edit_finalizers(self, pod: Pod, add: bool) -> bool:
        """Add the finalizer to the pod, or remove it; False if the pod has changed or is gone."""
        metadata = pod["metadata"]
        others = [name for name in metadata.get("finalizers") or () if name != FINALIZER]
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

    # --- reporting ------------------------------------------------------------------------------

    def _waiting_for(self, pod: Pod | None, revision: str | None) -> str:
        if pod is None:
            return f"{self._options.node}: waiting for a new pod of {self._name}"
        name = pod["metadata"]["name"]
        if terminating_since(pod):
            return f"{self._options.node}: waiting until {name} is gone"
        if revision_of(pod) != revision:
            return f"{self._options.node}: waiting until {name} is replaced"
        states = [f"{c} {s}" for c, s in container_states(pod).items() if s != "ready"]
        detail = ", ".join(states) or phase_of(pod)
        return f"{self._options.node}: waiting until {name} is Ready: {detail}"

    def _not_replaced(self, leaving: Pod | None) -> DataplaneError:
        if leaving is not None and has_finalizer(leaving):
            return self._not_ended(leaving)
        return self._no_successor(leaving)

    def _not_ended(self, pod: Pod) -> DataplaneError:
        node, name = self._options.node, pod["metadata"]["name"]
        states = container_states(pod)
        listed = ", ".join(f"{container}: {state}" for container, state in states.items())
        up = is_ready(self._kube.find(f"/api/v1/nodes/{node}") or {})
        return DataplaneError(
            f"{node}: {name} was deleted, but the kubelet has not reported within"
            f" {self._options.timeout:.0f} s that its containers have ended"
            f" ({listed or 'no status'}); the node is {'Ready' if up else 'NotReady'}. No second"
            " calico-node is started on the node, since the finalizer"
            f" {FINALIZER} keeps the pod in the API. The attached programs stay, but no policy is"
            " updated once its Felix has ended. Check the kubelet and the container runtime of the"
            " node, then rerun: the run resumes here",
            {"former": pod_to_dict(pod), "former_ended": False, "containers": states},
        )

    def _no_successor(self, leaving: Pod | None) -> DataplaneError:
        namespace, daemonset = self._options.namespace, self._options.daemonset
        kept = ""
        if leaving:
            finalizers = ", ".join(leaving["metadata"].get("finalizers") or ()) or "none"
            kept = (
                f" {leaving['metadata']['name']} is still Terminating (finalizers: {finalizers})."
            )
        return DataplaneError(
            f"{self._options.node}: no new pod of {self._name} was created within"
            f" {self._options.timeout:.0f} s.{kept} Until there is one, the attached programs stay"
            " but no policy is updated. Check that the kube-controller-manager works, that the node"
            " matches the DaemonSet's nodeSelector and tolerations, and the events"
            f" (kubectl -n {namespace} describe daemonset {daemonset}), then rerun",
            {"former": self._former and pod_to_dict(self._former), "pod": None},
        )

    def _not_ready(self, pod: Pod | None) -> DataplaneError:
        node, limit = self._options.node, f"within {self._options.timeout:.0f} s"
        if pod is None or terminating_since(pod):
            return self._no_successor(pod)
        facts: dict[str, Any] = {
            "timed_out": True,
            "pod": pod_to_dict(pod),
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
        """The last lines; those of the previous run while a crashed container is not restarted."""
        statuses = (pod.get("status") or {}).get("containerStatuses") or ()
        status: Object = next((found for found in statuses if found["name"] == _CONTAINER), {})
        crashed = status.get("restartCount") and "waiting" in (status.get("state") or {})
        query: Object = {"container": _CONTAINER, "tailLines": _LOG_LINES}
        query |= {"previous": "true"} if crashed else {}
        try:
            return self._kube.without_retries().text(f"{path_of(pod)}/log", **query).splitlines()
        except ApiError as error:
            return [f"can't be read: {error}"]


def _belongs(resource: Object | Pod, daemonset: Object) -> bool:
    owner = controller_of(resource)
    return owner is not None and owner["uid"] == uid_of(daemonset)
