# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cordons a node, and uncordons a node that a rollout cordoned."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import Refusal
from .annotations import CORDONED_BY, UPGRADED_AT, VERIFIED
from .api import Object
from .session import Session


def cordon(session: Session, node: str, run: str, check: bool = False) -> bool:
    """Cordon ``node`` and annotate it with ``run``; whether that changed anything.

    A node that is already cordoned is not annotated, so that this collection does not uncordon it.

    :raises Refusal: the node does not exist.
    """
    if (_read(session, node).get("spec") or {}).get("unschedulable"):
        return False
    if not check:
        body = {"metadata": {"annotations": {CORDONED_BY: run}}, "spec": {"unschedulable": True}}
        session.kube.patch(_path(node), body)
    return True


def uncordon(
    session: Session, node: str, revision: str = "", check: bool = False
) -> tuple[bool, bool]:
    """Uncordon ``node`` if a rollout cordoned it, and annotate it with the verified ``revision``.

    Whether anything changed, and whether it was uncordoned.

    :raises Refusal: the node does not exist.
    """
    metadata = _read(session, node)["metadata"]
    cordoned = CORDONED_BY in (metadata.get("annotations") or {})
    verified = {VERIFIED: revision, UPGRADED_AT: session.clock.stamp()} if revision else {}
    body: Object = {"metadata": {"annotations": verified}}
    if cordoned:
        body["metadata"]["annotations"][CORDONED_BY] = None
        body["spec"] = {"unschedulable": None}
    changes = cordoned or bool(revision)
    if changes and not check:
        session.kube.patch(_path(node), body)
    return changes, cordoned


def _path(node: str) -> str:
    return f"/api/v1/nodes/{node}"


def _read(session: Session, node: str) -> Mapping[str, Object]:
    """:raises Refusal: the node does not exist."""
    found = session.kube.find(_path(node))
    if found is None:
        raise Refusal(
            f"there is no node {node} in the cluster; nothing was changed. Set calico_bpf_node if "
            "the inventory uses other names than the cluster"
        )
    return found
