"""A private etcd with the v2 API, of one member or of three, and a plain connection to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.parse
from typing import Any

from ratchetctl.sim import environment, netns

START_TIMEOUT_S = 20.0
REQUEST_TIMEOUT_S = 10.0
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class EtcdError(Exception):
    """It does not start, or refuses what the benchmark asks."""


class Etcd:
    """Members that listen on one address of a namespace, at consecutive ports."""

    def __init__(self, namespace: str, address: str, port: int, folder: str) -> None:
        self.namespace = namespace
        self.address = address
        self.port = port
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    @property
    def ports(self) -> list[int]:
        return [self.port + 2 * number for number in range(len(self._processes))]

    def start(self, members: int = 1) -> None:
        """Start it and wait until it answers. *Raises* EtcdError."""
        os.makedirs(self._folder, exist_ok=True)
        peers = [f"http://{self.address}:{self.port + 2 * one + 1}" for one in range(members)]
        cluster = ",".join(f"m{number}={peer}" for number, peer in enumerate(peers))
        environ = {k: v for k, v in environment.clean().items() if not k.startswith("ETCD_")}
        for number, peer in enumerate(peers):
            client = f"http://{self.address}:{self.port + 2 * number}"
            with (
                open(os.path.join(self._folder, f"log{number}"), "wb") as log,
                netns.inside(self.namespace),
            ):
                self._processes.append(
                    subprocess.Popen(
                        [
                            "etcd",
                            f"--name=m{number}",
                            f"--data-dir={self._folder}/m{number}",
                            f"--listen-client-urls={client}",
                            f"--advertise-client-urls={client}",
                            f"--listen-peer-urls={peer}",
                            f"--initial-advertise-peer-urls={peer}",
                            f"--initial-cluster={cluster}",
                            "--enable-v2=true",
                            "--log-level=error",
                        ],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        cwd="/",
                        env=environ,
                        start_new_session=True,
                    )
                )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if time.monotonic() > deadline:
                raise EtcdError(f"etcd does not answer, see {self._folder}/log0")
            time.sleep(0.05)

    def _answers(self) -> bool:
        for port in self.ports:
            try:
                connection = Connection(self.namespace, self.address, port)
                try:
                    connection.put("/bench", "x")
                finally:
                    connection.close()
            except (OSError, http.client.HTTPException, EtcdError, ValueError):
                return False
        return True

    def stop(self) -> None:
        """End it and remove its data. *Safe to call twice.*"""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self._processes.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def connect(self) -> Connection:
        return Connection(self.namespace, self.address, self.port)

    def cpu_s(self) -> float:
        """Return seconds of CPU that all members have used."""
        return sum(cpu_s(pid) for pid in self.pids)

    def rss_kb(self) -> int:
        return sum(memory_kb(pid, "VmRSS") for pid in self.pids)


class Connection:
    """One connection that stays open, as the child's."""

    def __init__(self, namespace: str, address: str, port: int) -> None:
        self._http = http.client.HTTPConnection(address, port, timeout=REQUEST_TIMEOUT_S)
        with netns.inside(namespace):
            self._http.connect()
        self._http.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self._http.close()

    def put(self, key: str, value: str) -> None:
        """Write a key. *Raises* EtcdError."""
        status, answer = self._request(
            "PUT", key, "", urllib.parse.urlencode({"value": value}), _FORM
        )
        if status not in (200, 201):
            raise EtcdError(f"PUT {key}: {answer}")

    def get(self, key: str) -> dict[str, Any] | None:
        """Return a key, by a quorum read; None when it is not there."""
        status, answer = self._request("GET", key, "?quorum=true", None, {})
        return answer if status == 200 else None

    def tree(self, key: str) -> dict[str, str]:
        """Return every key below a directory with its value."""
        status, answer = self._request("GET", key, "?recursive=true&quorum=true", None, {})
        found: dict[str, str] = {}
        if status == 200:
            _collect(answer["node"], found)
        return found

    def _request(
        self, method: str, key: str, query: str, body: str | None, headers: dict[str, str]
    ) -> tuple[int, dict[str, Any]]:
        self._http.request(method, f"/v2/keys{key}{query}", body, headers)
        response = self._http.getresponse()
        return response.status, json.loads(response.read() or b"{}")


def _collect(node: dict[str, Any], found: dict[str, str]) -> None:
    if not node.get("dir"):
        found[node["key"]] = node.get("value", "")
    for inner in node.get("nodes", ()):
        _collect(inner, found)


def cpu_s(pid: int) -> float:
    """Return seconds of CPU of a process, by clock ticks; 0 when it is gone (proc_pid_stat(5))."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def threads_cpu_s(pid: int) -> float:
    """Return the same to the nanosecond, of the threads that there are now (proc(5), schedstat)."""
    spent_ns = 0
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as file:
                spent_ns += int(file.read().split()[0])
    return spent_ns / 1e9


def memory_kb(pid: int, name: str) -> int:
    """Return VmRSS, VmHWM or Threads of a process; 0 when it is gone. See proc_pid_status(5)."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(f"{name}:"):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0
