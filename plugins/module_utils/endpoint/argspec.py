# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that several modules share, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..calico.versions import KNOWN, behaviour, parse
from ..errors import Refusal
from ..kernel.programs import ProgramSpec
from ..model import FIRST_AUTO_PRIORITY, AttachType, Behaviour, Hook, Policy
from .attach import Place

Spec = dict[str, Any]

#: How endpoints are judged and repaired; documented in the fragment ``judging``.
JUDGING: Spec = {
    "calico_version": {"type": "str", "default": "auto"},
    "attach_type": {"type": "str", "choices": ["auto", "tc", "tcx"], "default": "auto"},
    "settle": {"type": "float", "default": 1.0},
    "retries": {"type": "int", "default": 3},
}
#: Which program, and where: bpf_tc_program's own options, and bpf_endpoint's for each hook.
PROGRAM: Spec = {
    "object": {"type": "path"},
    "program": {"type": "str"},
    "pinned": {"type": "path"},
    "program_id": {"type": "int"},
    "source": {"type": "str"},
    "function": {"type": "str"},
    "priority": {"type": "int", "default": FIRST_AUTO_PRIORITY},
    "handle": {"type": "int"},
    "attach_type": {"type": "str", "choices": ["tc", "tcx"], "default": "tc"},
    "name": {"type": "str"},
    "pin": {"type": "path"},
}
PROGRAM_SOURCES = ("object", "pinned", "program_id", "source")
PROGRAM_REQUIRED_BY = {"program": ["object"], "source": ["function"], "function": ["source"]}


def policy(params: Mapping[str, Any]) -> Policy:
    """``calico_version`` auto judges by the strictest behaviour and keeps the others safe.

    The same applies to a release older than these behaviours. ``attach_type`` auto: the one in use.

    :raises Refusal: it is not known how that release re-attaches.
    """
    version, attach_type = params["calico_version"], params["attach_type"]
    release = None if version == "auto" else parse(version)
    if version != "auto" and not (release and release.known):
        raise Refusal(
            f"calico_version is {version!r}; known releases are {KNOWN} (final ones, such as "
            "v3.29.5), or auto; nothing was changed"
        )
    wanted = None if attach_type == "auto" else AttachType(attach_type)
    known = behaviour(release)
    if known is not None:
        return Policy(known, wanted)
    others = tuple(b for b in Behaviour if b is not Behaviour.ADD_THEN_DELETE)
    return Policy(Behaviour.ADD_THEN_DELETE, wanted, also_safe_for=others)


def program_spec(params: Mapping[str, Any]) -> ProgramSpec:
    names = ("object", "program", "pinned", "program_id", "source", "function")
    return ProgramSpec(**{name: params[name] for name in names})


def place(params: Mapping[str, Any], hook: Hook) -> Place:
    return Place(
        hook=hook,
        attach_type=AttachType(params["attach_type"]),
        priority=params["priority"],
        handle=params["handle"],
        name=params["name"],
        pin=params["pin"],
    )


def out_of_range(params: Mapping[str, Any]) -> str | None:
    """The error in a number that the argument spec does not check, or None."""
    if params.get("attach_type") == "tcx" and params.get("handle") is not None:
        return "handle is given, but TCX has no handles"
    limits = {"priority": (1, 0xFFFF), "handle": (1, 0x7FFFFFFF), "program_id": (1, 0x7FFFFFFF)}
    for option, (least, most) in limits.items():
        value = params.get(option)
        if value is not None and not least <= value <= most:
            return f"{option} is {value}; it must be from {least} to {most}"
    for option, most in {"settle": 600, "retries": 100, "max_endpoints": 1_000_000}.items():
        value = params.get(option)
        if value is not None and not 0 <= value <= most:
            return f"{option} is {value}; it must be from 0 to {most}"
    return None
