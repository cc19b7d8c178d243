"""The socket at which parents ask, and those who ask there.

What is asked is none of its business: `Clients` calls back with each request's line. It works in
the thread of the child's loop, so neither accepting nor reading ever waits.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ratchet import client, log, spawn, statedir

if TYPE_CHECKING:
    from ratchet_child.service import Answer

MAX_REQUEST_BYTES = 1 << 20
_TIMEOUT_S = 150.0
_MOST = 500


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


class Clients:
    """All who are connected, and the socket at which more of them come."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        state_dir: str,
        asked: Callable[[Client, bytes], None],
    ) -> None:
        """Register with the selector what it is to call; `asked` gets each request's line."""
        self._selector = selector
        self._path = os.path.join(state_dir, statedir.SOCKET)
        self._asked = asked
        self._clients: dict[int, Client] = {}

    @property
    def are_there(self) -> bool:
        """Say whether anybody is connected."""
        return bool(self._clients)

    @property
    def can_come(self) -> bool:
        """Say whether the socket still stands where they look for it."""
        return identity(self._path) == self._identity

    def fileno(self) -> int:
        """Return the listening socket's descriptor."""
        return self._listener.fileno()

    def listen_at(self, listener: socket.socket) -> None:
        """Accept at this socket from now on."""
        listener.setblocking(False)
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._identity = identity(self._path)

    def turn_away(self) -> None:
        """Have nobody connect any more, not even to wait for another child.

        The supervisor has the socket, too: nobody can connect to either any more.
        """
        self._listener.shutdown(socket.SHUT_RD)
        self.shut_out()

    def shut_out(self) -> None:
        """Accept nobody any more, and close the socket. Safe to call twice."""
        self._stop_accepting()
        self._listener.close()

    def leave_to_another(self) -> None:
        """Accept nobody any more: they wait for the next child, and who has asked is served."""
        self._stop_accepting()
        for one in [one for one in self._clients.values() if not one.received]:
            self.drop(one)

    def sweep(self, now: float) -> None:
        """Drop those who have been there for too long."""
        for one in list(self._clients.values()):
            if now - one.since > _TIMEOUT_S:
                self.drop(one)

    def drop(self, one: Client) -> None:
        """End a connection."""
        self._clients.pop(one.fd, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(one.fd)
        one.close()

    def _stop_accepting(self) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(self._listener)

    def _accept(self, _fd: int) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                log.error("a request cannot be accepted", error=str(error))
                return
            connection.setblocking(False)
            if len(self._clients) >= _MOST:
                # Those that have asked nothing first: a parent asks at once.
                self.drop(min(self._clients.values(), key=lambda one: (one.is_asked, one.since)))
            self._clients[connection.fileno()] = Client(connection)
            self._selector.register(connection, selectors.EVENT_READ, self._readable)

    def _readable(self, fd: int) -> None:
        one = self._clients.get(fd)
        if one is None:
            return
        try:
            data = one.connection.recv(1 << 16)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if one.is_asked:
            if not data:
                self.drop(one)  # the parent has gone: nobody reads the answer
            return
        one.received += data
        line, newline, _ = one.received.partition(b"\n")
        if newline:
            one.is_asked = True
            self._asked(one, line)
        elif not data or len(one.received) > MAX_REQUEST_BYTES:
            self.drop(one)


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
