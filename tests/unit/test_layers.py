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
#: What each layer of the core may import besides itself; the files at the top are words for all.
LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "model": set(),
    "visible": set(),
    "module": {"errors", "model", "visible"},
    "calico": {"errors", "model"},
    "kernel": {"errors", "model"},
    "kube": {"errors"},
    "report": {"errors", "visible"},
    "endpoint": {"kernel", "calico", "model", "errors"},
    "felix": {"kernel", "calico", "model", "errors"},
    "rollout": {"kube", "calico", "errors"},
}
#: Folders and files that do no I/O; the standard library's modules for that are unknown to them.
PURE = (
    "errors.py", "model.py", "visible.py", "calico/*.py", "report/*.py", "kube/annotations.py",
    "kube/pdb.py", "kube/pods.py", "kernel/preamble.py",
    "endpoint/kernel_rules.py", "endpoint/outlook.py", "endpoint/findings.py", "endpoint/plan.py",
    "endpoint/plan_search.py",
    "endpoint/judge.py", "endpoint/shared_block.py",
    "felix/log.py", "felix/health.py", "felix/metrics.py", "felix/churn.py",
    "rollout/cluster.py", "rollout/preflight.py", "rollout/permissions.py",
    "rollout/maintenance_window.py", "rollout/node_checks.py", "rollout/room.py",
    "rollout/endpoint_outline.py", "rollout/settings.py", "rollout/setting_kinds.py",
    "rollout/serialize.py",
)  # fmt: skip
#: A journal is a file, and an error has the words of errno (os.strerror).
USE_STDLIB_IO = {"report/journal.py", "errors.py"}
IMPURE_STDLIB = {
    "os", "socket", "ctypes", "time", "fcntl", "select", "pathlib", "io", "shutil",
    "http", "urllib",
}  # fmt: skip
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


def core_files(*globs: str) -> list[Path]:
    return sorted(path for glob in globs for path in CORE.glob(glob) if path.name != "__init__.py")


def name_of(path: Path) -> str:
    return str(path.relative_to(CORE))


def layer_of(path: Path) -> str:
    return path.relative_to(CORE).with_suffix("").parts[0]


def layers_imported(path: Path) -> set[str]:
    """The layers of the core that a file imports, by its relative imports."""
    package = path.relative_to(CORE).parts[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) + 1 - node.level], *(node.module or "").split(".")]
            named = [part for part in base if part]
            found |= {named[0]} if named else {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", core_files("**/*.py"), ids=name_of)
def test_each_layer_imports_only_those_below_it(path: Path) -> None:
    layer = layer_of(path)
    assert layers_imported(path) <= LAYERS[layer] | {layer}


def test_the_layers_have_no_cycle() -> None:
    below: dict[str, set[str]] = {}
    while len(below) < len(LAYERS):
        ready = {layer for layer, uses in LAYERS.items() if uses <= below.keys()} - below.keys()
        assert ready, f"a cycle among {sorted(LAYERS.keys() - below.keys())}"
        below |= {layer: LAYERS[layer] for layer in ready}


@pytest.mark.parametrize("path", core_files(*PURE), ids=name_of)
def test_pure_files_do_not_import_io(path: Path) -> None:
    for module in imports(path):
        top = module.split(".")[0]
        if top and name_of(path) not in USE_STDLIB_IO:
            assert top in sys.stdlib_module_names | {"__future__", "prometheus_client"}, module
            assert top not in IMPURE_STDLIB, module


@pytest.mark.parametrize("path", core_files(*PURE), ids=name_of)
def test_pure_files_import_only_pure_files(path: Path) -> None:
    pure = {name_of(file) for file in core_files(*PURE)}
    assert {file for file in files_imported(path) if file not in pure} == set()


def files_imported(path: Path) -> set[str]:
    """The files of the core that a file imports."""
    package = path.relative_to(CORE).parts[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = CORE.joinpath(*package[: len(package) + 1 - node.level])
            module = base.joinpath(*(node.module or "").split("."))
            named = [module, *(module / alias.name for alias in node.names)]
            found |= {name_of(f) for name in named if (f := name.with_suffix(".py")).exists()}
    return found


def outside_the_kernel() -> list[Path]:
    """Of what may talk to others, felix/ does so by the standard library's HTTP alone."""
    return [path for path in core_files("**/*.py") if layer_of(path) not in ("kernel", "kube")]


@pytest.mark.parametrize("path", outside_the_kernel(), ids=name_of)
def test_only_the_kernel_layer_opens_sockets_and_calls_bpf(path: Path) -> None:
    tops = {module.split(".")[0] for module in imports(path)}
    ansible = set() if name_of(path) == "module.py" else {"ansible"}
    assert tops.isdisjoint({"socket", "ctypes", "pyroute2", "bcc"} | ansible)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PLUGINS)))
def test_nothing_is_forked(path: Path) -> None:
    assert {module.split(".")[0] for module in imports(path)}.isdisjoint(FORKS)
    called = [n.func for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    names = {f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "") for f in called}
    assert not [name for name in names if name.startswith(FORKING_CALLS)]
    assert "subprocess" not in path.read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PLUGINS)))
def test_plugins_do_not_import_the_tests(path: Path) -> None:
    assert not [module for module in imports(path) if ".tests" in module]
