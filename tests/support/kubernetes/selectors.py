# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Label and field selectors of queries and objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.problems import bad_request

Match = Callable[[Mapping[str, Any]], bool]

_SET = re.compile(r"(\S+)\s+(in|notin)\s+\(([^)]*)\)")
_EQUAL = re.compile(r"([^=!\s]+)\s*(==|=|!=)\s*(.*)")


def by_labels(query: str) -> Match:
    """A selector such as ``a=b,c!=d,e in (x,y),f,!g``."""
    terms = [_label_term(term.strip()) for term in re.split(r",(?![^(]*\))", query) if term]
    return lambda held: all(term(held["metadata"].get("labels") or {}) for term in terms)


def by_selector(selector: Mapping[str, Any] | None) -> Match:
    """A LabelSelector object. None selects nothing, an empty one everything."""
    if selector is None:
        return lambda held: False
    terms = [_wanted(k, "In", [v]) for k, v in (selector.get("matchLabels") or {}).items()]
    for each in selector.get("matchExpressions") or ():
        terms.append(_wanted(each["key"], each["operator"], each.get("values") or []))
    return lambda held: all(term(held["metadata"].get("labels") or {}) for term in terms)


def by_fields(query: str, known: Collection[str]) -> Match:
    """A selector such as ``spec.nodeName=a,status.phase!=Running``, of known fields only."""
    terms = [_field_term(term, known) for term in query.split(",") if term]
    return lambda held: all(term(held) for term in terms)


def _label_term(term: str) -> Match:
    if found := _SET.fullmatch(term):
        operator = {"in": "In", "notin": "NotIn"}[found[2]]
        return _wanted(found[1], operator, [value.strip() for value in found[3].split(",")])
    if found := _EQUAL.fullmatch(term):
        return _wanted(found[1], "NotIn" if found[2] == "!=" else "In", [found[3]])
    if term.startswith("!"):
        return _wanted(term[1:].strip(), "DoesNotExist", [])
    return _wanted(term, "Exists", [])


def _wanted(key: str, operator: str, values: Collection[str]) -> Match:
    checks: dict[str, Match] = {
        "In": lambda labels: labels.get(key) in values,
        "NotIn": lambda labels: labels.get(key) not in values,
        "Exists": lambda labels: key in labels,
        "DoesNotExist": lambda labels: key not in labels,
    }
    return checks[operator]


def _field_term(term: str, known: Collection[str]) -> Match:
    found = _EQUAL.fullmatch(term)
    if not found or found[1] not in known:
        raise bad_request(f"field label not supported: {found[1] if found else term}")
    path, equal, value = found[1].split("."), found[2] != "!=", found[3]
    return lambda held: (_at(held, path) == value) is equal


def _at(held: Mapping[str, Any], path: list[str]) -> str:
    value: Any = held
    for step in path:
        value = (value or {}).get(step)
    return str(value or "")
