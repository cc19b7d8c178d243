"""A private, real etcd with the v2 API in a namespace, plain or secured, and a look at its keys.

Keys are read by plain HTTP on a socket made in that namespace, not by python-etcd: the program
under test uses that, and its reading of the answers is part of what is tested.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import urllib.parse
from typing import Any

from tests.lab.namespaces import Namespace
from tests.lab.polling import wait_for

START_TIMEOUT_S = 20.0
HTTP_TIMEOUT_S = 5.0
ROOT = "password-of-root"


class Etcd:
    """One etcd member that can be stopped, paused and started again with its data."""

    def __init__(self, namespace: Namespace, address: str, port: int, directory: str) -> None:
        self.namespace = namespace
        self.address = address
        self.port = port
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        # Where the tests themselves ask it, and as whom.
        self._door = address
        self._headers: dict[str, str] = {}
        self._has_root = False

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and wait until it answers. Safe to call twice."""
        if self.running:
            return
        clients = self._client_urls()
        peer = f"http://127.0.0.1:{self.port + 1}"
        with open(os.path.join(self._directory, "etcd.log"), "ab") as log:
            self._process = subprocess.Popen(
                self.namespace.command(
                    "etcd",
                    *("--name", "only", "--data-dir", os.path.join(self._directory, "etcd")),
                    "--enable-v2",
                    *("--listen-client-urls", ",".join(clients)),
                    *("--advertise-client-urls", clients[0]),
                    *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                    *("--initial-cluster", f"only={peer}"),
                    *("--log-level", "error"),
                    *self._more_options(),
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_for(
            "etcd to answer",
            self.answers,
            until=lambda well: well or not self.running,
            timeout_s=START_TIMEOUT_S,
        )
        if not self.running:
            with open(os.path.join(self._directory, "etcd.log")) as log:
                raise AssertionError(f"etcd has ended: {log.read()[-2000:]}")

    def _client_urls(self) -> list[str]:
        return [f"http://{self.address}:{self.port}"]

    def _more_options(self) -> list[str]:
        return []

    def stop(self) -> None:
        """Kill it, as a crash does; the data stay. Safe to call twice."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def answers(self) -> bool:
        """Say whether it is there and well."""
        if not self.running:
            return False
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = self._connect()
            try:
                connection.request("GET", "/health")
                answer = connection.getresponse()
                return answer.status == 200 and json.loads(answer.read())["health"] == "true"
            finally:
                connection.close()
        return False

    # Keys

    def get(self, key: str) -> str | None:
        """Return a key's value, None when it is not there."""
        answer = self._request("GET", key, query="?quorum=true")
        value = (answer or {}).get("node", {}).get("value")
        return None if value is None else str(value)

    def put(self, key: str, value: str) -> None:
        assert self._request("PUT", key, value=value) is not None

    def delete(self, key: str) -> None:
        """Delete a key or a directory with all that is in it. Safe to call twice."""
        self._request("DELETE", key, query="?recursive=true")

    def tree(self, key: str = "/") -> dict[str, str | None]:
        """Return every key below `key` with its value; directories end in a slash and have None."""
        return {
            f"{node['key']}/" if node.get("dir") else node["key"]: node.get("value")
            for node in self._below(key)
            if node.get("key", "/") not in ("/", key) or not node.get("dir")
        }

    def expiring(self) -> set[str]:
        """Return every key that goes by itself after some time, directories left out."""
        return {node["key"] for node in self._below("/") if "ttl" in node and not node.get("dir")}

    def _below(self, key: str) -> list[dict[str, Any]]:
        """Return what stands at and below a key, each directory before what is in it."""
        answer = self._request("GET", key, query="?recursive=true&quorum=true")
        found = [] if answer is None else [answer["node"]]
        for node in found:  # which grows meanwhile
            found += node.get("nodes", [])
        return found

    def keys(self, key: str = "/") -> dict[str, str]:
        """Return every key below `key` with its value, directories left out."""
        return {name: value for name, value in self.tree(key).items() if value is not None}

    def reads(self) -> int:
        """Return how often it has been asked for a key or directory, found or not."""
        return self._asked("gets")

    def writes(self) -> int:
        """Return how often it was to change something, with success or not."""
        return self._asked(
            *("sets", "create", "update", "delete", "compareAndSwap", "compareAndDelete")
        )

    def _asked(self, *operations: str) -> int:
        connection = self._connect()
        try:
            connection.request("GET", "/v2/stats/store", headers=self._headers)
            found = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return sum(int(found[f"{one}{how}"]) for one in operations for how in ("Success", "Fail"))

    def wipe(self) -> None:
        """Delete everything."""
        for key in list(self.tree()):
            self.delete(key.rstrip("/"))

    # v2 authentication

    def require_users(self) -> None:
        """Turn authentication on: guests may do nothing from now on."""
        if not self._has_root:
            self.auth("PUT", "users/root", {"user": "root", "password": ROOT})
        self.auth("PUT", "enable")
        token = base64.b64encode(f"root:{ROOT}".encode()).decode()
        self._headers = {"Authorization": f"Basic {token}"}
        if not self._has_root:
            self._has_root = True
            everything = {"kv": {"read": ["/*"], "write": ["/*"]}}
            self.auth("PUT", "roles/guest", {"role": "guest", "revoke": everything})

    def admit_guests(self) -> None:
        """Turn it off again; users and roles stay. Safe to call twice."""
        if self._headers:
            self.auth("DELETE", "enable")
            self._headers = {}

    def role(self, name: str, read: list[str], write: list[str]) -> None:
        with contextlib.suppress(AssertionError):
            self.auth("DELETE", f"roles/{name}")
        kv = {"read": read, "write": write}
        self.auth("PUT", f"roles/{name}", {"role": name, "permissions": {"kv": kv}})

    def user(self, name: str, password: str, *roles: str) -> None:
        """Make a user, in the place of an earlier one."""
        with contextlib.suppress(AssertionError):
            self.auth("DELETE", f"users/{name}")
        self.auth("PUT", f"users/{name}", {"user": name, "password": password, "roles": roles})

    def auth(self, method: str, what: str, body: dict[str, Any] | None = None) -> None:
        connection = self._connect()
        try:
            connection.request(
                method,
                f"/v2/auth/{urllib.parse.quote(what)}",
                None if body is None else json.dumps(body),
                {"Content-Type": "application/json", **self._headers},
            )
            answer = connection.getresponse()
            said = answer.read()
        finally:
            connection.close()
        assert answer.status in (200, 201), (method, what, answer.status, said)

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self._door, self.port, timeout=HTTP_TIMEOUT_S)
        connection.sock = self.namespace.do(
            lambda: socket.create_connection((self._door, self.port), HTTP_TIMEOUT_S)
        )
        return connection

    def _request(
        self, method: str, key: str, *, query: str = "", value: str | None = None
    ) -> dict[str, Any] | None:
        """Send one request; None for a key that is not there."""
        body = None if value is None else urllib.parse.urlencode({"value": value})
        connection = self._connect()
        try:
            connection.request(
                method,
                f"/v2/keys{urllib.parse.quote(key, safe='/:')}{query}",
                body,
                {
                    **({"Content-Type": "application/x-www-form-urlencoded"} if body else {}),
                    **self._headers,
                },
            )
            answer = connection.getresponse()
            decoded: dict[str, Any] = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status == 404:
            return None
        assert answer.status in (200, 201), decoded
        return decoded


class SecureEtcd(Etcd):
    """One member that speaks TLS to those who show a certificate of its CA.

    It speaks plain HTTP as well, at `plain_port`, for what v2 authentication alone has to show, and
    to the tests themselves; and TLS at `misnamed`, an address that is not in its certificate.
    """

    misnamed = "127.0.0.2"

    def __init__(
        self,
        namespace: Namespace,
        address: str,
        port: int,
        directory: str,
        ca_cert: str,
        server: tuple[str, str],
    ) -> None:
        super().__init__(namespace, address, port, directory)
        self.plain_port = port + 2
        self.ca_cert = ca_cert
        self.server = server
        self._door = "127.0.0.1"

    def _client_urls(self) -> list[str]:
        return [
            f"https://{self.address}:{self.port}",
            f"http://{self.address}:{self.plain_port}",
            f"http://{self._door}:{self.port}",
            f"https://{self.misnamed}:{self.port}",
        ]

    def _more_options(self) -> list[str]:
        return [
            *("--cert-file", self.server[0], "--key-file", self.server[1]),
            *("--client-cert-auth", "--trusted-ca-file", self.ca_cert),
        ]
