# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of the playbooks: the one list of the variables calico_bpf_*, and their check. Pure.

The documents and the survey questions have the same names, kinds, defaults and meanings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from ..errors import Refusal
from .setting_kinds import Kind, Wrong, parse

PREFIX = "calico_bpf_"
_MOST_SHOWN = 60
#: Tags that Ansible itself gives a meaning.
_EVERY_PLAYBOOK = ("all", "always", "tagged", "untagged")


@dataclass(frozen=True)
class Setting:
    name: str
    kind: Kind
    #: What playbooks use if it is not set, or set to an empty text; None: there is no value.
    default: Any
    meaning: str
    #: The least number, for seconds.
    least: int = 0
    #: Each host may have another value.
    per_host: bool = False


SETTINGS = (
    Setting(
        "version", Kind.VERSION, None,
        "the version to upgrade to, such as `v3.29.7`: the tag of Calico's images",
    ),
    Setting(
        "manifest", Kind.TEXT, None,
        "instead of a version, the path of a whole manifest to apply, see "
        "[installations](installs.md)",
    ),
    Setting(
        "image_repository", Kind.TEXT, None, "registry and path of the images; unchanged if not set"
    ),
    Setting("hosts", Kind.TEXT, "all", "pattern of the hosts; `--limit` narrows it further"),
    Setting(
        "node", Kind.TEXT, None,
        "(per host) the name of its node in the cluster; the host's name if not set",
        per_host=True,
    ),
    Setting("namespace", Kind.TEXT, "kube-system", "namespace of calico-node's DaemonSet"),
    Setting("daemonset", Kind.TEXT, "calico-node", "name of calico-node's DaemonSet"),
    Setting(
        "batches", Kind.BATCHES, [1, "10%", "25%"],
        "nodes at once (`serial`); the first batch are canaries",
    ),
    Setting(
        "soak", Kind.SECONDS, 120,
        "how long the canaries run before they are verified again; 0 for not at all",
    ),
    Setting(
        "window", Kind.WINDOW, {},
        "`start` and `end` (`\"22:00\"`, daily, or `\"2026-11-28 22:00\"`), `timezone` (UTC); "
        "any time if not set",
    ),
    Setting(
        "node_duration", Kind.SECONDS, None,
        "the time expected for one node, 900 s (repair: 60 s) if not set; a node that would exceed "
        "the window is not started",
        least=1,
    ),
    Setting("overrides", Kind.CODES, [], "codes of blockers and advisories to accept"),
    Setting(
        "report_dir", Kind.TEXT, "calico-bpf-report",
        "folder in which each run creates a folder for its report",
    ),
    Setting("lease_name", Kind.TEXT, "calico-bpf-rollout", "name of the Lease"),
    Setting(
        "lease_duration", Kind.SECONDS, 60,
        "duration of the Lease; a rerun after a kill waits for all of it",
        least=5,
    ),
    Setting(
        "calico_version", Kind.VERSION, "auto",
        "for audit and repair: the release that runs, see [findings](findings.md)",
    ),
    Setting("verify", Kind.BOOL, True, "for repair: watch Felix afterwards"),
    Setting(
        "fail_on_drift", Kind.BOOL, False,
        "for audit: fail on drift and on what could not be judged",
    ),
    Setting("audit_window", Kind.SECONDS, 0, "for audit: how long to watch Felix"),
    Setting(
        "jump_targets", Kind.BOOL, True,
        "check that what Calico's programs jump to is loaded; `false` for a release that this "
        "collection does not know",
    ),
    Setting(
        "max_endpoints", Kind.COUNT, 20,
        "how many endpoints of a node a result lists at most; `0` lists all",
    ),
    Setting(
        "allow_no_calico", Kind.BOOL, False,
        "for audit and repair: accept hosts without any trace of Calico's eBPF dataplane",
    ),
)  # fmt: skip

#: Variables that the playbooks set themselves.
INTERNAL = frozenset(
    PREFIX + name
    for name in (
        "begun", "between", "counts", "dirty_since", "endpoints", "failure", "felix", "finished",
        "given_back", "given_back_text", "in_node", "included", "kind", "lease", "left", "lost",
        "phase", "published", "reason", "repaired_at", "report", "reports", "run", "settings",
        "staged_by", "started",
    )
)  # fmt: skip

_BY_NAME = {PREFIX + setting.name: setting for setting in SETTINGS}


def check(given: Mapping[str, Any], raw: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The value of each setting, by its name without the prefix.

    :param given: the variables of one host, templated.
    :param raw: the variables of each host, as they are written.
    :raises Refusal: something is wrong; the text names all of it.
    """
    problems = [*_unknown(raw), *_different(raw)]
    values = {}
    for name, setting in _BY_NAME.items():
        try:
            values[setting.name] = _value(setting, given.get(name))
        except Wrong as wrong:
            problems.append(_explained(name, setting, given[name], wrong))
    if problems:
        raise Refusal(
            f"{'; '.join(problems)}. Nothing was started. docs/operations.md lists the settings"
        )
    return values


def _value(setting: Setting, given: Any) -> Any:
    if given is None or (isinstance(given, str) and not given.strip()):
        return setting.default
    value = parse(setting.kind, given)
    if setting.kind is Kind.SECONDS and value < setting.least:
        raise Wrong(f"it is less than {setting.least} s")
    return value


def _explained(name: str, setting: Setting, given: Any, wrong: Wrong) -> str:
    why = f" ({wrong})" if str(wrong) else ""
    return f"{name} is {_shown(given)}{why}; accepted: {setting.kind.value}"


def _unknown(raw: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name in sorted({name for variables in raw.values() for name in variables}):
        if name.startswith(PREFIX) and name not in _BY_NAME and name not in INTERNAL:
            near = get_close_matches(name, _BY_NAME, n=1)
            yield f"{name} is not a setting" + (f"; the nearest is {near[0]}" if near else "")


def _different(raw: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Settings of the whole run that differ between hosts: only one of them could be used."""
    for name, setting in _BY_NAME.items():
        if setting.per_host:
            continue
        values = [(host, variables.get(name)) for host, variables in raw.items()]
        unlike = next((other for other in values if other[1] != values[0][1]), None)
        if unlike:
            yield (
                f"{name} is {_shown(values[0][1])} for {values[0][0]} and {_shown(unlike[1])} for "
                f"{unlike[0]}; set it once for all hosts"
            )


def check_tags(given: Iterable[str], known: Iterable[str]) -> None:
    """Tags that no task has would run nothing, and end successfully.

    :raises Refusal: a tag of --tags is unknown.
    """
    known = list(known)
    wrong = [tag for tag in given if tag not in (*known, *_EVERY_PLAYBOOK)]
    if wrong:
        tags = f"the tags {', '.join(known)}" if known else "no tags"
        raise Refusal(f"{wrong[0]} is not a tag: this playbook has {tags}. Nothing was started")


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def required(values: Mapping[str, Any], names: Iterable[str]) -> None:
    """:raises Refusal: none of the settings ``names`` is set, or more than one is."""
    names = list(names)
    found = [name for name in names if values[name] is not None]
    if len(found) != 1:
        shown = " or ".join(PREFIX + name for name in names)
        what = "both are set" if found else "neither is set"
        raise Refusal(f"set {shown}: {what}. Nothing was started")
