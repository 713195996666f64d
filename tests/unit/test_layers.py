# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The layers, read from the sources: who may import what, and that nothing is forked."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
CORE = PLUGINS / "module_utils"
FILES = sorted(PLUGINS.rglob("*.py"))
#: No I/O: these know the standard library and what stands before them.
PURE = ["model", "classifier", "outlook", "findings", "plan", "parity"]
#: Readers of what Felix shows; who gets it for them does the I/O.
PURE_FELIX = ["log", "health", "metrics", "churn"]
IMPURE_STDLIB = {"os", "socket", "ctypes", "time", "fcntl", "select", "pathlib", "io", "shutil"}
FORKS = {"subprocess", "multiprocessing", "pty"}
FORKING_CALLS = ("fork", "system", "popen", "spawn", "exec", "posix_spawn", "run_command")


def imports(path: Path) -> set[str]:
    """Modules that a file imports; those of the collection with their leading dots."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            found |= {base + alias.name for alias in node.names} if not node.module else {base}
    return found


@pytest.mark.parametrize("name", PURE)
def test_the_pure_core_imports_nothing_that_does_io(name: str) -> None:
    known = {f".{other}" for other in PURE[: PURE.index(name)]}
    for module in imports(CORE / f"{name}.py") - known:
        top = module.split(".")[0]
        assert top in sys.stdlib_module_names | {"__future__"}, module
        assert top not in IMPURE_STDLIB, module


@pytest.mark.parametrize("name", PURE_FELIX)
def test_the_readers_of_felix_import_nothing_that_does_io(name: str) -> None:
    for module in imports(CORE / "felix" / f"{name}.py") - {"..errors"}:
        top = module.split(".")[0]
        assert top in sys.stdlib_module_names | {"__future__", "prometheus_client"}, module
        assert top not in IMPURE_STDLIB | {"http", "urllib"}, module


def outside_the_kernel() -> list[Path]:
    """Of what may talk to others, felix/ does so by the standard library's HTTP alone."""
    paths = [*CORE.glob("*.py"), *(CORE / "felix").glob("*.py")]
    return [path for path in paths if path.name != "__init__.py"]


@pytest.mark.parametrize("path", outside_the_kernel(), ids=lambda path: path.name)
def test_only_the_kernel_layer_opens_sockets_and_calls_bpf(path: Path) -> None:
    tops = {module.split(".")[0] for module in imports(path)}
    assert tops.isdisjoint({"socket", "ctypes", "pyroute2", "bcc", "ansible"})


@pytest.mark.parametrize("path", sorted((CORE / "kernel").glob("*.py")), ids=lambda p: p.name)
def test_the_kernel_layer_knows_only_words_and_errors(path: Path) -> None:
    above = {module for module in imports(path) if module.startswith("..")}
    assert above <= {"..model", "..errors"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PLUGINS)))
def test_nothing_is_forked(path: Path) -> None:
    assert {module.split(".")[0] for module in imports(path)}.isdisjoint(FORKS)
    called = [n.func for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    names = {f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "") for f in called}
    assert not [name for name in names if name.startswith(FORKING_CALLS)]
    assert "subprocess" not in path.read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PLUGINS)))
def test_the_tests_and_their_lab_are_unknown_to_what_ships(path: Path) -> None:
    assert not [module for module in imports(path) if ".tests" in module]
