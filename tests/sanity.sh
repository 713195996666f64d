#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Checks what ships: builds the collection, installs it apart and tests the installed tree.
set -euo pipefail
cd "$(dirname "$0")/.."
checkout=$PWD

# Outside the checkout, or ansible-test would ask this git for files it ignores.
apart=$(mktemp -d)
trap 'rm -rf "$apart"' EXIT
unset PYTHONPATH

antsibull-changelog lint
ansible-lint

ansible-galaxy collection build --output-path "$apart"
export ANSIBLE_COLLECTIONS_PATH=$apart
ansible-galaxy collection install --offline -p "$apart" "$apart"/*.tar.gz
cd "$apart/ansible_collections/dataplane/calico_bpf"

echo 'ansible-doc: every module is listed and renders'
listed=$(ansible-doc -t module -l dataplane.calico_bpf | awk '{ print $1 }' | sort)
written=$(find "$checkout/plugins/modules" -name '*.py' -printf 'dataplane.calico_bpf.%f\n' |
    sed 's/\.py$//' | sort)
diff <(echo "$written") <(echo "$listed")
for module in $listed; do
    ansible-doc -t module "$module" >/dev/null
done

antsibull-docs lint-collection-docs --plugin-docs .

# ansible-test fetches this script to put pip into its environments; the one of the standard
# library does as well, and also where the network has nothing but a package index.
get_pip=~/.ansible/test/cache/get_pip_24_2.py
if [[ ! -e $get_pip ]]; then
    mkdir -p "${get_pip%/*}"
    printf 'import ensurepip\n\nensurepip.bootstrap(default_pip=True)\n' >"$get_pip"
fi
python=$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ansible-test sanity --python "$python" --color no
