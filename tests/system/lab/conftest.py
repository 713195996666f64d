# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the tests that run on the embedded and on the real Kubernetes API."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.api import Kube
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.connection import connect
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.api import Api
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.embedded import EmbeddedApi
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.kubelet import Kubelet
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.serving import APIS, serving


@pytest.fixture(scope="session", params=APIS)
def served_api(request: pytest.FixtureRequest) -> Iterator[Api]:
    """One API of each kind for all tests: the real one takes seconds to start."""
    with serving(request.param) as served:
        yield served


@pytest.fixture(scope="session")
def either_api(served_api: Api) -> Api:
    if not served_api.has_controllers:
        pytest.skip("the kube-apiserver runs without a kube-controller-manager")
    return served_api


@pytest.fixture
def faulty(either_api: Api) -> EmbeddedApi:
    """The embedded API, which can inject failures."""
    if not isinstance(either_api, EmbeddedApi):
        pytest.skip("the real API cannot inject failures")
    return either_api


@pytest.fixture
def raw(either_api: Api) -> Client:
    return Client(either_api)


@pytest.fixture
def logged() -> list[str]:
    """The lines of progress."""
    return []


@pytest.fixture
def kube(
    either_api: Api, logged: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Kube:
    """The client of the actions; kubernetes.core's cache of an API is removed with the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return connect({"kubeconfig": str(either_api.kubeconfig)}, logged.append, patience=20)


@pytest.fixture
def space(raw: Client) -> Iterator[str]:
    """A namespace for this test only."""
    made = raw.do("POST", "/api/v1/namespaces", {"metadata": {"generateName": "kube-"}})
    name: str = made["metadata"]["name"]
    yield name
    raw.do("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
def one_node(either_api: Api, space: str) -> Iterator[Kubelet]:
    """One node for this test only, with the label test=<its namespace>."""
    with Kubelet(either_api, [f"{space}-node"], labels={"test": space}) as kubelet:
        yield kubelet
