# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection to the Kubernetes API: made by kubernetes.core, with its options and variables.

This file can be imported without kubernetes.core; ``connect`` then raises an error. The imports are
at the top since Ansible forks for each task: in a function they would cost each half a second.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ApiError, Refusal, beginning_of
from .api import BudgetExhausted, ConnectionLost, Kube, discard
from .api_server import describe

_unavailable = ""
try:
    from ansible_collections.kubernetes.core.plugins.module_utils.args_common import (  # type: ignore[import-untyped]
        AUTH_ARG_SPEC,
    )
    from ansible_collections.kubernetes.core.plugins.module_utils.k8s import (  # type: ignore[import-untyped]
        client as _core,
    )
except ImportError as error:
    AUTH_ARG_SPEC, _core, _unavailable = {}, None, str(error)

#: The options of ``kubernetes.core.k8s_auth_options``, for an argument spec.
AUTH: Mapping[str, Any] = AUTH_ARG_SPEC
#: Seconds to connect, and to wait for an answer.
_TIMEOUT = (10, 60)


def connect(
    options: Mapping[str, Any], log: Callable[[str], None] = discard, patience: float = 60.0
) -> Kube:
    """The API that the options or K8S_AUTH_* name; the first request connects to it.

    ``log`` gets a line when a request is retried.

    :raises Refusal: a library is missing.
    """
    if _core is None:
        raise _missing(_unavailable)
    if not hasattr(_core, "kubernetes"):  # kubernetes.core can be imported without it
        raise _missing("the Python library kubernetes is missing")
    return Kube(_Sender(_core, {name: options.get(name) for name in AUTH}), patience, log)


def api_server(options: Mapping[str, Any]) -> dict[str, str]:
    """The ``server`` that ``connect`` reaches with these options, and its ``cluster``'s name."""
    given = {name: options.get(name) for name in AUTH}
    return describe(_Sender(_core, given).host, given)


def _missing(what: str) -> Refusal:
    return Refusal(
        f"the controller can't connect to Kubernetes: {what}; it needs the collection"
        " kubernetes.core (ansible-galaxy collection install kubernetes.core) and, for the Python"
        " that runs Ansible, its library (pip install kubernetes)"
    )


class _Sender:
    """Sends with the client that kubernetes.core makes; ``core`` is its module of that name."""

    def __init__(self, core: Any, options: Mapping[str, Any]) -> None:
        self._core = core
        self._options = options
        self._client: Any = None

    def __call__(
        self, method: str, path: str, query: Mapping[str, Any], content_type: str, body: Any
    ) -> bytes:
        operation = f"{method} {path}"
        try:
            answer = self._connected().request(
                method,
                path,
                body=body,
                query_params=list(query.items()),
                content_type=content_type,
                header_params={"Accept": "application/json, */*"},
                serialize=False,
                _request_timeout=_TIMEOUT,
            )
            data: bytes = answer.data
        except self._core.kubernetes.client.exceptions.ApiException as error:
            raise _api_error(operation, error) from error
        except self._core.urllib3.exceptions.HTTPError as error:
            raise self._no_answer(operation, error) from error
        return data

    @property
    def host(self) -> str:
        return str(self._connected().configuration.host)

    def _connected(self) -> Any:
        """The dynamic client; creating it reads the API groups of the server.

        :raises Refusal: the address of the API or the credentials are missing, or not readable.
        """
        if self._client is None:
            from yaml import YAMLError

            no_config = (self._core.CoreException, self._core.kubernetes.config.ConfigException)
            try:
                self._client = self._core.get_api_client(**self._options).client
            except (*no_config, YAMLError, OSError) as error:
                raise Refusal(
                    f"can't connect to the Kubernetes API: {error}; set kubeconfig, or host and"
                    " api_key, or K8S_AUTH_KUBECONFIG; nothing was changed"
                ) from error
        return self._client

    def _no_answer(self, operation: str, error: Any) -> ApiError:
        """The error for a missing answer; an untrusted certificate is not retried."""
        cause = getattr(error, "reason", None) or error
        permanent = isinstance(cause, self._core.urllib3.exceptions.SSLError)
        kind = ApiError if permanent else ConnectionLost
        return kind(operation, 0, type(cause).__name__, str(cause))


def _api_error(operation: str, error: Any) -> ApiError:
    """The API's answer as an ApiError."""
    try:
        status = json.loads(error.body or "{}")
    except ValueError:  # from a proxy, or an API server that is starting
        status = {"message": beginning_of(str(error.body), 200)}
    answer = (operation, error.status, status.get("reason") or error.reason or "")
    causes = (status.get("details") or {}).get("causes") or ()
    if any(cause.get("reason") == "DisruptionBudget" for cause in causes):
        messages = "; ".join(cause["message"] for cause in causes if cause.get("message"))
        return BudgetExhausted(*answer, messages or status.get("message", ""))
    return ApiError(*answer, beginning_of(status.get("message") or ""))
