# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cluster and the API server that a report names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.api_server import (
    describe,
    without_credentials,
)

SERVER = "https://api.prod.example:6443"


def config(current: str = "admin@prod") -> dict[str, Any]:
    return {
        "current-context": current,
        "contexts": [
            {"name": "admin@prod", "context": {"cluster": "prod", "user": "admin"}},
            {"name": "test", "context": {"cluster": "test", "user": "admin"}},
        ],
        "clusters": [
            {"name": "prod", "cluster": {"server": SERVER}},
            {"name": "test", "cluster": {"server": "https://test:6443"}},
        ],
        "users": [{"name": "admin", "user": {"token": "secret"}}],
    }


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("K8S_AUTH_KUBECONFIG", "K8S_AUTH_CONTEXT", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (SERVER, SERVER),
        ("https://anna:secret@api:6443/prefix?token=secret", "https://api:6443"),
        ("https://[2001:db8::1]:6443/", "https://[2001:db8::1]:6443"),
        ("api:6443", "api:6443"),
    ],
)
def test_an_address_has_no_credentials(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


def test_the_cluster_is_that_of_the_context_in_use(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(json.dumps(config()))
    for given in (config(), str(path)):
        assert describe(f"{SERVER}/", {"kubeconfig": given}) == {
            "server": SERVER,
            "cluster": "prod",
        }
    chosen = {"kubeconfig": config(), "context": "test"}
    assert describe("https://test:6443", chosen)["cluster"] == "test"


@pytest.mark.parametrize("name", ["K8S_AUTH_KUBECONFIG", "KUBECONFIG"])
def test_the_environment_names_the_kubeconfig(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").write_text(json.dumps(config()))
    monkeypatch.setenv(name, str(tmp_path / "one"))
    assert describe(SERVER, {})["cluster"] == "prod"


def test_a_kubeconfig_of_another_server_names_no_cluster(tmp_path: Path) -> None:
    """As with the option host, or inside a pod."""
    assert describe("https://10.0.0.1:443", {"kubeconfig": config()})["cluster"] == ""
    assert describe(SERVER, {"kubeconfig": config("gone")})["cluster"] == ""
    assert describe(SERVER, {"kubeconfig": str(tmp_path / "missing")})["cluster"] == ""
    (tmp_path / "broken").write_text("{")
    assert describe(SERVER, {"kubeconfig": str(tmp_path / "broken")})["cluster"] == ""
