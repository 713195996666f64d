# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images of Calico in a DaemonSet, and the patch that changes them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .versions import Release, parse

Object = Mapping[str, Any]
Patch = dict[str, Any]

#: The container of Felix, in every installation.
CONTAINER = "calico-node"
#: The last parts of the names of Calico's images in this DaemonSet (manifests/*.yaml).
_CALICO_NAMES = frozenset({"node", "cni", "pod2daemon-flexvol", "calico"})
_GROUPS = ("initContainers", "containers")


@dataclass(frozen=True)
class Image:
    """The parts of an image's name; ``tag`` and ``digest`` may be missing."""

    folder: str
    name: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self._path}{tag}{digest}"

    @property
    def _path(self) -> str:
        return f"{self.folder}/{self.name}" if self.folder else self.name

    @property
    def release(self) -> Release | None:
        return parse(self.tag) if self.tag else None

    def of_calico(self, felix: Image) -> bool:
        """Whether it belongs to the same release as ``felix``, the image of calico-node."""
        if "calico" in self._path.lower():
            return True
        return self.name in _CALICO_NAMES and (self.folder, self.tag) == (felix.folder, felix.tag)

    def at(self, version: str, folder: str | None) -> Image:
        """The same image with another version, from another repository if one is given."""
        return Image(self.folder if folder is None else folder.rstrip("/"), self.name, version)


def image(text: str) -> Image:
    path, _at, digest = text.partition("@")
    folder, _slash, last = path.rpartition("/")
    name, _colon, tag = last.partition(":")
    return Image(folder, name, tag or None, digest or None)


def images(template: Object) -> dict[str, str]:
    """The image of each container of Calico in a pod template, init containers first."""
    return {name: str(found) for group, name, found in _calico_containers(template)}


def version(template: Object) -> str | None:
    """The tag of calico-node's image; None if it has none, or there is no calico-node."""
    felix = _felix(template)
    return felix.tag if felix else None


def has_felix(template: Object) -> bool:
    return _felix(template) is not None


def at_version(template: Object, wanted: str, folder: str | None = None) -> dict[str, str]:
    """The wanted image of each container of Calico.

    A version without a v gets one if the present tag has one.
    """
    felix = _felix(template)
    if felix and felix.tag and felix.tag.startswith("v") and wanted[:1].isdigit():
        wanted = f"v{wanted}"
    return {
        name: str(found.at(wanted, folder)) for group, name, found in _calico_containers(template)
    }


def lost_suffixes(template: Object, wanted: Mapping[str, str]) -> dict[str, str]:
    """The tags of Calico's containers whose suffix the ``wanted`` images do not have.

    Distributions publish a release under such a tag of their own, for example v3.29.5-0 (k0s).
    """
    lost = {}
    for _group, name, found in _calico_containers(template):
        was, becomes = found.release, image(wanted[name]).release
        variant = was is not None and was.final and was.suffix
        if variant and becomes is not None and not becomes.suffix:
            lost[name] = found.tag or ""
    return lost


def lost_digests(template: Object, wanted: Mapping[str, str]) -> list[str]:
    """The containers of Calico whose image has a digest, which the ``wanted`` one has not."""
    return [
        name
        for _group, name, found in _calico_containers(template)
        if found.digest and not image(wanted[name]).digest
    ]


def images_patch(template: Object, wanted: Mapping[str, str]) -> Patch:
    """The strategic merge patch of a DaemonSet that sets the ``wanted`` images."""
    spec: dict[str, Any] = {}
    for group in _GROUPS:
        listed = [container["name"] for container in _containers(template, group)]
        entries = [{"name": name, "image": wanted[name]} for name in listed if name in wanted]
        if entries:
            spec[group] = entries
    return {"spec": {"template": {"spec": spec}}}


def template_patch(template: Object) -> Patch:
    """The strategic merge patch of a DaemonSet that replaces its whole template.

    A ControllerRevision's ``data`` has this form, and ``kubectl rollout undo`` sends it.
    """
    return {"spec": {"template": {**template, "$patch": "replace"}}}


def contains(present: Any, wanted: Any) -> bool:
    """Whether ``present`` has all values of ``wanted``; the API may have added others."""
    if present is None:
        return not wanted  # the API omits empty values
    if isinstance(wanted, Mapping):
        return isinstance(present, Mapping) and all(
            contains(present.get(key), value) for key, value in wanted.items() if key != "$patch"
        )
    if isinstance(wanted, list):
        return (
            isinstance(present, list)
            and len(present) == len(wanted)
            and all(contains(h, w) for h, w in zip(present, wanted))
        )
    return bool(present == wanted)


def environment(template: Object) -> dict[str, str | None]:
    """The environment of calico-node; None if a value has another source (valueFrom)."""
    for container in _containers(template, "containers"):
        if container["name"] == CONTAINER:
            listed = container.get("env") or ()
            return {e["name"]: None if "valueFrom" in e else e.get("value", "") for e in listed}
    return {}


def _felix(template: Object) -> Image | None:
    for container in _containers(template, "containers"):
        if container["name"] == CONTAINER:
            return image(container.get("image", ""))
    return None


def _calico_containers(template: Object) -> Iterator[tuple[str, str, Image]]:
    """The group, name and image of each container of Calico."""
    felix = _felix(template)
    if felix is None:
        return
    for group in _GROUPS:
        for container in _containers(template, group):
            found = image(container.get("image", ""))
            if container["name"] == CONTAINER or found.of_calico(felix):
                yield group, container["name"], found


def _containers(template: Object, group: str) -> Sequence[Object]:
    listed: Sequence[Object] = (template.get("spec") or {}).get(group) or ()
    return listed
