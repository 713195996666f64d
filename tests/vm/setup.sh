#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Installs what virtual nodes need on Debian 12, beside what tests/setup.sh does.
set -euo pipefail

packages=(e2fsprogs mmdebstrap openssh-client qemu-system-x86 qemu-utils util-linux)

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
