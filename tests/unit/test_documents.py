# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documents name exists, and their tables are complete.

A check takes the text of a document and returns what is wrong in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import yaml

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import Code
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.permissions import needed
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.settings import (
    INTERNAL,
    PREFIX,
    SETTINGS,
    Setting,
)

CHECKOUT = Path(__file__).resolve().parents[2]
README = CHECKOUT / "README.md"
CHANGELOG = CHECKOUT / "CHANGELOG.md"
DOCUMENTS = sorted(
    path
    for glob in ("*.md", "docs/*.md", "roles/*/README.md", "molecule/README.md")
    for path in CHECKOUT.glob(glob)
)
#: CHANGELOG.md is generated, and speaks of other releases too.
WRITTEN = [path for path in DOCUMENTS if path != CHANGELOG]
ROLES = sorted(path.name for path in (CHECKOUT / "roles").iterdir())

Check = Callable[[Path, str], "set[str]"]

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```", re.M | re.S)
_BLOCK = re.compile(r"^ {4}(?!\s*[-*|]).*$", re.M)
_SPAN = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"[\w.*-]+(?:/[\w.*-]+)*/?")
#: Where a document may leave out the beginning of a path.
_BASES = (
    ".", "plugins/module_utils", "plugins/module_utils/*", "playbooks", "molecule/vms",
    "roles/prerequisites",
)  # fmt: skip
_SUFFIXES = (".py", ".yml", ".sh", ".md", ".txt", ".toml", ".yaml", ".j2", ".c")
#: Files of users, of nodes and of runs.
_ELSEWHERE = {
    "upgrade.yml", "hosts.yml", "settings.yml", "calico-bpf.yaml", "calico-typha.yaml",
    "report.html", "report.json", "journal.jsonl", "get_pip.py",
}  # fmt: skip
_COMMANDS = {
    "ansible", "ansible-galaxy", "ansible-playbook", "apt-get", "dnf", "export", "make", "mkdir",
    "molecule", "pip",
}  # fmt: skip
#: Words that a reader has to read twice.
_CLUMSY = re.compile(
    r"\b(told|mends?|anew|nobody|whoever|whatever|for ever|goes on|meanwhile|as it stands)\b", re.I
)


def code_of(text: str) -> str:
    """Indented lines and what is in backquotes, without diagrams."""
    text = _FENCED.sub("", text)
    return "\n".join([*_BLOCK.findall(text), *_SPAN.findall(text)])


def prose_of(text: str) -> str:
    return _SPAN.sub("", _BLOCK.sub("", _FENCED.sub("", text)))


def anchors_of(text: str) -> set[str]:
    """Of the headings, by GitHub's rule."""
    headings = re.findall(r"^#+ (.*)$", _FENCED.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows_of(text: str) -> list[list[str]]:
    """The cells of all tables."""
    lines = re.findall(r"^\|(.*)\|$", text, re.M)
    return [[cell.strip() for cell in line.split("|")] for line in lines if "---" not in line]


def first_words(text: str) -> set[str]:
    """What the first cells of all tables have in backquotes."""
    return {word for row in rows_of(text) for word in _SPAN.findall(row[0])}


@cache
def read_by_users() -> str:
    """Where variables are read."""
    globs = ("playbooks/**/*.yml", "roles/**/*.yml", "molecule/**/*.yml")
    return "\n".join(path.read_text() for glob in globs for path in CHECKOUT.glob(glob))


@cache
def variables_of(role: str) -> set[str]:
    """Its options, and the facts that it sets."""
    folder = CHECKOUT / "roles" / role
    specs = yaml.safe_load((folder / "meta/argument_specs.yml").read_text())["argument_specs"]
    tasks = "\n".join(path.read_text() for path in folder.glob("tasks/*.yml"))
    facts = re.findall(rf"\b({role}_\w+):", tasks)
    return {*facts, *(name for entry in specs.values() for name in entry["options"])}


# --- the checks of one document ---------------------------------------------------------------


def broken_links(document: Path, text: str) -> set[str]:
    broken = set()
    for link in _LINK.findall(_FENCED.sub("", text)):
        path, _hash, anchor = link.partition("#")
        target = document.parent / path if path else document
        if "://" in link:
            continue
        if not target.exists() or (
            anchor and anchor not in anchors_of(text if not path else target.read_text())
        ):
            broken.add(link)
    return broken


def unknown_targets(_document: Path, text: str) -> set[str]:
    targets = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.M))
    return set(re.findall(r"\bmake ([a-z][a-z-]*)", code_of(text))) - targets


def unknown_plugins(_document: Path, text: str) -> set[str]:
    folders = ("plugins/modules", "plugins/filter", "playbooks", "roles")
    here = {path.stem for folder in folders for path in (CHECKOUT / folder).iterdir()}
    groups = set(yaml.safe_load((CHECKOUT / "meta/runtime.yml").read_text())["action_groups"])
    called = set(re.findall(r"\bdataplane\.calico_bpf\.([a-z_]+)", code_of(text)))
    return called - here - groups


def unknown_variables(_document: Path, text: str) -> set[str]:
    named = set(re.findall(r"\bcalico_bpf_[a-z_]+", code_of(text)))
    named -= {PREFIX + setting.name for setting in SETTINGS}
    return {name for name in named if not re.search(rf"\b{name}\b", read_by_users())}


def unknown_role_variables(_document: Path, text: str) -> set[str]:
    """A role's variable begins with its name; the longest name counts."""
    names = "|".join(sorted(ROLES, key=len, reverse=True))
    named = re.findall(rf"(?<![\w.])({names})_([a-z_]+)", code_of(text))
    return {f"{role}_{name}" for role, name in named if f"{role}_{name}" not in variables_of(role)}


def missing_files(_document: Path, text: str) -> set[str]:
    """Paths of the checkout: with a known suffix, or below a folder of it."""
    folders = {path.name for path in CHECKOUT.iterdir() if path.is_dir()} - {".build", ".venv"}
    spans = {span for span in _SPAN.findall(_FENCED.sub("", text)) if _PATH.fullmatch(span)}
    named = {
        span
        for span in spans
        if span.endswith(_SUFFIXES) or ("/" in span and span.split("/")[0] in folders)
    }
    return {name for name in named - _ELSEWHERE if not _exists(name)}


def _exists(name: str) -> bool:
    return any(any(CHECKOUT.glob(f"{base}/{name}")) for base in _BASES)


def unknown_scenarios(_document: Path, text: str) -> set[str]:
    here = {path.parent.name for path in CHECKOUT.glob("molecule/*/molecule.yml")}
    return set(re.findall(r"--scenario-name (\w+)", code_of(text))) - here


def unknown_commands(_document: Path, text: str) -> set[str]:
    """First words of shell commands in blocks; a block of YAML or of a log has none."""
    found = set()
    for block in re.findall(r"(?:^ {4}.*\n?)+", _FENCED.sub("", text), re.M):
        lines = re.sub(r"\\\n", " ", block).splitlines()
        words = [line.split()[0] for line in lines if not line.lstrip().startswith("#")]
        if any(word in _COMMANDS for word in words):
            found |= set(words) - _COMMANDS
    return found


def clumsy_words(_document: Path, text: str) -> set[str]:
    return set(_CLUMSY.findall(prose_of(text)))


CHECKS: list[tuple[Check, str]] = [
    (broken_links, "[a](missing.md) [b](#no-such-heading) [c](README.md#no-such-heading)"),
    (unknown_targets, "Run `make missing`."),
    (unknown_plugins, "    ansible-playbook dataplane.calico_bpf.missing"),
    (unknown_variables, "Set `calico_bpf_missing`."),
    (unknown_role_variables, "Set `drain_missing` and `qdisc_parity_missing`."),
    (missing_files, "See `missing.yml`, `docs/missing` and `endpoint/missing.py`."),
    (unknown_scenarios, "    molecule test --scenario-name missing"),
    (unknown_commands, "    make setup\n    missing --help"),
    (clumsy_words, "Nobody was told: mend it."),
]


@pytest.mark.parametrize("document", WRITTEN, ids=lambda path: str(path.relative_to(CHECKOUT)))
@pytest.mark.parametrize("check", [check for check, _bad in CHECKS], ids=lambda c: c.__name__)
def test_document(document: Path, check: Check) -> None:
    assert check(document, document.read_text()) == set()


@pytest.mark.parametrize(("check", "bad"), CHECKS, ids=lambda value: getattr(value, "__name__", ""))
def test_each_check_finds_all_that_is_wrong(check: Check, bad: str) -> None:
    wrong = len(re.findall(r"missing|no-such-heading|Nobody|told|mend", bad))
    assert len(check(README, bad)) == wrong


# --- what must be complete ----------------------------------------------------------------------


def test_every_document_is_linked_from_the_readme() -> None:
    linked = {(CHECKOUT / link).resolve() for link in _LINK.findall(README.read_text())}
    top = {path for path in DOCUMENTS if path.parent in (CHECKOUT, CHECKOUT / "docs")}
    assert top - linked == {README}


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 120


def test_the_picture_is_small() -> None:
    assert (CHECKOUT / "docs/report.png").stat().st_size < 200_000


def test_the_readme_lists_every_module_and_role() -> None:
    modules = {path.stem for path in (CHECKOUT / "plugins/modules").glob("*.py")}
    assert first_words(README.read_text()) == modules | set(ROLES)


def test_operations_lists_the_settings() -> None:
    operations = (CHECKOUT / "docs/operations.md").read_text()
    rows = re.findall(r"^\| `(calico_bpf_\w+)` \| (.*?) \| (.*) \|$", operations, re.M)
    assert rows == [(PREFIX + s.name, default_of(s), s.meaning) for s in SETTINGS]


def default_of(setting: Setting) -> str:
    if setting.default is None or setting.default == {}:
        return ""
    text = isinstance(setting.default, str)
    return f"`{setting.default if text else json.dumps(setting.default)}`"


def test_every_variable_of_the_playbooks_is_a_setting_or_their_own() -> None:
    files = [*CHECKOUT.glob("playbooks/**/*.yml"), *CHECKOUT.glob("roles/**/*.yml")]
    text = "\n".join(path.read_text() for path in files)
    named = set(re.findall(r"(?<!dataplane\.)(?<!group/dataplane\.)\bcalico_bpf_\w+", text))
    set_by_them = set(re.findall(r"^\s+(?:register: )?(calico_bpf_\w+)(?::|$)", text, re.M))
    artifacts = {
        "calico_bpf_audit",
        "calico_bpf_repair",
        "calico_bpf_rollout",
        "calico_bpf_rollback",
    }
    assert named - artifacts <= INTERNAL | {PREFIX + setting.name for setting in SETTINGS}
    assert INTERNAL - {"calico_bpf_settings"} == set_by_them - artifacts


def test_every_finding_is_explained() -> None:
    explained = first_words((CHECKOUT / "docs/findings.md").read_text())
    assert {code.value for code in Code} <= explained


def test_the_permissions_are_those_that_the_preflight_asks_for() -> None:
    where = {"cluster": "", "namespace": "kube-system"}
    rows = rows_of((CHECKOUT / "docs/security.md").read_text())
    listed = {
        (verb, resource, group, where[place])
        for verbs, resource, group, place, *_why in (row for row in rows if len(row) == 5)
        if place in where
        for verb in verbs.split()
    }
    asked = needed("kube-system", "kube-system")
    assert listed == {(p.verb, p.resource, p.group, p.namespace) for p in asked}


def test_the_changelog_has_every_fragment() -> None:
    changelog = " ".join(CHANGELOG.read_text().replace("\\", "").split())
    fragments = sorted(CHECKOUT.glob("changelogs/fragments/*.y*ml"))
    entries = [
        entry
        for path in fragments
        for texts in yaml.safe_load(path.read_text()).values()
        for entry in ([texts] if isinstance(texts, str) else texts)
    ]
    assert [entry for entry in entries if " ".join(entry.split()) not in changelog] == []
