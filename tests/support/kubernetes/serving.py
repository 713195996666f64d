# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Kubernetes APIs that tests are parametrized with, by name."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

import pytest

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.api import Api
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.control_plane import (
    NOT_FOUND,
    control_plane,
    find,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.embedded import embedded_api
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.releases import (
    CURRENT,
    OLDER,
)

#: The embedded API as a current Kubernetes release and as an older one, and the real API.
APIS = ("embedded", "older", "real")
#: A pod that has ended is replaced at once by the first, and by the second once it has left the
#: API: the real one that the tests build is of an older release.
BOTH = ("embedded", "real")
_EMBEDDED = {"embedded": CURRENT, "older": OLDER}


def serving(name: str) -> AbstractContextManager[Api]:
    """One of ``APIS``. If the real API is not available, the test is skipped; in CI it fails."""
    if name != "real":
        return embedded_api(_EMBEDDED[name])
    if find() is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing(NOT_FOUND)
    return control_plane()
