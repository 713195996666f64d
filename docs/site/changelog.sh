#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Writes CHANGELOG.md from the fragments. antsibull-changelog renders releases only, so the version of
# galaxy.yml is released in a copy, unless changelogs/changelog.yaml has it already.
set -euo pipefail
cd "$(dirname "$0")/../.."
checkout=$PWD
version=$(sed -n 's/^version: //p' galaxy.yml)

if grep -q "^  $version:" changelogs/changelog.yaml; then
    exec antsibull-changelog generate
fi

tree=$checkout/.build/changelog
copy=$tree/ansible_collections/dataplane/calico_bpf
rm -rf "$tree"
mkdir -p "$copy"
cp -r galaxy.yml changelogs meta plugins roles "$copy"
cd "$copy"
export ANSIBLE_COLLECTIONS_PATH=$tree PYTHONPATH=$tree
antsibull-changelog release --reload-plugins
# Its Markdown escapes punctuation.
sed "s/^## v${version//./\\\\.}\$/& (unreleased)/" CHANGELOG.md >"$checkout/CHANGELOG.md"
