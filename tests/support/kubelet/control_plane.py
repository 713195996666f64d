# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A control plane for real kubelets: etcd, API server, controller manager and scheduler.

It runs on the machine itself; the API server listens where the nodes reach it.
"""

from __future__ import annotations

import http.client
import secrets
import ssl
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.tests.support.kubelet.server import Server, run
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.api import (
    Api,
    write_kubeconfig,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.ports import HOST, free_ports

_PORT = 6443  # the address is this cluster's own
_PATIENCE = 120.0
_MANAGER = "system:kube-controller-manager"
_SCHEDULER = "system:kube-scheduler"


class ControlPlane:
    """The servers of one cluster; they end with ``stack``."""

    def __init__(
        self, programs: Path, folder: Path, address: str, nodes: Sequence[str], stack: ExitStack
    ) -> None:
        folder.mkdir()
        self._programs = programs
        self._folder = folder
        self._address = address
        self._stack = stack
        self._servers: list[Server] = []
        self._key, self._certificate = folder / "key.pem", folder / "certificate.pem"
        self._etcd, self._manager, self._scheduler = free_ports(3)
        node_users = [f"system:node:{node}" for node in nodes]
        users = ["admin", _MANAGER, _SCHEDULER, *node_users]
        self._tokens = {user: secrets.token_hex() for user in users}
        self._groups = dict.fromkeys(node_users, "system:nodes") | {"admin": "system:masters"}

    def start(self) -> Api:
        """Start all servers; the API as its administrator, once all are ready.

        :raises RuntimeError: a server does not become ready; with the end of its log.
        """
        self._certify()
        self._start_etcd()
        self._start_apiserver()
        self._wait("kube-apiserver", self._address, _PORT, "/readyz")
        self._start_manager()
        self._start_scheduler()
        self._wait("kube-controller-manager", HOST, self._manager, "/healthz")
        self._wait("kube-scheduler", HOST, self._scheduler, "/healthz")
        return self._api("admin")

    def kubeconfig(self, node: str) -> Path:
        """The credentials of a node's kubelet."""
        return self._api(f"system:node:{node}").kubeconfig

    def _api(self, user: str) -> Api:
        url, token = f"https://{self._address}:{_PORT}", self._tokens[user]
        file = self._folder / f"{user.replace(':', '-')}.kubeconfig"
        trusted = str(self._certificate)
        return Api(url, token, trusted, write_kubeconfig(file, url, token, trusted), True)

    def _certify(self) -> None:
        """Make one key and certificate for all servers and the tokens of service accounts."""
        names = f"subjectAltName=IP:{self._address},IP:{HOST}"
        subject = ["-subj", "/CN=calico-bpf-lab", "-addext", names]
        files = ["-keyout", str(self._key), "-out", str(self._certificate)]
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, *files)

    def _start_etcd(self) -> None:
        url = f"http://{HOST}:{self._etcd}"
        self._spawn(
            "etcd",
            f"--data-dir={self._folder}/etcd",
            "--unsafe-no-fsync",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls=http://{HOST}:0",  # any port: there are no peers
        )

    def _start_apiserver(self) -> None:
        self._spawn(
            "kube-apiserver",
            *self._serving(self._address, _PORT),
            f"--advertise-address={self._address}",
            f"--etcd-servers=http://{HOST}:{self._etcd}",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--token-auth-file={self._write_tokens()}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={self._key}",
            f"--service-account-key-file={self._key}",
            "--allow-privileged=true",
            "--kubelet-preferred-address-types=InternalIP",
        )

    def _write_tokens(self) -> Path:
        file = self._folder / "tokens.csv"
        file.touch(mode=0o600)
        lines = [
            f'{token},{user},{user},"{self._groups.get(user, "")}"\n'
            for user, token in self._tokens.items()
        ]
        file.write_text("".join(lines))
        return file

    def _start_manager(self) -> None:
        self._spawn(
            "kube-controller-manager",
            *self._serving(HOST, self._manager),
            f"--kubeconfig={self._api(_MANAGER).kubeconfig}",
            f"--root-ca-file={self._certificate}",
            f"--service-account-private-key-file={self._key}",
            # As installers do: each controller acts as its own user.
            "--use-service-account-credentials=true",
            # With the default rate, getting these users' tokens takes five seconds.
            "--kube-api-qps=500",
            "--kube-api-burst=500",
            # It makes that folder, whose default lies outside of the lab's.
            f"--flex-volume-plugin-dir={self._folder}/volume-plugins",
            "--leader-elect=false",
        )

    def _start_scheduler(self) -> None:
        kubeconfig = self._api(_SCHEDULER).kubeconfig
        self._spawn(
            "kube-scheduler",
            *self._serving(HOST, self._scheduler),
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--leader-elect=false",
        )

    def _serving(self, address: str, port: int) -> list[str]:
        return [
            f"--bind-address={address}",
            f"--secure-port={port}",
            f"--tls-cert-file={self._certificate}",
            f"--tls-private-key-file={self._key}",
        ]

    def _spawn(self, name: str, *flags: str) -> None:
        words = [str(self._programs / name), *flags]
        server = Server(name, words, self._folder / f"{name}.log", self._programs)
        self._servers.append(server)
        self._stack.callback(server.kill)  # none of their data is kept

    def _wait(self, name: str, host: str, port: int, path: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not self._is_ok(host, port, path):
            for server in self._servers:
                server.check()
            if time.monotonic() > deadline:
                server = next(each for each in self._servers if each.name == name)
                raise server.failure(f"was not ready within {_PATIENCE:.0f} s")
            time.sleep(0.05)

    def _is_ok(self, host: str, port: int, path: str) -> bool:
        trusted = ssl.create_default_context(cafile=str(self._certificate))
        connection = http.client.HTTPSConnection(host, port, timeout=5, context=trusted)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
