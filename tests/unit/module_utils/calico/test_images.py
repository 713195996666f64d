# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images: which are Calico's, what they become, and the patches that say so."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.calico.images import (
    at_version,
    contains,
    environment,
    has_felix,
    image,
    images,
    images_patch,
    lost_digests,
    lost_suffixes,
    template_patch,
    version,
)


def template(node: str, cni: str = "calico/cni:v3.28.1", **others: str) -> dict[str, Any]:
    """A pod template of calico-node; ``others`` are more containers."""
    containers = [{"name": "calico-node", "image": node}]
    containers += [{"name": name, "image": text} for name, text in others.items()]
    init = [
        {"name": "upgrade-ipam", "image": cni},
        {"name": "install-cni", "image": cni},
        {"name": "mount-bpffs", "image": node},
        {"name": "wait", "image": "busybox:1.36"},
    ]
    return {"spec": {"initContainers": init, "containers": containers}}


PLAIN = template("calico/node:v3.28.1", sidecar="example/exporter:v3.28.1")


@pytest.mark.parametrize(
    ("text", "folder", "name", "tag", "digest"),
    [
        ("node", "", "node", None, None),
        ("calico/node:v3.28.1", "calico", "node", "v3.28.1", None),
        ("host:5000/calico/node", "host:5000/calico", "node", None, None),
        ("host:5000/calico/node:v1", "host:5000/calico", "node", "v1", None),
        ("calico/node@sha256:0a", "calico", "node", None, "sha256:0a"),
        ("calico/node:v1@sha256:0a", "calico", "node", "v1", "sha256:0a"),
    ],
)
def test_an_image_has_four_parts(
    text: str, folder: str, name: str, tag: str | None, digest: str | None
) -> None:
    found = image(text)
    assert (found.folder, found.name, found.tag, found.digest) == (folder, name, tag, digest)
    assert str(found) == text


def test_other_containers_keep_their_images() -> None:
    assert list(images(PLAIN)) == ["upgrade-ipam", "install-cni", "mount-bpffs", "calico-node"]
    assert at_version(PLAIN, "v3.29.5") == {
        "upgrade-ipam": "calico/cni:v3.29.5",
        "install-cni": "calico/cni:v3.29.5",
        "mount-bpffs": "calico/node:v3.29.5",
        "calico-node": "calico/node:v3.29.5",
    }


def test_a_mirror_is_known_by_its_neighbour_and_its_tag() -> None:
    mirrored = template("mirror/x/node:v3.28.1", "mirror/x/cni:v3.28.1", other="mirror/x/cni:v1.2")
    assert list(images(mirrored)) == ["upgrade-ipam", "install-cni", "mount-bpffs", "calico-node"]
    renamed = template("mirror/mirrored-calico-node:v3.28.1", "mirror/mirrored-calico-cni:v3.28.1")
    assert at_version(renamed, "v3.29.5")["install-cni"] == "mirror/mirrored-calico-cni:v3.29.5"


def test_another_place_and_a_digest_that_goes() -> None:
    pinned = template("calico/node:v3.28.1@sha256:0a")
    wanted = at_version(pinned, "v3.29.5", "mirror.example:5000/calico/")
    assert wanted["calico-node"] == "mirror.example:5000/calico/node:v3.29.5"
    assert wanted["install-cni"] == "mirror.example:5000/calico/cni:v3.29.5"


def test_a_version_follows_the_present_tag_in_its_v() -> None:
    assert at_version(PLAIN, "3.29.5")["calico-node"] == "calico/node:v3.29.5"
    bare = template("calico/node:3.28.1", "calico/cni:3.28.1")
    assert at_version(bare, "3.29.5")["calico-node"] == "calico/node:3.29.5"


def test_the_version_is_calico_nodes() -> None:
    assert version(PLAIN) == "v3.28.1"
    assert version(template("calico/node@sha256:0a")) is None
    assert version({"spec": {"containers": [{"name": "other", "image": "calico/node:v1"}]}}) is None
    assert not has_felix({})


def test_the_patch_names_nothing_but_images() -> None:
    patch = images_patch(PLAIN, at_version(PLAIN, "v3.29.5"))
    spec = patch["spec"]["template"]["spec"]
    assert spec["containers"] == [{"name": "calico-node", "image": "calico/node:v3.29.5"}]
    assert [container["name"] for container in spec["initContainers"]] == [
        "upgrade-ipam",
        "install-cni",
        "mount-bpffs",
    ]


def test_a_whole_template_is_replaced() -> None:
    patch = template_patch(PLAIN)
    assert patch["spec"]["template"]["$patch"] == "replace"
    assert patch["spec"]["template"]["spec"] == PLAIN["spec"]
    assert "$patch" not in PLAIN


@pytest.mark.parametrize(
    ("present", "wanted", "expected"),
    [
        ({"a": 1, "added": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 1}, {"a": 1, "b": {}}, True),  # the API leaves out what is empty
        ({"l": [{"n": "x", "added": 1}]}, {"l": [{"n": "x"}]}, True),
        ({"l": [{"n": "x"}, {"n": "y"}]}, {"l": [{"n": "x"}]}, False),
        ({"a": 1}, {"a": 1, "$patch": "replace"}, True),
        ({"a": "xy"}, {"a": ["x", "y"]}, False),
    ],
)
def test_values_that_the_api_adds_are_ignored(present: Any, wanted: Any, expected: bool) -> None:
    assert contains(present, wanted) is expected


def test_the_environment_is_calico_nodes() -> None:
    env = [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {}}, {"name": "C"}]
    containers: list[Any] = [{"name": "other", "env": [{"name": "A", "value": "2"}]}]
    containers += [{"name": "calico-node", "env": env}]
    assert environment({"spec": {"containers": containers}}) == {"A": "1", "B": None, "C": ""}
    assert environment({}) == {}


@pytest.mark.parametrize(
    ("node", "version", "lost"),
    [
        ("k0s/node:v3.29.5-0", "v3.29.7", True),
        ("k0s/node:v3.29.5-0", "v3.29.7-0", False),
        ("k0s/node:v3.29.5-amd64", "v3.29.7", True),
        ("k0s/node:v3.29.5", "v3.29.7", False),
        ("k0s/node:v3.29.7-rc1", "v3.29.7", False),
        ("k0s/node:v3.29.5-0", "latest", False),
        ("k0s/node:latest", "v3.29.7", False),
    ],
)
def test_a_suffix_that_a_version_does_not_have(node: str, version: str, lost: bool) -> None:
    present = template(node, cni="busybox:1")
    tags = lost_suffixes(present, at_version(present, version))
    assert tags == (dict.fromkeys(("mount-bpffs", "calico-node"), image(node).tag) if lost else {})


def test_a_digest_that_is_lost() -> None:
    pinned = template("calico/node:v3.29.5@sha256:0a")
    assert lost_digests(pinned, at_version(pinned, "v3.29.7")) == ["mount-bpffs", "calico-node"]
    assert lost_digests(pinned, images(pinned)) == []
    assert lost_digests(PLAIN, at_version(PLAIN, "v3.29.7")) == []
