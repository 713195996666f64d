# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the verbs change objects, the same for every kind.

What is special about a kind stands in ``kinds.py``, what is special about pods in ``pods.py``.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes import (
    kinds,
    patches,
    problems,
    selectors,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.paging import Page
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.resources import (
    NAMESPACES,
    PODS,
    Resource,
    Resources,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.selectors import Match
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.store import (
    Key,
    Object,
    Store,
)

_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_PATCHES: dict[str, Callable[[Any, Any], Any]] = {
    "application/merge-patch+json": patches.merge,
    "application/strategic-merge-patch+json": patches.strategic,
    "application/json-patch+json": patches.json_patch,
}
#: The metadata that no client changes.
_FIXED = (
    "uid",
    "creationTimestamp",
    "name",
    "namespace",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)


@dataclass(frozen=True)
class Target:
    """The target of a request: a kind, a namespace, an object and a subresource."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def key(self) -> Key:
        return Key(self.resource.collection, self.namespace, self.name)


class Cluster:
    """The API without HTTP. Each method is one step; answers must not be changed by the caller."""

    def __init__(self) -> None:
        self.store = Store()
        self.resources = Resources(self.store)
        for name in ("default", "kube-node-lease", "kube-public", "kube-system"):
            self.create(Target(NAMESPACES), {"metadata": {"name": name}})

    def get(self, target: Target) -> Object:
        held = self.store.get(target.key)
        if held is None:
            raise problems.not_found(target.resource.collection, target.name)
        return held

    def list(self, target: Target, match: Match, page: Page) -> Object:
        resource = target.resource
        with self.store.lock:
            revision = self.store.revision if page.revision is None else page.revision
            try:
                held = self.store.items(resource.collection, target.namespace, page.revision)
            except LookupError as error:
                raise page.expired() from error
        found, metadata = page.of(held, match, revision)
        return {
            "kind": f"{resource.kind}List",
            "apiVersion": resource.api_version,
            "metadata": metadata,
            "items": [each if resource.custom else _bare(each) for each in found],
        }

    def create(self, target: Target, body: Object, dry_run: bool = False) -> Object:
        resource = target.resource
        made = self._named(resource, copy.deepcopy(body))
        metadata = made["metadata"]
        if resource.namespaced:
            if metadata.setdefault("namespace", target.namespace) != target.namespace:
                raise problems.bad_request(
                    "the namespace of the provided object does not match the namespace sent on"
                    " the request"
                )
            self.get(Target(NAMESPACES, name=target.namespace))
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp()}
        metadata |= {"generation": 1} if resource.counted else {}
        metadata.pop("resourceVersion", None)
        kinds.prepare(resource, made)
        kinds.check(resource, made, None)
        key = Key(resource.collection, metadata.get("namespace", ""), metadata["name"])
        with self.store.lock:
            if self.store.get(key) is not None:
                raise problems.already_exists(resource.collection, key.name)
            return made if dry_run else self.store.put(key, made)

    def replace(self, target: Target, body: Object, dry_run: bool = False) -> Object:
        resource = target.resource
        wanted = self._named(resource, copy.deepcopy(body))
        if wanted["metadata"]["name"] != target.name:
            raise problems.bad_request(
                f"the name of the object ({wanted['metadata']['name']}) does not match the name"
                f" on the URL ({target.name})"
            )
        with self.store.lock:
            if resource.create_by_put and self.store.get(target.key) is None:
                return self.create(target, wanted, dry_run)
            self.get(target)
            if not resource.unconditional and not wanted["metadata"].get("resourceVersion"):
                why = "Invalid value: 0x0: must be specified for an update"
                raise problems.invalid(resource.kind, target.name, "metadata.resourceVersion", why)
            return self._change(target, wanted, dry_run)

    def patch(self, target: Target, kind: str, body: Any, dry_run: bool = False) -> Object:
        if kind not in _PATCHES or (target.resource.custom and "strategic" in kind):
            raise problems.unsupported(kind)
        with self.store.lock:
            held = self.get(target)
            return self._change(target, _PATCHES[kind](held, body), dry_run)

    def update(self, target: Target, change: Callable[[Object], None]) -> Object:
        """Change one object like a controller of the API: ``change`` works on a copy."""
        with self.store.lock:
            wanted = copy.deepcopy(self.get(target))
            change(wanted)
            return self._put(target, wanted)

    def delete(self, target: Target, options: Mapping[str, Any], dry_run: bool = False) -> Object:
        """Delete an object, or mark it for deletion if it has a grace period or finalizers."""
        with self.store.lock:
            held = self.get(target)
            self._check_preconditions(target, held, options.get("preconditions") or {})
            grace = _grace(target.resource, held, options.get("gracePeriodSeconds"))
            if dry_run:
                return self._deleted(target, held)
            if options.get("propagationPolicy") == "Orphan":
                self._orphan(held)
            if grace or held["metadata"].get("finalizers"):
                return self._begin_deletion(target, grace)
            return self._remove(target)

    def _begin_deletion(self, target: Target, grace: int) -> Object:
        def mark(held: Object) -> None:
            metadata = held["metadata"]
            if grace < metadata.get("deletionGracePeriodSeconds", grace + 1):
                # The end of the grace period, as the real one has it.
                metadata["deletionTimestamp"] = timestamp(grace)
                metadata["deletionGracePeriodSeconds"] = grace

        return self.update(target, mark)

    def _remove(self, target: Target) -> Object:
        last = self.store.remove(target.key)
        if target.resource == NAMESPACES:
            for key, _held in self.store.everything():
                if key.namespace == target.name:
                    self.store.remove(key)
        return self._deleted(target, last)

    def _deleted(self, target: Target, last: Object) -> Object:
        if target.resource in (PODS, NAMESPACES) or target.resource.custom:
            return last
        what = {"name": target.name, "kind": target.resource.plural, "uid": last["metadata"]["uid"]}
        return {**success(), "details": what}

    def _orphan(self, owner: Object) -> None:
        uid = owner["metadata"]["uid"]
        for key, held in self.store.everything():
            references = held["metadata"].get("ownerReferences") or []
            left = [each for each in references if each["uid"] != uid]
            if left != references:
                metadata = {**held["metadata"], "ownerReferences": left}
                self.store.put(key, {**held, "metadata": metadata})

    def _named(self, resource: Resource, body: Object) -> Object:
        """The body with its kind, apiVersion and name added, or checked if they are given."""
        for field, right in (("kind", resource.kind), ("apiVersion", resource.api_version)):
            if body.setdefault(field, right) != right:
                raise problems.bad_request(
                    f"the {field} in the data ({body[field]}) does not match the expected one"
                    f" ({right})"
                )
        metadata = body.setdefault("metadata", {})
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + self._suffix()
        if not metadata.get("name"):
            why = "Required value: name or generateName is required"
            raise problems.invalid(resource.kind, "", "metadata.name", why)
        return body

    def _suffix(self) -> str:
        """Five letters for a generated name: derived from the length of the log, not random."""
        number, letters = self.store.revision, ""
        while len(letters) < 5:
            number, rest = divmod(number, len(_LETTERS))
            letters = _LETTERS[rest] + letters
        return letters

    def _change(self, target: Target, wanted: Object, dry_run: bool) -> Object:
        """Apply a client's change to the object, except for fields that it may not change."""
        resource, held = target.resource, self.get(target)
        if (wanted["metadata"].get("resourceVersion") or _version(held)) != _version(held):
            raise problems.stale(resource.collection, target.name)
        asked = {k: v for k, v in wanted["metadata"].items() if k not in _FIXED}
        fixed = {k: v for k, v in held["metadata"].items() if k in _FIXED}
        wanted = {**wanted, "metadata": {**asked, **fixed}}
        if target.subresource == "status":
            wanted = {**held, "metadata": wanted["metadata"], "status": wanted.get("status", {})}
        elif resource.has_status and "status" in held:
            wanted["status"] = held["status"]
        elif resource.has_status:
            wanted.pop("status", None)
        kinds.check(resource, wanted, held)
        return wanted if dry_run else self._put(target, wanted)

    def _put(self, target: Target, wanted: Object) -> Object:
        held, metadata = self.get(target), wanted["metadata"]
        if target.resource.counted and _spec(wanted) != _spec(held):
            metadata["generation"] = held["metadata"]["generation"] + 1
        if not metadata.get("finalizers"):
            metadata.pop("finalizers", None)
            if "deletionTimestamp" in metadata and not metadata["deletionGracePeriodSeconds"]:
                return self._remove(target)
        return self.store.put(target.key, wanted)

    def _check_preconditions(self, target: Target, held: Object, wanted: Mapping[str, str]) -> None:
        for field in ("uid", "resourceVersion"):
            if wanted.get(field) not in (None, held["metadata"][field]):
                why = f"the {field} in the precondition does not match: {held['metadata'][field]}"
                raise problems.conflict(target.resource.collection, target.name, why)


def selection(resource: Resource, labels: str, fields: str) -> Match:
    """A function that applies the two selectors of a query to an object."""
    known = ("metadata.name", "metadata.namespace", *resource.fields)
    by_labels, by_fields = selectors.by_labels(labels), selectors.by_fields(fields, known)
    return lambda held: by_labels(held) and by_fields(held)


def success() -> Object:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


def timestamp(seconds: int = 0) -> str:
    """The time in ``seconds`` from now, in the format of the API."""
    when = datetime.fromtimestamp(datetime.now(timezone.utc).timestamp() + seconds, timezone.utc)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _grace(resource: Resource, held: Object, asked: int | None) -> int:
    if resource != PODS:
        return 0
    if not held["spec"].get("nodeName") or held["status"]["phase"] in ("Succeeded", "Failed"):
        return 0
    return int(held["spec"]["terminationGracePeriodSeconds"] if asked is None else asked)


def _version(held: Object) -> str:
    return str(held["metadata"]["resourceVersion"])


def _spec(held: Object) -> Object:
    return {field: value for field, value in held.items() if field not in ("metadata", "status")}


def _bare(held: Object) -> Object:
    """An item of a list: only custom resources have their kind and apiVersion there."""
    return {field: value for field, value in held.items() if field not in ("kind", "apiVersion")}
