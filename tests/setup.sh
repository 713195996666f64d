#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Installs what the checks and tests need on Debian 12: packages, then the tools in .venv.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
    bpftool clang gcc git iproute2 libbpf-dev libbpf1 libc6-dev
    "linux-headers-$(dpkg --print-architecture)"
    make openssl procps python3-bpfcc python3-prometheus-client python3-pyroute2 python3-venv
    shellcheck
)

missing=()
for package in "${packages[@]}"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || true
    [[ $status == installed ]] || missing+=("$package")
done

if ((${#missing[@]})); then
    if ((EUID != 0)); then
        echo "setup: these packages are missing, install them as root: ${missing[*]}" >&2
        exit 1
    fi
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
fi

# Debian's own Python: another one first on PATH may be of a version the pins do not fit.
[[ -x .venv/bin/pip ]] || /usr/bin/python3 -m venv .venv
.venv/bin/pip install -q --disable-pip-version-check -r requirements-dev.txt
