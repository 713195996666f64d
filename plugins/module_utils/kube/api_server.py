# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The name of a cluster and the address of its API server, for a report. Without credentials."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

#: Where kubectl and the Python client look without an option.
_DEFAULT = "~/.kube/config"


def describe(host: str, options: Mapping[str, Any]) -> dict[str, str]:
    """``server`` and ``cluster``; ``cluster`` is empty if no kubeconfig names that server."""
    return {"server": without_credentials(host), "cluster": _cluster_name(host, options)}


def without_credentials(url: str) -> str:
    """Scheme, host and port."""
    parts = urlsplit(url if "//" in url else f"//{url}")
    place = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{place}" if parts.scheme else place


def _cluster_name(host: str, options: Mapping[str, Any]) -> str:
    """The cluster of the context in use, if its server is ``host``: options may name another."""
    configs = list(_configs(options))
    context = options.get("context") or os.environ.get("K8S_AUTH_CONTEXT")
    context = context or next((c for each in configs if (c := each.get("current-context"))), None)
    for found in _named(configs, "contexts", "context", context):
        name = found.get("cluster")
        for cluster in _named(configs, "clusters", "cluster", name):
            if str(cluster.get("server")).rstrip("/") == host.rstrip("/"):
                return str(name)
    return ""


def _named(
    configs: list[Mapping[str, Any]], plural: str, kind: str, name: Any
) -> Iterator[Mapping[str, Any]]:
    """The entries of a kubeconfig with this name."""
    for config in configs:
        for entry in config.get(plural) or ():
            if isinstance(entry, dict) and entry.get("name") == name:
                yield entry.get(kind) or {}


def _configs(options: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The kubeconfigs; one that cannot be read names no cluster, which is no error of the run."""
    import yaml

    given = options.get("kubeconfig") or os.environ.get("K8S_AUTH_KUBECONFIG")
    if isinstance(given, dict):
        yield given
        return
    for path in str(given or os.environ.get("KUBECONFIG") or _DEFAULT).split(os.pathsep):
        try:
            with open(os.path.expanduser(path), encoding="utf-8") as file:
                config = yaml.safe_load(file)
        except (OSError, ValueError, yaml.YAMLError):
            continue
        if isinstance(config, dict):
            yield config
