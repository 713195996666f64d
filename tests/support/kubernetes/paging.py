# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages of a list: the request for a page, and the metadata of the rest.

As the real one has it (apiserver, storage/etcd3/store.go): a token names the revision at which the
list began and where the next page begins, and all pages are of that revision.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes import problems
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.problems import Problem
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.selectors import Match
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.store import (
    Key,
    Object,
    place,
)

_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start"
    " a new list without the continue parameter, or use the continue token in this response to"
    " retrieve the remainder of the results."
)


@dataclass(frozen=True)
class Page:
    """The requested page. The default is the whole list as it is now."""

    #: 0 for no limit.
    limit: int = 0
    #: None for now.
    revision: int | None = None
    #: The place of the last object of the page before.
    after: str = ""
    #: A page of a list without selectors says how many objects are left.
    counts: bool = True

    def of(
        self, held: Sequence[tuple[Key, Object]], match: Match, revision: int
    ) -> tuple[list[Object], Object]:
        """The objects of this page, and the list's metadata; ``held`` is in order."""
        left = [(key, each) for key, each in held if place(key) > self.after]
        found: list[Object] = []
        metadata: Object = {"resourceVersion": str(revision)}
        for number, (key, each) in enumerate(left, start=1):
            if match(each):
                found.append(each)
            if self.limit and len(found) == self.limit and number < len(left):
                metadata["continue"] = _token(revision, place(key))
                metadata |= {"remainingItemCount": len(left) - number} if self.counts else {}
                break
        return found, metadata

    def expired(self) -> Problem:
        """The answer for a compacted revision: with a token for the rest as it is now."""
        problem = problems.gone(_TOO_OLD)
        problem.status["metadata"] = {"continue": _token(None, self.after)}
        return problem


def read_page(query: Mapping[str, str]) -> Page:
    """:raises Problem: the token is invalid."""
    counts = not (query.get("labelSelector") or query.get("fieldSelector"))
    limit = int(query.get("limit") or 0)
    if not query.get("continue"):
        return Page(limit, counts=counts)
    try:
        token = json.loads(base64.urlsafe_b64decode(query["continue"]))
        return Page(limit, token["revision"], token["after"], counts)
    except (ValueError, KeyError) as error:
        raise problems.bad_request(f"continue key is not valid: {error}") from error


def _token(revision: int | None, after: str) -> str:
    return base64.urlsafe_b64encode(
        json.dumps({"revision": revision, "after": after}).encode()
    ).decode()
