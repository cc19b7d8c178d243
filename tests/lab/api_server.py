"""A stand-in of the Kubernetes API server: real TLS, real bearer tokens, real client certificates.

It answers as the API server does: GET of one object (also with metadata alone, when that is asked
for), list and watch with versions, bookmarks and 410 Gone, patches of a pod's status, server-side
apply with its conflicts, deletion, Events, and which rights somebody has. It can be told to
misbehave. What it keeps is in `tests.lab.api_objects` and `tests.lab.api_kinds`.
Its certificates are made by the openssl program when a test starts; nothing secret is in the tree.
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

from tests.lab import api_exec
from tests.lab.api_objects import Objects
from tests.lab.api_requests import RIGHTS, respond

TOKEN = "s3cr3t-token"
Headers = dict[str, str] | None


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
        objects: Objects | None = None,
    ) -> None:
        """Serve; `objects` are those of a server that was there before."""
        self.objects = objects or Objects()
        self.pods = self.objects.pods
        self.tokens = {TOKEN}
        self.allowed = True  # False: everybody is known and nobody has a right
        self.rights = set(RIGHTS)
        self.delay_s = 0.0  # before each answer
        self.most_per_s: float | None = None  # what is more is answered 429
        self.bookmark_s = 0.5
        self.watch_s: float | None = None  # a watch is cut after that
        self.says_410_by_event = False
        self.containers = api_exec.nothing  # what runs for an `exec`
        self.calls: list[tuple[str, str, Any]] = []  # method, path and body of each request
        # By method and path, what answers requests for what is not kept here.
        self.others: dict[tuple[str, str], Callable[[], tuple[int, Any]]] = {}
        self.served_at: list[float] = []
        self._client_ca = client_ca
        self._demand_client_certificate = demand_client_certificate
        self.faults: list[Callable[[Handler], bool]] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.connections = 0
        self.stopping = threading.Event()
        self._server = _Server((address, port), Handler)
        self._server.api = self
        self._server.open = weakref.WeakSet()
        self._server.tls = None
        if certificate is not None:
            self.use_certificate(certificate)
        self.port = self._server.server_address[1]
        scheme = "http" if certificate is None else "https"
        self.url = f"{scheme}://{address}:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def use_certificate(self, certificate: tuple[str, str]) -> None:
        """Be known by another certificate, at connections from now on."""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*certificate)
        if self._client_ca is not None:
            tls.load_verify_locations(self._client_ca)
            # As the API server does it: it asks, and whoever has none needs a token.
            tls.verify_mode = (
                ssl.CERT_REQUIRED if self._demand_client_certificate else ssl.CERT_OPTIONAL
            )
        self._server.tls = tls

    def hang_up(self) -> None:
        """Cut every connection."""
        for connection in list(self._server.open):
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def add_pod(
        self,
        name: str,
        labels: dict[str, str] | None = None,
        annotations: dict[str, str] | None = None,
        *,
        namespace: str = "default",
        uid: str = "11111111-2222-3333-4444-555555555555",
        node: str | None = None,
        gate: str | None = None,
        address: str | None = None,
    ) -> None:
        metadata: dict[str, Any] = {"name": name, "namespace": namespace, "uid": uid}
        if labels is not None:
            metadata["labels"] = labels
        if annotations is not None:
            metadata["annotations"] = annotations
        spec: dict[str, Any] = {"containers": [{"name": "main", "image": "main"}]}
        if node is not None:
            spec["nodeName"] = node
        if gate is not None:
            spec["readinessGates"] = [{"conditionType": gate}]
        status: dict[str, Any] = {"phase": "Pending" if address is None else "Running"}
        if address is not None:
            status["podIP"] = address
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
        self.objects.put_pod({**pod, "spec": spec, "status": status})

    def close(self) -> None:
        """Stop serving, also those who still wait. Safe to call twice."""
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self.hang_up()
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
        self.server.api.requests.append((self.path, dict(self.headers.items())))
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PATCH(self) -> None:
        self._serve("PATCH")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def _serve(self, method: str) -> None:
        api = self.server.api
        if api.stopping.is_set():  # a connection that was accepted as the server was closed
            self.close_connection = True
            return
        body = None
        if method != "GET":
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(content) if content else None
        api.calls.append((method, self.path, body))
        if api.faults and api.faults.pop(0)(self):
            return
        api.stopping.wait(api.delay_s)
        if self._is_too_much():
            self.status(429, "too many requests", {"Retry-After": "1"})
        elif not self._is_known():
            self.status(401, "Unauthorized")
        else:
            respond(self, method, body)

    def _is_too_much(self) -> bool:
        api, now = self.server.api, time.monotonic()
        api.served_at = [at for at in api.served_at if now - at < 1.0]
        if api.most_per_s is not None and len(api.served_at) >= api.most_per_s:
            return True
        api.served_at.append(now)
        return False

    def status(
        self,
        code: int,
        message: str,
        headers: Headers = None,
        reason: str = "",
        causes: list[dict[str, Any]] | None = None,
    ) -> None:
        """Answer with a Status object."""
        status: dict[str, Any] = {"kind": "Status", "status": "Failure", "message": message}
        status["code"] = code
        if reason:
            status["reason"] = reason
        if causes:
            status["details"] = {"causes": causes}
        self.answer(code, status, headers)

    def answer(self, code: int, value: Any, headers: Headers = None) -> None:
        self.answer_bytes(code, json.dumps(value).encode(), headers)

    def answer_bytes(self, code: int, content: bytes, headers: Headers = None) -> None:
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
