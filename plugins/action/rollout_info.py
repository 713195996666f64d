# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the cluster and checks whether a run may start; documented in its module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kube.connection import (
    AUTH,
    api_server,
    connect,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout import (
    preflight,
    serialize,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.cluster import (
    RolloutMode,
    RolloutSpec,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.rollout.read_cluster import (
    missing_permissions,
    read_cluster,
)
from ansible_collections.dataplane.calico_bpf.plugins.plugin_utils.controller_action import (
    ControllerAction,
)


class ActionModule(ControllerAction):
    SPEC: Mapping[str, Any] = {
        "argument_spec": {
            **AUTH,
            "namespace": {"type": "str", "default": "kube-system"},
            "daemonset": {"type": "str", "default": "calico-node"},
            "mode": {"type": "str", "choices": ["upgrade", "rollback"], "default": "upgrade"},
            "version": {"type": "str"},
            "manifest": {"type": "list", "elements": "dict"},
            "image_repository": {"type": "str"},
            "nodes": {"type": "list", "elements": "str", "default": []},
            "overrides": {"type": "list", "elements": "str", "default": []},
            "node_duration": {"type": "int", "default": 0},
            "lease_namespace": {"type": "str", "default": "kube-system"},
            "batches": {"type": "list", "elements": "raw", "default": []},
        },
        "mutually_exclusive": [("version", "manifest"), ("manifest", "image_repository")],
        "required_if": [("mode", "upgrade", ("version", "manifest"), True)],
    }

    def act(self, options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        preflight.check_overrides(options["overrides"])
        spec = _spec(options)
        kube = connect(options, self.show)
        missing = missing_permissions(kube, spec)
        if missing:
            result = serialize.forbidden(missing)
        else:
            cluster = read_cluster(kube, spec)
            judged = preflight.judge(spec, cluster)
            result = serialize.preflight(judged, cluster, spec, options["node_duration"])
        return {**result, "api": api_server(options)}


def _spec(options: Mapping[str, Any]) -> RolloutSpec:
    mode = RolloutMode(options["mode"])
    upgrade = mode is RolloutMode.UPGRADE
    return RolloutSpec(
        namespace=options["namespace"],
        daemonset=options["daemonset"],
        mode=mode,
        version=options["version"] if upgrade else None,
        manifest=options["manifest"] if upgrade else None,
        image_repository=options["image_repository"],
        nodes=tuple(options["nodes"]),
        overrides=frozenset(options["overrides"]),
        lease_namespace=options["lease_namespace"],
        batches=tuple(options["batches"]) if upgrade else (),
    )
