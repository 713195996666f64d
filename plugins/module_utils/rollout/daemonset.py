# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The DaemonSet during a rollout: OnDelete with the new template, then its own strategy again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import DataplaneError, Refusal
from ..kube.annotations import FORMER_REVISION, UPDATE_STRATEGY
from ..kube.api import Object
from ..kube.session import Session
from .cluster import saved_strategy

#: Seconds within which the controller has to observe the DaemonSet's last change.
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
        """Switch to OnDelete, then patch: neither replaces a pod.

        The former strategy and ``former_revision`` are saved in annotations once, so that a second
        run does not save OnDelete as the user's strategy.

        :raises Refusal: the DaemonSet does not exist.
        :raises DataplaneError: the patch failed; with ``on_delete`` in its facts after the switch.
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
        return {"changed": switch or patched, "on_delete": True}

    def restore(self) -> Object:
        """Restore the former update strategy once no pod has an older revision.

        Any other strategy than OnDelete would replace such pods at once.

        :raises Refusal: the DaemonSet does not exist, or its annotation does not hold a strategy.
        :raises DataplaneError: its controller does not observe its last change in time.
        """
        daemonset = self._observed()
        status = daemonset.get("status") or {}
        left = status.get("desiredNumberScheduled", 0) - status.get("updatedNumberScheduled", 0)
        saved = _annotations(daemonset).get(UPDATE_STRATEGY)
        restores = left <= 0 and saved is not None
        if restores:
            strategy = saved_strategy(str(self), str(saved))
            metadata = {"annotations": {UPDATE_STRATEGY: None}}
            self._patch({"metadata": metadata, "spec": {"updateStrategy": strategy}}, "merge")
        elif left > 0:
            self.session.log(
                f"{self} stays at OnDelete: {left} of its pods do not have the newest revision, "
                "and any other strategy would replace them at once. Upgrade the other nodes too: "
                "the run that upgrades the last one restores the strategy"
            )
        return {"changed": restores, "left": max(0, left)}

    def _switch(self, before: Object, former_revision: str) -> None:
        annotations = {
            UPDATE_STRATEGY: json.dumps(before["spec"].get("updateStrategy") or {}),
            FORMER_REVISION: former_revision,
        }
        strategy = {"type": "OnDelete", "rollingUpdate": None}
        self._patch(
            {"metadata": {"annotations": annotations}, "spec": {"updateStrategy": strategy}},
            "merge",
        )

    def _observed(self) -> Object:
        """The DaemonSet, once the counts in its status include its last change."""
        clock = self.session.clock
        until = clock.now() + _OBSERVED_WITHIN
        while True:
            self.session.renew_lease()
            daemonset = self._read()
            observed = (daemonset.get("status") or {}).get("observedGeneration", 0)
            if observed >= daemonset["metadata"].get("generation", 0):
                return daemonset
            if clock.now() >= until:
                raise DataplaneError(
                    f"{self}: its controller has not observed its last change within "
                    f"{_OBSERVED_WITHIN:.0f} s. Check kube-controller-manager, then rerun"
                )
            clock.sleep(_POLL)

    def _read(self) -> Object:
        daemonset = self.session.kube.find(self._path)
        if daemonset is None:
            raise Refusal(f"there is no {self}; nothing was changed")
        return daemonset

    def _patch(self, body: Mapping[str, Any], kind: str) -> Object:
        self.session.renew_lease()
        return self.session.kube.patch(self._path, body, kind, dry_run=self.check)

    @property
    def _path(self) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}/daemonsets/{self.name}"


def _annotations(daemonset: Object) -> Mapping[str, str]:
    return daemonset["metadata"].get("annotations") or {}
