# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of the annotations and the finalizer that the collection sets on objects of the cluster."""

from __future__ import annotations

_PREFIX = "dataplane.calico-bpf"
#: Keeps a pod that is being replaced until the kubelet reports that its containers have ended.
FINALIZER = f"{_PREFIX}/felix-must-be-gone"
#: On a Node: the run that cordoned it; the revision verified there; when that was.
CORDONED_BY = f"{_PREFIX}/cordoned-by"
VERIFIED = f"{_PREFIX}/verified"
UPGRADED_AT = f"{_PREFIX}/upgraded-at"
#: On the DaemonSet: its update strategy, as JSON, and its revision from before the rollout.
UPDATE_STRATEGY = f"{_PREFIX}/update-strategy"
FORMER_REVISION = f"{_PREFIX}/former-revision"
