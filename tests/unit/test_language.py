# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules, roles, playbooks, their sources and the tests are in plain English."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
#: Words that the documentation of the kernel, Kubernetes and Ansible does not use.
CLUMSY = re.compile(
    r"\b(told|mends?|mended|anew|nobody|whoever|for\s+ever|goes\s+on|meanwhile|as\s+it\s+stands)\b",
    re.IGNORECASE,
)
#: Folders of plugins/module_utils.
CORE = ("calico", "endpoint", "felix", "kernel", "report", "rollout", "kube")
#: Files that quote these words.
QUOTING = {"tests/unit/test_documents.py", "tests/unit/test_language.py"}
#: Files in which "nobody" is the name of a user.
NOBODY = {
    "tests/support/kubernetes/control_plane.py",
    "tests/system/lab/contract/test_access.py",
    "tests/system/lab/test_control_plane.py",
    "tests/system/lab/test_refusals.py",
}
CHECKED = sorted(
    path
    for glob in (
        "plugins/modules/*.py",
        "plugins/doc_fragments/*.py",
        "plugins/filter/*",
        "plugins/action/*.py",
        "plugins/plugin_utils/*",
        "plugins/module_utils/*.py",
        *(f"plugins/module_utils/{folder}/*.py" for folder in CORE),
        "roles/**/*.yml",
        "playbooks/**/*.yml",
        "molecule/**/*.yml",
        "tests/*/**/*.py",
    )
    for path in CHECKOUT.glob(glob)
    if path.is_file() and str(path.relative_to(CHECKOUT)) not in QUOTING
)


@pytest.mark.parametrize("path", CHECKED, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_no_clumsy_words(path: Path) -> None:
    found = CLUMSY.findall(path.read_text())
    if str(path.relative_to(CHECKOUT)) in NOBODY:
        found = [word for word in found if word != "nobody"]
    assert found == []


def test_words_are_found_across_lines() -> None:
    text = "It goes\n  on for ever. Nobody mended it, and nobody was told."
    assert len(CLUMSY.findall(text)) == 6
