#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Builds the documentation in .build/docs/html: the pages in Markdown, and a page for each module,
# filter and role.
set -euo pipefail
cd "$(dirname "$0")/../.."
checkout=$PWD
built=$checkout/.build/docs
pages=$built/pages

rm -rf "$built"
mkdir -p "$pages"/{collection,docs,molecule}

# antsibull-docs resolves symbolic links, and then needs kubernetes.core, whose options some modules
# share, in the same tree. The PyPI package ansible carries it.
tree=$built/collections
collection=$tree/ansible_collections/dataplane/calico_bpf
site=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir -p "$collection" "$tree/ansible_collections/kubernetes"
cp -r galaxy.yml meta plugins roles "$collection"
cp -r "$site/ansible_collections/kubernetes/core" "$tree/ansible_collections/kubernetes"
export ANSIBLE_COLLECTIONS_PATH=$tree PYTHONPATH=$tree
# Git ignores this tree, and antsibull-docs would copy nothing of what Git ignores.
export GIT_CEILING_DIRECTORIES=$checkout

antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs dependent "$collection"

# It refuses a directory that others may write to.
chmod go-w "$pages/collection"
antsibull-docs --config-file docs/site/antsibull-docs.cfg collection --fail-on-error --use-current \
    --squash-hierarchy --cleanup everything --dest-dir "$pages/collection" dataplane.calico_bpf

# It lists the environment variables of options, and there are none.
rm "$pages/collection/environment_variables.rst"

# At the same places as in the checkout, so that their links hold.
cp ./*.md COPYING docs/site/index.md "$pages"
cp docs/*.* "$pages/docs"
cp molecule/README.md "$pages/molecule"

sphinx-build --quiet --fail-on-warning --keep-going --builder html --conf-dir docs/site \
    --doctree-dir "$built/doctrees" "$pages" "$built/html"
echo "The documentation is $built/html/index.html"
