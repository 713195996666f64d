# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab requires of a Kubernetes API, checked on the embedded ones and the real one.

The official Python client asks where it can; raw HTTP shows what lies below it. A test that only
one of the two could pass does not belong here (test_embedded.py has the rest).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client as official
from kubernetes import config as official_config

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.api import Api
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.client import Client
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.kubelet import Kubelet


@pytest.fixture(scope="session")
def api(served_api: Api) -> Api:
    return served_api


@pytest.fixture(scope="module")
def raw(api: Api) -> Client:
    return Client(api)


@pytest.fixture(scope="module")
def http(api: Api) -> Iterator[official.ApiClient]:
    """The official client, from the kubeconfig."""
    make: Any = official_config.new_client_from_config
    with make(str(api.kubeconfig)) as made:
        yield made


# The official client takes plain objects too, but its types say otherwise: hence Any.


@pytest.fixture(scope="module")
def core(http: official.ApiClient) -> Any:
    return official.CoreV1Api(http)


@pytest.fixture(scope="module")
def apps(http: official.ApiClient) -> Any:
    return official.AppsV1Api(http)


@pytest.fixture(scope="module")
def leases(http: official.ApiClient) -> Any:
    return official.CoordinationV1Api(http)


@pytest.fixture
def namespace(core: Any) -> Iterator[str]:
    made = core.create_namespace({"metadata": {"generateName": "contract-"}})
    yield made.metadata.name
    core.delete_namespace(made.metadata.name)


@pytest.fixture
def kubelet(api: Api, namespace: str) -> Iterator[Kubelet]:
    """Three nodes of this test alone."""
    names = [f"{namespace}-{number}" for number in range(3)]
    with Kubelet(api, names, labels={"test": namespace}) as made:
        yield made


@pytest.fixture
def controllers(api: Api) -> None:
    if not api.has_controllers:
        pytest.skip("no kube-controller-manager beside the kube-apiserver")
