# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The DaemonSet during a rollout: at OnDelete with the new template, then with its own strategy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import DataplaneError, Refusal
from ..kube.annotations import FORMER_REVISION, UPDATE_STRATEGY
from ..kube.api import Object
from ..kube.session import Session
from .cluster import noted_strategy

#: Seconds that the controller has to observe the DaemonSet's last change.
_OBSERVED_WITHIN = 60.0
_POLL = 0.5


@dataclass(frozen=True)
class RolloutDaemonSet:
    """One DaemonSet as a rollout changes it; with ``check`` nothing is persisted."""

    session: Session
    namespace: str
    name: str
    check: bool = False

    def __str__(self) -> str:
        return f"DaemonSet {self.namespace}/{self.name}"

    def stage(self, patch: Mapping[str, Any], former_revision: str) -> Object:
        """Switch to OnDelete, then patch: no pod is replaced by either.

        The strategy from before and ``former_revision`` are noted once, so that a second run does
        not take OnDelete for the user's.

        :raises Refusal: there is no such DaemonSet.
        :raises DataplaneError: the patch failed; its ``on_delete`` says whether the switch is made.
        """
        before = self._read()
        switch = UPDATE_STRATEGY not in _annotations(before)
        if switch:
            self._switch(before, former_revision)
        try:
            after = self._patch(patch, "strategic-merge") if patch else before
        except DataplaneError as error:
            error.facts.update(on_delete=True, changed=switch)
            raise
        patched = after["metadata"].get("generation") != before["metadata"].get("generation")
        return {"changed": switch or (bool(patch) and patched), "on_delete": True}

    def restore(self) -> Object:
        """Put the former update strategy back, once no pod is of an older revision.

        Any other strategy than OnDelete would replace such pods at once.

        :raises Refusal: there is no such DaemonSet, or its annotation was changed by someone else.
        :raises DataplaneError: its controller does not observe its last change.
        """
        daemonset = self._observed()
        status = daemonset.get("status") or {}
        left = status.get("desiredNumberScheduled", 0) - status.get("updatedNumberScheduled", 0)
        noted = _annotations(daemonset).get(UPDATE_STRATEGY)
        restores = left <= 0 and noted is not None
        if restores:
            strategy = noted_strategy(str(self), str(noted))
            notes = {"annotations": {UPDATE_STRATEGY: None}}
            self._patch({"metadata": notes, "spec": {"updateStrategy": strategy}}, "merge")
        elif left > 0:
            self.session.log(
                f"{self} stays at OnDelete: {left} of its pods are not of the newest revision, and "
                "any other strategy would replace them at once. Upgrade the other nodes too; the "
                "strategy is put back after the last"
            )
        return {"changed": restores, "left": max(0, left)}

    def _switch(self, before: Object, former_revision: str) -> None:
        notes = {
            UPDATE_STRATEGY: json.dumps((before["spec"]).get("updateStrategy") or {}),
            FORMER_REVISION: former_revision,
        }
        strategy = {"type": "OnDelete", "rollingUpdate": None}
        self._patch(
            {"metadata": {"annotations": notes}, "spec": {"updateStrategy": strategy}}, "merge"
        )

    def _observed(self) -> Object:
        """As its controller has counted it; the counts may be a moment behind."""
        clock = self.session.clock
        until = clock.now() + _OBSERVED_WITHIN
        while True:
            found = self._read()
            observed = (found.get("status") or {}).get("observedGeneration", 0)
            if observed >= found["metadata"].get("generation", 0):
                return found
            if clock.now() >= until:
                raise DataplaneError(
                    f"{self}: its controller has not observed its last change within "
                    f"{_OBSERVED_WITHIN:.0f} s. Check kube-controller-manager, then rerun"
                )
            clock.sleep(_POLL)

    def _read(self) -> Object:
        found = self.session.kube.find(self._path)
        if found is None:
            raise Refusal(f"there is no {self}; nothing was changed")
        return found

    def _patch(self, body: Mapping[str, Any], kind: str) -> Object:
        return self.session.kube.patch(self._path, body, kind, dry_run=self.check)

    @property
    def _path(self) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}/daemonsets/{self.name}"


def _annotations(daemonset: Object) -> Mapping[str, str]:
    return daemonset["metadata"].get("annotations") or {}
