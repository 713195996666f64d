#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Installs what the checks and tests need on Debian 12: packages, then the tools in .venv.
set -euo pipefail
cd "$(dirname "$0")/.."

tests/install_packages.sh \
    bpftool clang gcc git iproute2 libbpf-dev libbpf1 libc6-dev \
    "linux-headers-$(dpkg --print-architecture)" \
    make openssl procps python3-bpfcc python3-prometheus-client python3-pyroute2 python3-venv \
    shellcheck

# Debian's own Python: another one first on PATH may be of a version the pins do not fit.
[[ -x .venv/bin/pip ]] || /usr/bin/python3 -m venv .venv
.venv/bin/pip install -q --disable-pip-version-check -r requirements-dev.txt
