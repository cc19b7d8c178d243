"""A stand-in of the Kubernetes API server: real TLS, real bearer tokens, real client certificates.

It answers GET of one pod as the API server does (also with metadata alone, when that is asked for),
and can be told to misbehave. Its certificates are made by the openssl program when a test starts;
nothing secret is in the tree.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "s3cr3t-token"
METADATA_ONLY = "as=PartialObjectMetadata"


class Authority:
    """A certificate authority in a directory; the openssl program does its work."""

    def __init__(self, directory: str, name: str = "ca", *, key_identifiers: bool = True) -> None:
        os.makedirs(directory, exist_ok=True)
        self._directory = directory
        self._name = name
        self.ca = self._path(f"{name}.crt")
        # Many a cluster's certificates lack them, RFC 5280 or not.
        self._none = "" if key_identifiers else _NO_KEY_IDENTIFIERS
        _openssl(
            *("req", "-x509", *_NEW_KEY, "-subj", f"/CN={name}", "-days", "2"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            *(argument for line in self._none.split() for argument in ("-addext", line)),
            *("-keyout", self._path(f"{name}.key"), "-out", self.ca),
        )

    def issue(
        self, name: str, *, hosts: str = "IP:127.0.0.1,DNS:kubernetes.test", expired: bool = False
    ) -> tuple[str, str]:
        """Return the paths of a certificate, whose common name is the name, and its key."""
        key, request, certificate = (self._path(f"{name}.{kind}") for kind in ("key", "csr", "crt"))
        extensions = self._path(f"{name}.ext")
        with open(extensions, "w") as file:
            file.write(f"subjectAltName={hosts}\nbasicConstraints=CA:FALSE\n{self._none}")
        _openssl("req", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        _openssl(
            *("x509", "-req", "-in", request, "-out", certificate, "-extfile", extensions),
            *("-CA", self.ca, "-CAkey", self._path(f"{self._name}.key"), "-CAcreateserial"),
            *("-days", "-1" if expired else "2"),
        )
        return certificate, key

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)


_NO_KEY_IDENTIFIERS = "subjectKeyIdentifier=none\nauthorityKeyIdentifier=none\n"
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


def lock_key(path: str, locked: str) -> None:
    """Write a key again, encrypted."""
    _openssl("pkcs8", "-topk8", "-in", path, "-out", locked, "-passout", "pass:secret")


class ApiServer:
    """Serves pods to whoever has a token or a client certificate of the authority.

    `faults` are taken one a request, in order: functions that are given the request's handler and
    answer in the server's place (return True), or let it go on (return False).
    """

    def __init__(
        self,
        certificate: tuple[str, str] | None,
        client_ca: str | None = None,
        *,
        demand_client_certificate: bool = False,
        address: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.pods: dict[tuple[str, str], dict[str, Any]] = {}
        self.tokens = {TOKEN}
        self.allowed = True  # False: everybody is known and nobody has a right
        self.faults: list[Callable[[Handler], bool]] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.connections = 0
        self.stopping = threading.Event()
        self._server = _Server((address, port), Handler)
        self._server.api = self
        self._server.open = weakref.WeakSet()
        self._server.tls = None
        if certificate is not None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(*certificate)
            if client_ca is not None:
                tls.load_verify_locations(client_ca)
                # As the API server does it: it asks, and whoever has none needs a token.
                tls.verify_mode = (
                    ssl.CERT_REQUIRED if demand_client_certificate else ssl.CERT_OPTIONAL
                )
            self._server.tls = tls
        self.port = self._server.server_address[1]
        scheme = "http" if certificate is None else "https"
        self.url = f"{scheme}://{address}:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def add_pod(
        self,
        name: str,
        labels: dict[str, str] | None = None,
        annotations: dict[str, str] | None = None,
        *,
        namespace: str = "default",
        uid: str = "11111111-2222-3333-4444-555555555555",
    ) -> None:
        metadata: dict[str, Any] = {"name": name, "namespace": namespace, "uid": uid}
        if labels is not None:
            metadata["labels"] = labels
        if annotations is not None:
            metadata["annotations"] = annotations
        self.pods[namespace, name] = metadata

    def close(self) -> None:
        """Stop serving, also those who still wait. Safe to call twice."""
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._server.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()


class _Server(ThreadingHTTPServer):
    api: ApiServer
    tls: ssl.SSLContext | None
    open: weakref.WeakSet[ssl.SSLSocket]
    daemon_threads = True
    block_on_close = False

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands in the connection's own thread, so that no client waits for another."""
        self.api.connections += 1
        if self.tls is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(10)
        try:
            with self.tls.wrap_socket(request, server_side=True) as secured:
                self.open.add(secured)
                super().finish_request(secured, client_address)
        except OSError:
            pass  # the client did not like us, or we did not like it: that is what is tested

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away in the middle are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are written apart
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        pass

    def do_GET(self) -> None:
        api = self.server.api
        api.requests.append((self.path, dict(self.headers.items())))
        if api.faults and api.faults.pop(0)(self):
            return
        if not self._is_known():
            self.status(401, "Unauthorized")
        elif not api.allowed:
            self.status(403, 'pods is forbidden: User "node" cannot get resource "pods"')
        else:
            self._pod()

    def status(self, code: int, message: str, headers: dict[str, str] | None = None) -> None:
        """Answer with a Status object."""
        self.answer(code, {"kind": "Status", "status": "Failure", "message": message}, headers)

    def answer(self, code: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self.answer_bytes(code, json.dumps(value).encode(), headers)

    def answer_bytes(
        self, code: int, content: bytes, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _is_known(self) -> bool:
        if isinstance(self.connection, ssl.SSLSocket) and self.connection.getpeercert():
            return True
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return scheme == "Bearer" and token in self.server.api.tokens

    def _pod(self) -> None:
        parts = self.path.split("/")
        metadata = None
        if len(parts) == 7 and parts[:4] == ["", "api", "v1", "namespaces"] and parts[5] == "pods":
            metadata = self.server.api.pods.get((parts[4], parts[6]))
        if metadata is None:
            self.status(404, f'pods "{parts[-1]}" not found')
        elif METADATA_ONLY in self.headers.get("Accept", ""):
            self.answer(
                200,
                {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": metadata,
                },
            )
        else:
            self.answer(200, {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {}})


# Faults -----------------------------------------------------------------------------------------


def status(code: int, headers: dict[str, str] | None = None) -> Callable[[Handler], bool]:
    """Answer with this status, as the API server does when it is busy or broken."""

    def fault(handler: Handler) -> bool:
        handler.status(code, f"status {code}", headers)
        return True

    return fault


def content(raw: bytes, headers: dict[str, str] | None = None) -> Callable[[Handler], bool]:
    """Answer 200 with these bytes."""

    def fault(handler: Handler) -> bool:
        handler.answer_bytes(200, raw, headers)
        return True

    return fault


def truncated(handler: Handler) -> bool:
    """Promise more than comes."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"kind": "Pod", ')
    handler.close_connection = True
    return True


def hang_up(handler: Handler) -> bool:
    """Close the connection without a word."""
    handler.close_connection = True
    return True


def hang(handler: Handler) -> bool:
    """Say nothing at all."""
    handler.server.api.stopping.wait(60)
    handler.close_connection = True
    return True


def drip_headers(handler: Handler) -> bool:
    """Say something all the time, and never anything that helps."""
    handler.close_connection = True
    try:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
        while not handler.server.api.stopping.wait(0.05):
            handler.wfile.write(b"x")
    except OSError:
        pass
    return True


def drip_body(handler: Handler) -> bool:
    """Begin a body that does not end."""
    handler.close_connection = True
    try:
        handler.send_response(200)
        handler.end_headers()
        while not handler.server.api.stopping.wait(0.05):
            handler.wfile.write(b" ")
    except OSError:
        pass
    return True


# A kubeconfig -----------------------------------------------------------------------------------


def kubeconfig(path: str, cluster: dict[str, Any], user: dict[str, Any]) -> str:
    """Write a kubeconfig (JSON, or YAML for a name that ends so) and return its path."""
    whole = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "node",
        "contexts": [{"name": "node", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": cluster}],
        "users": [{"name": "me", "user": user}],
    }
    if path.endswith((".yaml", ".yml")):
        import yaml

        text = yaml.safe_dump(whole)
    else:
        text = json.dumps(whole)
    replace(path, text)
    return path


def replace(path: str, text: str) -> None:
    """Write a file as secrets are renewed: a new one in the place of the old one."""
    with open(f"{path}.new", "w") as file:
        file.write(text)
    os.rename(f"{path}.new", path)


def encoded(path: str) -> str:
    """Return a file's content as the `-data` fields hold it."""
    with open(path, "rb") as file:
        return base64.b64encode(file.read()).decode()


@contextmanager
def refusing_port() -> Iterator[int]:
    """Give a port of this machine at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # taken, but it does not listen
        yield taken.getsockname()[1]


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Fail when the block takes longer."""
    start = time.monotonic()
    yield
    taken = time.monotonic() - start
    assert taken < seconds, f"took {taken:.1f} s"
