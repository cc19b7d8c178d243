"""The socket at which parents ask, and one who asks."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time

from ratchet import client, spawn, statedir
from ratchet_child.service import Answer


class Client:
    """One connection: one request, one answer."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.fd = connection.fileno()
        self.since = time.monotonic()
        self.received = b""
        self.is_asked = False

    def send(self, answer: Answer) -> None:
        """Answer and have the other side see the end. The loop closes when that side does."""
        with contextlib.suppress(OSError):
            self.connection.settimeout(1.0)
            self.connection.sendall(json.dumps(answer, default=str).encode() + b"\n")
            self.connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.close()


def listen(state_dir: str) -> socket.socket:
    """Listen on the socket, in place of an earlier one. *Needs* the lock. *Raises* OSError."""
    statedir.remove(os.path.join(state_dir, statedir.SOCKET))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        client.with_address(state_dir, listener.bind)
    finally:
        os.umask(before)
    listener.listen(spawn.BACKLOG)
    return listener


def identity(path: str) -> tuple[int, int] | None:
    """Return what tells a socket from another in its place; None when there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
