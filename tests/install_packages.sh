#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Installs those of the named packages of Debian that are missing: install_packages.sh PACKAGE ...
set -euo pipefail

missing=()
for package; do
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
