# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tree of files: short files, folders that hold only tests, and who imports what of tests/."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
MAX_LINES = 500
#: Folders of tests/ that hold tests and nothing else.
OF_TESTS = ("unit", "integration", "system")
#: Folders of tests/ with programs, which import tests/support.
PROGRAMS = ("bench", "demo")
_COLLECTION = ("ansible_collections", "dataplane", "calico_bpf")


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (CHECKOUT / folder).rglob("*.py"))


def imports_of_tests(path: Path) -> set[str]:
    """The first name below tests/ in each import of a file, such as ``support``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(CHECKOUT).parts[: -node.level] if node.level else ()
            base = [*_COLLECTION, *package] if node.level else []
            base += node.module.split(".") if node.module else []
            names = [[*base, alias.name] for alias in node.names]
        else:
            continue
        found |= {n[4] for n in names if tuple(n[:4]) == (*_COLLECTION, "tests") and n[4:]}
    return found


def importers(folders: tuple[str, ...], imported: tuple[str, ...]) -> list[str]:
    """The files in folders of the checkout that import one of these folders of tests/."""
    files = python_files(*folders)
    assert files
    return [
        str(path.relative_to(CHECKOUT))
        for path in files
        if not imports_of_tests(path).isdisjoint(imported)
    ]


def test_no_python_file_is_long() -> None:
    # Hidden folders hold tools and what is built.
    folders = [p.name for p in CHECKOUT.iterdir() if p.is_dir() and not p.name.startswith(".")]
    lines = {path: len(path.read_text().splitlines()) for path in python_files(*folders)}
    assert {str(path): count for path, count in lines.items() if count > MAX_LINES} == {}


@pytest.mark.parametrize("folder", OF_TESTS)
def test_a_folder_of_tests_holds_only_tests(folder: str) -> None:
    files = [p for p in (CHECKOUT / "tests" / folder).rglob("*") if p.is_file()]
    others = [
        str(path.relative_to(CHECKOUT))
        for path in files
        if "__pycache__" not in path.parts
        if path.name != "conftest.py" and not path.match("test_*.py")
    ]
    assert files
    assert others == []


def test_a_test_is_not_imported() -> None:
    assert importers(("plugins", "tests/support"), (*OF_TESTS, "conftest")) == []


def test_support_does_not_import_the_programs() -> None:
    assert importers(("tests/support",), PROGRAMS) == []


def test_imports_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "CHECKOUT", tmp_path)
    path = tmp_path / "plugins/modules/some.py"
    path.parent.mkdir(parents=True)
    whole = ".".join(_COLLECTION)
    path.write_text(
        f"import {whole}.tests.unit.test_a\nfrom {whole}.tests import conftest\n"
        f"from {whole}.tests.system.lab.test_b import c\nfrom ...tests.demo import stage\n"
        f"from {whole}.plugins.module_utils import model\nfrom ..module_utils import errors\n"
    )
    assert imports_of_tests(path) == {"unit", "conftest", "system", "demo"}
