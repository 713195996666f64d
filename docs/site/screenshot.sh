#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Takes the picture of a rollout's report that the README shows: docs/report.png.
set -euo pipefail
cd "$(dirname "$0")/../.."
report=$PWD/.build/report.html

tests/install_packages.sh chromium fonts-dejavu-core pngquant
python docs/site/report.py "$report"

# Chromium's own sandbox refuses root. The page is ours, and loads nothing.
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1100,765 \
    --screenshot="$PWD/.build/report.png" "file://$report" 2>/dev/null
pngquant --force --speed 1 --strip --output docs/report.png .build/report.png
ls -l docs/report.png
