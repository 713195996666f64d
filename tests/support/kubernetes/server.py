# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP server of the embedded API."""

from __future__ import annotations

import json
import socket
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes import pods, problems
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.access import Access
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.cluster import (
    Cluster,
    Target,
    selection,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.faults import Faults
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.paging import read_page
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.problems import Problem
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.resources import (
    REVIEWS,
    Resource,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.selectors import Match
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.store import Change, Object

_HEALTH = ("healthz", "livez", "readyz")
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "GET": "get"}
#: The default timeout of a watch, in seconds.
_WATCH_SECONDS = 1800


@dataclass(frozen=True)
class Asked:
    """A request that reached the server; ``at`` is monotonic."""

    at: float
    #: The client, by its User-Agent.
    agent: str
    method: str
    path: str


class Server(ThreadingHTTPServer):
    """Serves one cluster on a free loopback port, with a thread for each connection."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(
        self, cluster: Cluster, access: Access, faults: Faults, token: str, release: str
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.cluster, self.access, self.faults, self.token = cluster, access, faults, token
        major, minor, _patch = release.split(".")
        self.version = {
            "major": major.removeprefix("v"),
            "minor": minor,
            "gitVersion": f"{release}-lab",
            "platform": "linux/amd64",
        }
        #: The latest requests.
        self.asked: deque[Asked] = deque(maxlen=10_000)
        self._connections: set[socket.socket] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def stop(self) -> None:
        """Close every connection, including idle ones and watches."""
        self.shutdown()
        self.cluster.store.close()
        self.server_close()
        for each in list(self._connections):
            _hang_up(each)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore disconnected clients; errors of the server were answered with a 500."""


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    query: dict[str, str]
    user: str | None = None
    content_type: str = "application/json"
    body: Any = field(default_factory=dict)

    @property
    def dry_run(self) -> bool:
        options = self.body if isinstance(self.body, dict) and self.method == "DELETE" else {}
        return bool(self.query.get("dryRun") or options.get("dryRun"))

    @property
    def watches(self) -> bool:
        return self.method == "GET" and self.query.get("watch") in ("true", "True", "1")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are sent together, or each answer waits for the client's delayed ACK.
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Server

    def serve(self) -> None:
        try:
            request = self._read()
            agent = self.headers.get("User-Agent", "")
            self.server.asked.append(Asked(time.monotonic(), agent, request.method, self.path))
            self.server.faults.meet(request.method, self.path)
            self._route(request)
        except Problem as problem:
            self._answer(problem.status, problem.code)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:  # noqa: BLE001 like the real API: answer 500 and continue
            self._answer(Problem(500, "InternalError", repr(error)).status, 500)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""

    # --- reading ------------------------------------------------------------------------------

    def _read(self) -> _Request:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        split = urlsplit(self.path)
        # kubectl sends no token over plain http: none is right, a wrong one is not.
        if self.headers.get("Authorization") not in (None, f"Bearer {self.server.token}"):
            raise Problem(HTTPStatus.UNAUTHORIZED, "Unauthorized", "Unauthorized")
        try:
            body = json.loads(raw) if raw.strip() else {}
        except ValueError as error:
            raise problems.unsupported(self.headers.get("Content-Type", "")) from error
        content_type = (self.headers.get("Content-Type") or "application/json").split(";")[0]
        query = dict(parse_qsl(split.query))
        user = self.headers.get("Impersonate-User")
        return _Request(self.command, split.path, query, user, content_type, body)

    def _route(self, request: _Request) -> None:
        steps = [step for step in request.path.split("/") if step]
        if steps and steps[0] in _HEALTH:
            return self._text(b"ok")
        if steps == ["version"]:
            return self._answer(self.server.version)
        if found := self._discovery(steps):
            return self._answer(found)
        return self._serve(request, self._target(steps))

    def _discovery(self, steps: list[str]) -> Object | None:
        return self.server.cluster.resources.discovery(steps) if steps else None

    def _target(self, steps: list[str]) -> Target:
        """Parse a path. /api/v1/namespaces/NAME is a namespace, and the prefix of other paths."""
        if steps[:1] == ["api"]:
            (group, version), rest = ("", steps[1] if len(steps) > 1 else ""), steps[2:]
        elif steps[:1] == ["apis"] and len(steps) > 3:
            (group, version), rest = (steps[1], steps[2]), steps[3:]
        else:
            raise problems.no_such_path()
        namespace = ""
        if rest[:1] == ["namespaces"] and len(rest) > 2 and rest[2] != "status":
            namespace, rest = rest[1], rest[2:]
        plural, name, part = (*rest, "", "", "")[:3]
        resource = self.server.cluster.resources.find(group, version, plural)
        if resource is None or (part and part not in resource.subresources) or len(rest) > 3:
            raise problems.no_such_path()
        return Target(resource, namespace, name, part)

    # --- serving ------------------------------------------------------------------------------

    def _serve(self, request: _Request, target: Target) -> None:
        verb = _verb(request, target)
        if verb not in target.resource.verbs and not target.subresource:
            message = "the server does not allow this method on the requested resource"
            raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
        self.server.access.check(request.user, verb, target)
        if verb == "watch":
            return self._watch(request, target)
        if target.subresource == "log":
            return self._text(pods.log(self.server.cluster, target, request.query))
        code = HTTPStatus.CREATED if verb == "create" else HTTPStatus.OK
        return self._answer(self._do(verb, request, target), code)

    def _do(self, verb: str, request: _Request, target: Target) -> Object:
        cluster, dry_run = self.server.cluster, request.dry_run
        if verb == "list":
            match = _selected(request, target.resource)
            return cluster.list(target, match, read_page(request.query))
        if verb == "get":
            return cluster.get(target)
        if target.resource == REVIEWS:
            return self.server.access.review(request.user, request.body)
        if target.subresource == "eviction":
            return pods.evict(cluster, target, request.body, dry_run)
        if target.subresource == "binding":
            return pods.bind(cluster, target, request.body, dry_run)
        if verb == "create":
            return cluster.create(target, request.body, dry_run)
        if verb == "update":
            return cluster.replace(target, request.body, dry_run)
        if verb == "patch":
            return cluster.patch(target, request.content_type, request.body, dry_run)
        options = {**request.body, **_delete_options(request.query)}
        return cluster.delete(target, options, dry_run)

    def _watch(self, request: _Request, target: Target) -> None:
        match = _selected(request, target.resource)
        until = time.monotonic() + int(request.query.get("timeoutSeconds") or _WATCH_SECONDS)
        left = self.server.faults.watch_length(self.path)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        after = int(request.query.get("resourceVersion") or 0)
        if not after:
            after, left = self._present(target, match, left)
        while left != 0 and not self.server.cluster.store.closed and time.monotonic() < until:
            try:
                changes = self.server.cluster.store.changes(after, until - time.monotonic())
            except LookupError as error:
                self._event("ERROR", problems.gone(str(error)).status)
                break
            for change in changes:
                after = change.revision
                if left != 0 and (event := _seen(change, target, match)):
                    self._event(*event)
                    left = None if left is None else left - 1
        if left == 0:
            return self._cut()
        self.wfile.write(b"0\r\n\r\n")
        return None

    def _present(self, target: Target, match: Match, left: int | None) -> tuple[int, int | None]:
        """Send the existing objects first, as for a watch without a resourceVersion."""
        store = self.server.cluster.store
        with store.lock:
            held = store.items(target.resource.collection, target.namespace)
            revision = store.revision
        for _key, each in held:
            if left != 0 and match(each):
                self._event("ADDED", each)
                left = None if left is None else left - 1
        return revision, left

    # --- writing ------------------------------------------------------------------------------

    def _event(self, kind: str, held: Object) -> None:
        line = json.dumps({"type": kind, "object": held}).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.flush()

    def _cut(self) -> None:
        self.close_connection = True
        _hang_up(self.connection)

    def _answer(self, made: Object, code: int = HTTPStatus.OK) -> None:
        self._send(json.dumps(made).encode(), "application/json", code)

    def _text(self, text: bytes) -> None:
        self._send(text, "text/plain", HTTPStatus.OK)

    def _send(self, body: bytes, content_type: str, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def _verb(request: _Request, target: Target) -> str:
    if request.method == "GET" and not target.name:
        return "watch" if request.watches else "list"
    return _VERBS[request.method]


def _selected(request: _Request, resource: Resource) -> Match:
    labels, fields = request.query.get("labelSelector"), request.query.get("fieldSelector")
    return selection(resource, labels or "", fields or "")


def _delete_options(query: dict[str, str]) -> Object:
    options: Object = {}
    if "gracePeriodSeconds" in query:
        options["gracePeriodSeconds"] = int(query["gracePeriodSeconds"])
    if "propagationPolicy" in query:
        options["propagationPolicy"] = query["propagationPolicy"]
    return options


def _seen(change: Change, target: Target, match: Match) -> tuple[str, Object] | None:
    """The event of a watch with a selector: an object no longer selected is DELETED."""
    collection, namespace, _name = change.key
    if collection != target.resource.collection or target.namespace not in ("", namespace):
        return None
    was = change.before is not None and match(change.before)
    now = change.type != "DELETED" and match(change.object)
    if was and now:
        return "MODIFIED", change.object
    if now:
        return "ADDED", change.object
    return ("DELETED", change.object) if was else None


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):  # the client was faster
        connection.shutdown(socket.SHUT_RDWR)
