"""etcd for the fault suite: one member or three, to be killed, stopped and paused."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
from dataclasses import dataclass
from typing import Any

from tests.lab.etcd_server import HTTP_TIMEOUT_S, START_TIMEOUT_S, Etcd
from tests.lab.namespaces import Namespace
from tests.lab.polling import wait_for

NOISE = "/noise"
NODES = "/ratchet/nodes"
BELL_TTL_S = 30


@dataclass(frozen=True)
class Key:
    value: str | None  # None for a directory
    expires: bool


class Members(Etcd):
    """A cluster of etcd members in one namespace, the first at `address`.

    What `Etcd` asks is asked of any member that is well.
    """

    def __init__(
        self, namespace: Namespace, addresses: list[str], port: int, directory: str
    ) -> None:
        super().__init__(namespace, addresses[0], port, directory)
        self.addresses = addresses
        self._folder = directory
        self._members: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def hosts(self) -> str:
        """`etcd_host` of a configuration."""
        return ",".join(f"{address}:{self.port}" for address in self.addresses)

    @property
    def running(self) -> bool:
        return any(one.poll() is None for one in self._members.values())

    @property
    def pids(self) -> set[int]:
        return {one.pid for one in self._members.values()}

    def start(self) -> None:
        """Start the members that do not run and wait until all answer. Safe to call twice."""
        for address in self.addresses:
            if address not in self._members or self._members[address].poll() is not None:
                self._start(address)
        for address in self.addresses:
            wait_for(
                f"etcd at {address} to answer",
                lambda address=address: self.is_well(address),  # type: ignore[misc]
                timeout_s=START_TIMEOUT_S,
            )

    def _start(self, address: str) -> None:
        peers = {one: f"http://{one}:{self.port + 1}" for one in self.addresses}
        client = f"http://{address}:{self.port}"
        with open(os.path.join(self._folder, "etcd.log"), "ab") as log:
            self._members[address] = subprocess.Popen(
                self.namespace.command(
                    # It has a machine of its own elsewhere; with late heartbeats it has no leader.
                    *("nice", "-n", "-10", "etcd"),
                    *("--name", address),
                    *("--data-dir", os.path.join(self._folder, f"etcd-{address}")),
                    "--enable-v2",
                    *("--listen-client-urls", client, "--advertise-client-urls", client),
                    *("--listen-peer-urls", peers[address]),
                    *("--initial-advertise-peer-urls", peers[address]),
                    *("--initial-cluster", ",".join(f"{k}={v}" for k, v in peers.items())),
                    *("--log-level", "error"),
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def stop(self) -> None:
        """Kill them all, as a crash does; the data stay. Safe to call twice."""
        for one in self._members.values():
            one.kill()
        for one in self._members.values():
            one.wait()
        self._members.clear()

    def pause(self) -> None:
        for one in self._members.values():
            one.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        for one in self._members.values():
            one.send_signal(signal.SIGCONT)

    # One of them

    def kill(self, address: str) -> None:
        """Kill one member; `start` brings it back."""
        one = self._members.pop(address)
        one.kill()
        one.wait()

    def pause_one(self, address: str) -> None:
        self._members[address].send_signal(signal.SIGSTOP)

    def leader(self) -> str | None:
        """The address of the member that leads, None when there is none."""
        for address in self.addresses:
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                if self._json(address, "/v2/stats/self").get("state") == "StateLeader":
                    return address
        return None

    def is_well(self, address: str) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            return self._json(address, "/health").get("health") == "true"
        return False

    def answers(self) -> bool:
        return any(self.is_well(address) for address in self.addresses)

    def _json(self, address: str, path: str) -> dict[str, Any]:
        connection = self._connection(address)
        try:
            connection.request("GET", path)
            decoded: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return decoded

    def _connect(self) -> http.client.HTTPConnection:
        for address in self.addresses[:-1]:
            with contextlib.suppress(OSError):
                return self._connection(address)
        return self._connection(self.addresses[-1])

    def _connection(self, address: str) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(address, self.port, timeout=HTTP_TIMEOUT_S)
        connection.sock = self.namespace.do(
            lambda: socket.create_connection((address, self.port), HTTP_TIMEOUT_S)
        )
        # http.client sends a body by itself, for which the kernel would wait 40 ms.
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    # Keys

    def everything(self) -> dict[str, Key]:
        """Every key and directory below the root; directories end in a slash."""
        answer = self._request("GET", "/", query="?recursive=true&quorum=true")
        found: dict[str, Key] = {}

        def collect(node: dict[str, Any]) -> None:
            if node.get("dir"):
                if node.get("key"):
                    found[node["key"] + "/"] = Key(None, False)
                for child in node.get("nodes", []):
                    collect(child)
            else:
                found[node["key"]] = Key(node["value"], "expiration" in node)

        if answer is not None:
            collect(answer["node"])
        return found

    def ring(self, address: str) -> None:
        """Ring the bell of a node that has pods, as a pod that nobody there is linked with."""
        if self.tree(f"{NODES}/{address}/pods"):
            self._request(
                "PUT",
                f"{NODES}/{address}/bell/nobody",
                query=f"?ttl={BELL_TTL_S}",
                value="nobody",
            )

    def make_noise(self, events: int) -> None:
        """Change keys that are nobody's, so that etcd's history of 1,000 events passes by."""
        connection = self._connect()
        try:
            for number in range(events):
                connection.request(
                    "PUT",
                    f"/v2/keys{NOISE}",
                    f"value={number}",
                    {"Content-Type": "application/x-www-form-urlencoded"},
                )
                connection.getresponse().read()
        finally:
            connection.close()
        self.delete(NOISE)
