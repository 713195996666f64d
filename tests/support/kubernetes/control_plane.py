# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real Kubernetes API: etcd, kube-apiserver and kube-controller-manager as plain processes.

There is no scheduler: the stand-in for the kubelet binds the pods. All flags are known to 1.20 and
to current servers.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.api import (
    Api,
    write_kubeconfig,
)
from ansible_collections.dataplane.calico_bpf.tests.support.kubernetes.ports import HOST, free_ports

NOT_FOUND = (
    "no folder holds kube-apiserver and etcd: neither CALICO_BPF_CONTROL_PLANE nor "
    "KUBEBUILDER_ASSETS is set, and none is cached or on PATH; `make control-plane` builds them"
)
_PATIENCE = 60.0
#: Without nodelifecycle, which marks nodes as lost if their Lease is not renewed.
_CONTROLLERS = "daemonset,replicaset,disruption,garbagecollector,namespace,podgc"
#: Become a command that dies with the process of the given id, even one that just died.
_MORTAL = ("setpriv", "--pdeathsig", "KILL", "sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"')
#: Remove a folder when stdin is closed, at the latest by the end of this process. Retried, since
#: servers may still be ending.
_REMOVER = 'read -r line; for i in 1 2 3 4 5 6 7 8 9; do rm -rf "$0" && exit; sleep 0.$i; done'


@dataclass(frozen=True)
class ControlPlane(Api):
    """The API for its administrator, and for a user without permissions."""

    nobody: Api
    #: The URL of its etcd.
    etcd_url: str

    def compact(self, revision: int) -> None:
        """Compact etcd up to a revision, as the API does every five minutes."""
        host, port = urlsplit(self.etcd_url).netloc.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        try:
            body = json.dumps({"revision": str(revision), "physical": True})
            connection.request("POST", "/v3/kv/compaction", body)
            answer = connection.getresponse()
            if answer.status != http.HTTPStatus.OK:
                raise RuntimeError(f"etcd does not compact: {answer.read()!r}")
        finally:
            connection.close()


def find() -> Path | None:
    """The folder with etcd and kube-apiserver, preferably also kube-controller-manager.

    :raises FileNotFoundError: a variable names a folder where one of the first two is missing.
    """
    for variable in ("CALICO_BPF_CONTROL_PLANE", "KUBEBUILDER_ASSETS"):
        if named := os.environ.get(variable):
            if missing := _missing(Path(named)):
                raise FileNotFoundError(f"{variable}: {named} has no {' and no '.join(missing)}")
            return Path(named).absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    built = cache / "dataplane-calico-bpf/control-plane-1.20.2"  # by build_control_plane.sh
    folders = (built, *map(Path, os.get_exec_path()))
    return next((folder for folder in folders if not _missing(folder)), None)


def _missing(folder: Path) -> list[str]:
    return [n for n in ("etcd", "kube-apiserver") if not os.access(folder / n, os.X_OK)]


@contextmanager
def control_plane() -> Iterator[ControlPlane]:
    """A new empty control plane that is ready.

    Its processes and files go when it is left; or with the thread that entered it, however that
    ends.

    :raises FileNotFoundError: there are no servers to start.
    :raises RuntimeError: a server did not come up; with the end of its log.
    """
    binaries = find()
    if binaries is None:
        raise FileNotFoundError(NOT_FOUND)
    with _temporary_folder() as folder, ExitStack() as stack:
        yield _Servers(binaries, folder, stack).start()


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder that is removed even if this process is killed."""
    folder = tempfile.mkdtemp(prefix="calico-bpf-control-plane-")
    words = ["sh", "-c", _REMOVER, folder]
    null = subprocess.DEVNULL
    remover = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=null, stderr=null, start_new_session=True
    )
    try:
        yield Path(folder)
    finally:
        remover.communicate(b"\n")


class _Servers:
    """The processes of one control plane."""

    def __init__(self, binaries: Path, folder: Path, stack: ExitStack) -> None:
        self._binaries = binaries
        self._folder = folder
        self._stack = stack
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._key, self._certificate = folder / "key.pem", folder / "certificate.pem"
        etcd_port, self._port, self._controllers_port = free_ports(3)
        self._etcd_url = f"http://{HOST}:{etcd_port}"

    def start(self) -> ControlPlane:
        self._certify()
        admin, nobody = secrets.token_hex(), secrets.token_hex()
        self._start_etcd()
        self._start_apiserver(f'{admin},admin,admin,"system:masters"\n{nobody},nobody,nobody\n')
        as_admin = self._api("admin", admin)
        if as_admin.has_controllers:
            self._start_controllers(as_admin.kubeconfig)
        return ControlPlane(
            **vars(as_admin), nobody=self._api("nobody", nobody), etcd_url=self._etcd_url
        )

    def _api(self, user: str, token: str) -> Api:
        url, trusted = f"https://{HOST}:{self._port}", str(self._certificate)
        kubeconfig = write_kubeconfig(self._folder / f"{user}.kubeconfig", url, token, trusted)
        has_controllers = (self._binaries / "kube-controller-manager").exists()
        return Api(url, token, trusted, kubeconfig, has_controllers)

    def _certify(self) -> None:
        """One key and certificate for all servers, and for the service accounts' tokens."""
        subject = ["-subj", "/CN=calico-bpf-lab", "-addext", f"subjectAltName=IP:{HOST}"]
        files = ["-keyout", str(self._key), "-out", str(self._certificate)]
        words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, *files]
        subprocess.run(words, check=True, capture_output=True)

    def _serving(self, port: int) -> list[str]:
        return [
            f"--bind-address={HOST}",
            f"--secure-port={port}",
            f"--tls-cert-file={self._certificate}",
            f"--tls-private-key-file={self._key}",
        ]

    def _start_etcd(self) -> None:
        url = self._etcd_url
        self._spawn(
            "etcd",
            f"--data-dir={self._folder}/etcd",
            "--unsafe-no-fsync",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls=http://{HOST}:0",  # any port: there are no peers
        )

    def _start_apiserver(self, tokens: str) -> None:
        token_file = self._folder / "tokens.csv"
        token_file.write_text(tokens, encoding="utf-8")
        self._spawn(
            "kube-apiserver",
            *self._serving(self._port),
            f"--advertise-address={HOST}",
            f"--etcd-servers={self._etcd_url}",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
            f"--token-auth-file={token_file}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={self._key}",
            f"--service-account-key-file={self._key}",
            # Each pod would need a token; each node would stay tainted as not ready.
            "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
            "--allow-privileged=true",
            "--kubelet-preferred-address-types=InternalIP",
        )
        self._await("kube-apiserver", self._port, "/readyz")

    def _start_controllers(self, kubeconfig: Path) -> None:
        name = "kube-controller-manager"
        words = [str(self._binaries / name), "--help"]
        flags = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        self._spawn(
            name,
            *self._serving(self._controllers_port),
            # Up to 1.23 there is a second port, without TLS, and on all addresses.
            *(["--port=0"] if " --port int " in flags else []),
            f"--kubeconfig={kubeconfig}",
            f"--controllers={_CONTROLLERS}",
            "--leader-elect=false",
        )
        self._await(name, self._controllers_port, "/healthz")

    def _spawn(self, name: str, *flags: str) -> None:
        words = [*_MORTAL, str(os.getpid()), str(self._binaries / name), *flags]
        with self._log(name).open("wb") as log:
            server = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,  # a ctrl-C is for us
            )
        self._running[name] = server
        self._stack.callback(server.wait)
        self._stack.callback(server.kill)  # nothing of what they hold is kept

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _await(self, name: str, port: int, path: str) -> None:
        """Until the named server answers 200.

        :raises RuntimeError: it does not in time, or any server has ended.
        """
        deadline = time.monotonic() + _PATIENCE
        while not self._is_ok(port, path):
            for each, server in self._running.items():
                if server.poll() is not None:
                    raise self._failure(each, f"ended with {server.returncode}")
            if time.monotonic() > deadline:
                raise self._failure(name, f"was not ready after {_PATIENCE:.0f} s")
            time.sleep(0.05)

    def _is_ok(self, port: int, path: str) -> bool:
        trust = ssl.create_default_context(cafile=str(self._certificate))
        connection = http.client.HTTPSConnection(HOST, port, timeout=5, context=trust)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except OSError:
            return False
        finally:
            connection.close()

    def _failure(self, name: str, what: str) -> RuntimeError:
        log = self._log(name).read_text(encoding="utf-8", errors="replace")
        last = "\n".join(log.splitlines()[-20:])
        return RuntimeError(f"{name} {what}; its log ends:\n{last}")
