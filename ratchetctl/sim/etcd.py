"""The cluster's etcd: a private one on the underlay, or a door to the one that was given.

Nodes only have the underlay, so a given etcd (--etcd HOST:PORT), which lies in the host's network,
is reached through a forwarder that listens on the underlay. Both end with the simulation, because
they live in its underlay namespace.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from ratchetctl.errors import EtcdError, SimError
from ratchetctl.sim import environment, netns
from ratchetctl.sim.directory import SimDirectory
from ratchetctl.sim.underlay import ROUTER_ADDRESS

PORT = 2379
PEER_PORT = 2380
HEARTBEAT_MS, ELECTION_MS = 20, 100
START_TIMEOUT_S = 20.0
START_PAUSE_S = 0.02
# One that was given runs already.
GIVEN_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 5.0
LOG_LINES = 5


def start(directory: SimDirectory, underlay: str) -> None:
    """Start a private etcd with the v2 API. Blocks until it answers. Raises SimError."""
    home = directory.etcd()
    os.mkdir(home, 0o700)
    url = f"http://{ROUTER_ADDRESS}:{PORT}"
    peer_url = f"http://{ROUTER_ADDRESS}:{PEER_PORT}"
    log = os.path.join(home, "log")
    command = [
        "etcd",
        "--name=ratchet-sim",
        f"--data-dir={home}/data",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=ratchet-sim={peer_url}",
        # On by default up to 3.3, off from 3.4, gone in 3.6.
        "--enable-v2=true",
        # It elects itself after a part of the election's time: a second, unless it is said here.
        f"--heartbeat-interval={HEARTBEAT_MS}",
        f"--election-timeout={ELECTION_MS}",
    ]
    _start(directory, underlay, command, log, "etcd", START_TIMEOUT_S)


def forward(directory: SimDirectory, underlay: str, target: str) -> None:
    """Make the given etcd (HOST:PORT) reachable on the underlay. Raises SimError."""
    home = directory.etcd()
    os.mkdir(home, 0o700)
    host, port = parse_endpoint(target)
    try:
        # From here, where the reason is known; the forwarder can only hang up.
        socket.create_connection((host, port), GIVEN_TIMEOUT_S).close()
    except OSError as error:
        raise SimError(f"etcd at {target} does not answer: {error.strerror or error}") from error
    command = [*_ourselves(), "sim", "forward", underlay, f"{ROUTER_ADDRESS}:{PORT}"]
    log = os.path.join(home, "log")
    _start(directory, None, [*command, f"{host}:{port}"], log, target, GIVEN_TIMEOUT_S)


def parse_endpoint(text: str) -> tuple[str, int]:
    """Read HOST:PORT, [IPv6]:PORT or HOST. Raises SimError."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        raise SimError(f"--etcd {text!r}: write HOST:PORT")
    return host, int(port)


def keys(underlay: str, prefix: str) -> dict[str, str]:
    """Return every key below the prefix and its value. Raises EtcdError."""
    status, answer = _get(underlay, f"/v2/keys{prefix}?recursive=true&sorted=true&quorum=true")
    if status == http.HTTPStatus.NOT_FOUND:
        return {}
    if status != http.HTTPStatus.OK:
        raise EtcdError(f"etcd answered {status}: {answer}")
    found: dict[str, str] = {}
    _collect(answer.get("node", {}), found)
    return found


def _collect(node: Mapping[str, Any], found: dict[str, str]) -> None:
    if not node.get("dir"):
        found[node["key"]] = node.get("value", "")
    for inner in node.get("nodes", ()):
        _collect(inner, found)


def _get(underlay: str, path: str) -> tuple[int, Any]:
    with netns.inside(underlay):
        connection = http.client.HTTPConnection(ROUTER_ADDRESS, PORT, timeout=REQUEST_TIMEOUT_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"{}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise EtcdError(f"etcd at {ROUTER_ADDRESS}:{PORT} does not answer: {error}") from error
        finally:
            connection.close()


def _start(
    directory: SimDirectory,
    inside: str | None,
    command: list[str],
    log: str,
    name: str,
    timeout_s: float,
) -> None:
    try:
        with open(log, "ab") as output, netns.inside(inside or netns.OWN_NAMESPACE):
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                # etcd reads every flag from ETCD_… as well; a person's own would disturb.
                env={
                    key: value
                    for key, value in environment.clean().items()
                    if not key.startswith("ETCD_")
                },
                start_new_session=True,
            )
    except FileNotFoundError as error:
        raise SimError(
            "the program etcd is missing: install it (Debian: etcd-server; 3.3 to 3.5, which have"
            " the v2 API), or give a running one with --etcd HOST:PORT"
        ) from error
    underlay = directory.netns("underlay")
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            status, answer = _get(underlay, "/v2/keys/")
        except EtcdError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SimError(f"{name} does not answer: {error}\n{_tail(log)}".rstrip()) from error
            time.sleep(START_PAUSE_S)
            continue
        if status == http.HTTPStatus.NOT_FOUND and "errorCode" not in answer:
            raise SimError(f"{name} has no v2 API: it takes etcd 3.3, or 3.4/3.5 with --enable-v2")
        # It outlives us; Python would otherwise warn of a child that was not waited for.
        process.returncode = 0
        return


def _tail(log: str) -> str:
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            return "".join(f"  {line}" for line in file.readlines()[-LOG_LINES:]).rstrip()
    except OSError:
        return ""


def _ourselves() -> list[str]:
    if getattr(sys, "frozen", False):
        return [sys.executable]
    return [sys.executable, "-m", "ratchetctl"]
