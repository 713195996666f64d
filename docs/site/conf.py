# SPDX-License-Identifier: GPL-3.0-or-later
"""Sphinx's settings for the pages that build.sh collects."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from docutils import nodes

if TYPE_CHECKING:
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "dataplane.calico_bpf"
author = "the dataplane.calico_bpf contributors"
copyright = f"2026, {author}"

extensions = ["myst_parser", "sphinx_antsibull_ext", "sphinxcontrib.mermaid"]

# A heading has the anchor that GitHub gives it.
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]

html_theme = "sphinx_ansible_theme"
html_title = project
html_show_sphinx = False
html_copy_source = False
html_use_modindex = False
pygments_style = "ansible"
highlight_language = "text"

_ANSIBLE = "https://docs.ansible.com/ansible/latest"
#: Labels of Ansible's own documentation. Intersphinx would download its inventory at each build.
_PAGES = {
    "action_plugins": "plugins/action",
    "common_return_values": "reference_appendices/common_return_values",
}
_PLUGIN = re.compile(r"ansible_collections\.(\w+)\.(\w+)\.(\w+_\w+)")


def link_to_ansible(
    _app: Sphinx, _env: BuildEnvironment, reference: pending_xref, content: nodes.Node
) -> nodes.reference | None:
    """Resolve a label that Ansible's documentation defines; any other stays an error."""
    target = reference["reftarget"]
    page = _PAGES.get(target)
    if plugin := _PLUGIN.fullmatch(target):
        page = "collections/{}/{}/{}".format(*plugin.groups())
    if page is None or target.startswith("ansible_collections.dataplane."):
        return None
    return nodes.reference("", "", content, internal=False, refuri=f"{_ANSIBLE}/{page}.html")


def setup(app: Sphinx) -> None:
    app.connect("missing-reference", link_to_ansible)
