# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The three kinds of patch. None of them changes its arguments."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.problems import (
    Problem,
    bad_request,
)

#: Lists that strategic merge merges by the key of their items; every other list is replaced.
_KEYS = {
    "addresses": "type",
    "conditions": "type",
    "containers": "name",
    "env": "name",
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ownerReferences": "uid",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
#: Lists of plain values that strategic merge adds to.
_SETS = ("finalizers",)
_DELETE_VALUES = "$deleteFromPrimitiveList/"


def merge(value: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7386)."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    made = dict(value) if isinstance(value, Mapping) else {}
    for key, wanted in patch.items():
        if wanted is None:
            made.pop(key, None)
        else:
            made[key] = merge(made.get(key), wanted)
    return made


def strategic(value: Any, patch: Any) -> Any:
    """Strategic merge patch, for the lists in ``_KEYS`` and ``_SETS`` and ``$patch``."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    made = dict(value) if isinstance(value, Mapping) else {}
    if patch.get("$patch") == "replace":
        made = {}
    if "$retainKeys" in patch:
        made = {key: held for key, held in made.items() if key in patch["$retainKeys"]}
    for key, wanted in patch.items():
        if key.startswith(_DELETE_VALUES):
            field = key[len(_DELETE_VALUES) :]
            made[field] = [held for held in made.get(field) or () if held not in wanted]
        elif key.startswith("$"):
            continue
        elif wanted is None or _deleted(wanted):
            made.pop(key, None)
        else:
            made[key] = _strategic_field(key, made.get(key), wanted)
    return made


def _strategic_field(field: str, value: Any, wanted: Any) -> Any:
    if isinstance(wanted, list) and field in _SETS:
        return [*(value or ()), *(item for item in wanted if item not in (value or ()))]
    if isinstance(wanted, list) and field in _KEYS:
        return _strategic_list(_KEYS[field], value or [], wanted)
    return strategic(value, wanted)


def _strategic_list(key: str, items: list[Any], wanted: list[Any]) -> list[Any]:
    if any(item.get("$patch") == "replace" for item in wanted):
        items, wanted = [], [item for item in wanted if "$patch" not in item]
    made = {item.get(key): item for item in items}
    for item in wanted:
        if _deleted(item):
            made.pop(item.get(key), None)
        else:
            made[item.get(key)] = strategic(made.get(item.get(key)), item)
    return list(made.values())


def _deleted(wanted: Any) -> bool:
    return isinstance(wanted, Mapping) and wanted.get("$patch") == "delete"


def json_patch(value: Any, operations: list[Mapping[str, Any]]) -> Any:
    """JSON patch (RFC 6902) with add, replace, remove and test."""
    made = copy.deepcopy(value)
    for operation in operations:
        try:
            _operate(made, operation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            why = f"{operation.get('op')} {operation.get('path')}: {error!r}"
            raise Problem(422, "Invalid", f"the server rejected our request: {why}") from error
    return made


def _operate(root: Any, operation: Mapping[str, Any]) -> None:
    steps = [s.replace("~1", "/").replace("~0", "~") for s in operation["path"].split("/")[1:]]
    for step in steps[:-1]:
        root = root[int(step)] if isinstance(root, list) else root[step]
    action, last = operation["op"], steps[-1]
    where: Any = last
    if isinstance(root, list):
        where = len(root) if last == "-" else int(last)
    present = None if action == "add" else root[where]
    if action == "add" and isinstance(root, list):
        root.insert(where, operation["value"])
    elif action == "add":
        root[where] = operation["value"]
    elif action == "test":
        if present != operation["value"]:
            raise ValueError("test failed")
    elif action == "remove":
        del root[where]
    elif action == "replace":
        root[where] = operation["value"]
    else:
        raise bad_request(f"json patch: {action} is not one of add, replace, remove, test")
