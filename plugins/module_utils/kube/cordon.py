# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cordoning a node, and uncordoning one that a rollout cordoned."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import Refusal
from .annotations import CORDONED_BY, UPGRADED_AT, VERIFIED
from .api import Object
from .session import Session


def cordon(session: Session, node: str, run: str, check: bool = False) -> bool:
    """Cordon ``node`` and note ``run`` on it; whether that changed anything.

    A node that is cordoned already gets no note, so that nothing of this collection uncordons it.

    :raises Refusal: there is no such node.
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
    """Uncordon ``node`` if a rollout cordoned it, and note the ``revision`` verified there.

    Whether anything changed, and whether it was uncordoned.

    :raises Refusal: there is no such node.
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
    """:raises Refusal: there is no such node."""
    found = session.kube.find(_path(node))
    if found is None:
        raise Refusal(
            f"The cluster has no node {node}. Nothing was changed. Set calico_bpf_node where the "
            "inventory's names are not the cluster's"
        )
    return found
