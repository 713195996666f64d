# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The error answers of the API."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any


class Problem(Exception):
    """A request is answered with this Status instead of an object."""

    def __init__(
        self, code: int, reason: str, message: str, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "details": dict(details or {}),
            "code": code,
        }


def not_found(plural: str, name: str) -> Problem:
    what = {"name": name, "kind": plural}
    return Problem(HTTPStatus.NOT_FOUND, "NotFound", f'{plural} "{name}" not found', what)


def no_such_path() -> Problem:
    message = "the server could not find the requested resource"
    return Problem(HTTPStatus.NOT_FOUND, "NotFound", message)


def already_exists(plural: str, name: str) -> Problem:
    what = {"name": name, "kind": plural}
    message = f'{plural} "{name}" already exists'
    return Problem(HTTPStatus.CONFLICT, "AlreadyExists", message, what)


def conflict(plural: str, name: str, why: str) -> Problem:
    what = {"name": name, "kind": plural}
    message = f'Operation cannot be fulfilled on {plural} "{name}": {why}'
    return Problem(HTTPStatus.CONFLICT, "Conflict", message, what)


def stale(plural: str, name: str) -> Problem:
    why = "the object has been modified; please apply your changes to the latest version"
    return conflict(plural, name, f"{why} and try again")


def invalid(kind: str, name: str, field: str, why: str) -> Problem:
    causes = [{"reason": "FieldValueInvalid", "message": why, "field": field}]
    message = f'{kind} "{name}" is invalid: {field}: {why}'
    what = {"name": name, "kind": kind, "causes": causes}
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid", message, what)


def bad_request(message: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, "BadRequest", message)


def forbidden(message: str) -> Problem:
    return Problem(HTTPStatus.FORBIDDEN, "Forbidden", message)


def unsupported(content_type: str) -> Problem:
    message = f"the body of the request was in an unknown format - {content_type}"
    return Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)


def gone(message: str) -> Problem:
    return Problem(HTTPStatus.GONE, "Expired", message)


def budget_exhausted(why: str) -> Problem:
    """The answer to an eviction that a PodDisruptionBudget does not allow."""
    causes = [{"reason": "DisruptionBudget", "message": why}]
    message = "Cannot evict pod as it would violate the pod's disruption budget."
    code = HTTPStatus.TOO_MANY_REQUESTS
    return Problem(code, "TooManyRequests", message, {"causes": causes})
