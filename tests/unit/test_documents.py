# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documents name exists: files that they link, commands, modules, roles and variables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for glob in ("*.md", "docs/*.md", "roles/*/README.md", "molecule/README.md")
    for path in CHECKOUT.glob(glob)
)
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
_FENCED = re.compile(r"^```.*?^```", re.M | re.S)
_CODE = re.compile(r"^ {4}.*$|`[^`\n]+`", re.M)
documents = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(CHECKOUT))
)


def code_of(document: Path) -> str:
    """What is code in a document: indented lines and what is in backquotes, without diagrams."""
    return "\n".join(_CODE.findall(_FENCED.sub("", document.read_text())))


@documents
def test_links_lead_to_files(document: Path) -> None:
    missing = [
        link
        for link in _LINK.findall(document.read_text())
        if not (document.parent / link).exists()
    ]
    assert not missing


@documents
def test_make_has_the_targets(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", code_of(document)))
    assert named <= targets


@documents
def test_the_collection_has_what_is_called(document: Path) -> None:
    folders = ("plugins/modules", "plugins/filter", "playbooks", "roles")
    here = {path.stem for folder in folders for path in (CHECKOUT / folder).iterdir()}
    called = re.findall(r"\bdataplane\.calico_bpf\.([a-z_]+)", code_of(document))
    groups = {"rollout"}  # an action group
    assert set(called) <= here | groups


@documents
def test_variables_are_read_somewhere(document: Path) -> None:
    read = "\n".join(
        path.read_text()
        for glob in ("playbooks/**/*.yml", "roles/**/*.yml", "molecule/**/*.yml")
        for path in CHECKOUT.glob(glob)
    )
    named = set(re.findall(r"\bcalico_bpf_[a-z_]+", code_of(document)))
    assert {name for name in named if not re.search(rf"\b{name}\b", read)} == set()


def test_every_document_is_linked_from_the_readme() -> None:
    linked = {
        (CHECKOUT / link).resolve() for link in _LINK.findall((CHECKOUT / "README.md").read_text())
    }
    top = {path for path in DOCUMENTS if path.parent in (CHECKOUT, CHECKOUT / "docs")}
    assert top - linked == {CHECKOUT / "README.md"}


def test_the_readme_is_short() -> None:
    assert len((CHECKOUT / "README.md").read_text().splitlines()) <= 120
