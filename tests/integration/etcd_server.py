"""A private, real etcd with the v2 API in a namespace, and a look at its keys.

Keys are read by plain HTTP on a socket made in that namespace, not by python-etcd: the program
under test uses that, and its reading of the answers is part of what is tested.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import urllib.parse
from typing import Any

from tests.integration.namespaces import Namespace
from tests.integration.polling import wait_for

START_TIMEOUT_S = 20.0
HTTP_TIMEOUT_S = 5.0


class Etcd:
    """One etcd member that can be stopped, paused and started again with its data."""

    def __init__(self, namespace: Namespace, address: str, port: int, directory: str) -> None:
        self.namespace = namespace
        self.address = address
        self.port = port
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and wait until it answers. Safe to call twice."""
        if self.running:
            return
        client = f"http://{self.address}:{self.port}"
        peer = f"http://127.0.0.1:{self.port + 1}"
        with open(os.path.join(self._directory, "etcd.log"), "ab") as log:
            self._process = subprocess.Popen(
                self.namespace.command(
                    "etcd",
                    *("--name", "only", "--data-dir", os.path.join(self._directory, "etcd")),
                    "--enable-v2",
                    *("--listen-client-urls", client, "--advertise-client-urls", client),
                    *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                    *("--initial-cluster", f"only={peer}"),
                    *("--log-level", "error"),
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_for("etcd to answer", self.answers, timeout_s=START_TIMEOUT_S)

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
        answer = self._request("GET", key, query="?recursive=true&quorum=true")
        found: dict[str, str | None] = {}

        def collect(node: dict[str, Any]) -> None:
            if node.get("dir"):
                if node.get("key", "/") not in ("/", key):
                    found[node["key"] + "/"] = None
                for child in node.get("nodes", []):
                    collect(child)
            else:
                found[node["key"]] = node["value"]

        if answer is not None:
            collect(answer["node"])
        return found

    def keys(self, key: str = "/") -> dict[str, str]:
        """Return every key below `key` with its value, directories left out."""
        return {name: value for name, value in self.tree(key).items() if value is not None}

    def wipe(self) -> None:
        """Delete everything."""
        for key in list(self.tree()):
            self.delete(key.rstrip("/"))

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.address, self.port, timeout=HTTP_TIMEOUT_S)
        connection.sock = self.namespace.do(
            lambda: socket.create_connection((self.address, self.port), HTTP_TIMEOUT_S)
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
                {"Content-Type": "application/x-www-form-urlencoded"} if body else {},
            )
            answer = connection.getresponse()
            decoded: dict[str, Any] = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status == 404:
            return None
        assert answer.status in (200, 201), decoded
        return decoded
