# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users see in modules, roles and playbooks, the sources and tests, are plain English."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
#: The worst of what is not said by the documentation of the kernel, Kubernetes or Ansible.
CLUMSY = re.compile(
    r"\b(told|mends?|mended|anew|nobody|whoever|for\s+ever|goes\s+on|meanwhile|as\s+it\s+stands)\b",
    re.IGNORECASE,
)
#: Folders of plugins/module_utils of which messages, docstrings and names are checked alike.
CORE = ("calico", "endpoint", "felix", "kernel", "report", "rollout", "kube")
#: Files whose words are still to be checked.
LATER = {
    "tests/system/lab/test_refusals.py",
}
#: Files in which nobody is the name of a user.
NOBODY = {
    "tests/system/lab/contract/test_access.py",
    "tests/system/lab/test_control_plane.py",
}
SEEN = sorted(
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
        "tests/bench/**/*.py",
        "tests/system/**/*.py",
    )
    for path in CHECKOUT.glob(glob)
    if path.is_file() and str(path.relative_to(CHECKOUT)) not in LATER | NOBODY
)


@pytest.mark.parametrize("path", SEEN, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_no_clumsy_words(path: Path) -> None:
    assert CLUMSY.findall(path.read_text()) == []


def test_the_check_finds_them_across_lines() -> None:
    text = "It goes\n  on for ever. Nobody mended it, and nobody was told."
    assert len(CLUMSY.findall(text)) == 6
