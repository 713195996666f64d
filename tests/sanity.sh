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

ansible-galaxy collection build --output-path "$apart"
export ANSIBLE_COLLECTIONS_PATH=$apart
# What Galaxy would bring comes with the PyPI package ansible; ansible-test wants it beside ours.
site=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir "$apart/ansible_collections"
cp -r "$site/ansible_collections/kubernetes" "$apart/ansible_collections/"
# antsibull-docs takes the one whose path sorts first. Be that the original, which this git ignores,
# it must not take that for a part of a repository, of which it would copy nothing.
export GIT_CEILING_DIRECTORIES=$checkout
ansible-galaxy collection install --offline -p "$apart" "$apart"/*.tar.gz

# Finds our modules and roles where they are installed.
ansible-lint

cd "$apart/ansible_collections/dataplane/calico_bpf"

echo 'ansible-doc: all there is is listed and renders'
written() {
    (cd "$checkout" && "$@" -printf 'dataplane.calico_bpf.%f\n') | sed -E 's/\.(py|yml)$//' | sort
}
listed() {
    ansible-doc -t "$1" --list --json dataplane.calico_bpf |
        python -c 'import json, sys; print(*sorted(json.load(sys.stdin)), sep="\n")'
}
diff <(written find plugins/modules -name '*.py') <(listed module)
diff <(written find plugins/filter -name '*.yml') <(listed filter)
diff <(written find roles -mindepth 1 -maxdepth 1) <(listed role)
for kind in module filter role; do
    listed "$kind" | xargs ansible-doc -t "$kind" >/dev/null
done
for playbook in "$checkout"/playbooks/*.yml; do
    ansible-playbook --syntax-check -i localhost, "dataplane.calico_bpf.$(basename "$playbook" .yml)"
done

# With kubernetes.core, some of whose documentation is in ours.
antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs dependent .

# ansible-test fetches this script to put pip into its environments; the one of the standard
# library does as well, and also where the network has nothing but a package index.
get_pip=~/.ansible/test/cache/get_pip_24_2.py
if [[ ! -e $get_pip ]]; then
    mkdir -p "${get_pip%/*}"
    printf 'import ensurepip\n\nensurepip.bootstrap(default_pip=True)\n' >"$get_pip"
fi
python=$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ansible-test sanity --python "$python" --color no
