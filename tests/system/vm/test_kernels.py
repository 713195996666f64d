# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The core on the kernels of nodes: its integration tests, run on virtual ones.

The kernel's rules are what every judgement and every repair rests on.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.lab.run_folder import (
    remove_leftovers,
    run_folder,
)
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import (
    CHECKOUT,
    COMPILED,
    compile_programs,
)
from ansible_collections.dataplane.calico_bpf.tests.support.traffic.traffic import udp_binary
from ansible_collections.dataplane.calico_bpf.tests.support.vm.image import SERIES
from ansible_collections.dataplane.calico_bpf.tests.support.vm.vm import INSIDE, Vm
from ansible_collections.dataplane.calico_bpf.tests.support.vm.vm_nodes import vm_nodes

#: Those tests that need neither Ansible nor a compiler where they run.
SUITES = ("kernel_rules", "crash", "watchdog")
#: Of the sequences of random changes, which are many.
_LEFT_OUT = [f"integration/test_kernel_rules.py::test_random_changes[{n}]" for n in range(5, 20)]
_COLLECTION = "ansible_collections/dataplane/calico_bpf"
#: pytest and what it imports: pure Python, of the same version as the node's.
_PYTEST = ("_pytest", "iniconfig", "packaging", "pluggy", "py.py", "pygments", "pytest")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_core_on_each_kernel() -> None:
    with nodes() as made, ThreadPoolExecutor() as pool:
        results = dict(zip(SERIES, pool.map(run_suites, made), strict=True))
    for series, (release, output) in results.items():
        assert release.startswith(f"{series}.")
        assert " passed" in output


@contextmanager
def nodes() -> Iterator[list[Vm]]:
    """One bare machine of each kernel."""
    remove_leftovers()
    new_node = vm_nodes()["new_node"]
    with run_folder() as folder, ExitStack() as stack:
        (folder / "objects").mkdir()
        compile_programs(folder / "objects")
        udp_binary(folder / "objects")
        made = [new_node(f"worker-{number}", folder / f"worker-{number}") for number in (1, 2)]
        for node in made:
            stack.callback(node.kill)
            node.begin()
        for node in made:
            node.start()
        yield made


def run_suites(node: Vm) -> tuple[str, str]:
    """The kernel's release, and the output of pytest.

    :raises RuntimeError: a test failed, or none was found; with what pytest said.
    """
    parts = ("plugins", "tests/conftest.py", "tests/support", "tests/integration")
    ours = [f"{_COLLECTION}/{part}" for part in parts]
    node.copy_in(CHECKOUT / ".build/collections", INSIDE / "code", *ours)
    node.copy_in(Path(sysconfig.get_path("purelib")), INSIDE / "pytest", *_PYTEST)
    tests = f"{INSIDE}/code/{_COLLECTION}/tests"
    words = [
        "env", f"{COMPILED}={INSIDE}/objects", f"PYTHONPATH={INSIDE}/code:{INSIDE}/pytest",
        "python3", "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider",
        f"--rootdir={tests}", *(f"--deselect={each}" for each in _LEFT_OUT),
        *(f"{tests}/integration/test_{suite}.py" for suite in SUITES),
    ]  # fmt: skip
    return node.kernel_release, node.exec(*words)
