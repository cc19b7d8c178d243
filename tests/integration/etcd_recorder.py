"""A door to etcd that writes down every request, and passes bytes on as they come.

It speaks no HTTP of its own: the child and etcd hear each other's bytes. A request is read from
what the child sends, by its Content-Length; of answers nothing is read. The child sends no request
before the earlier one of the same connection is answered, and each thread of it has a connection
of its own, so the requests of one connection are what one thread did.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass

from tests.lab.namespaces import Namespace


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it was sent, with its fields in their order."""

    client: str
    """The address of the node that sent it."""
    connection: int
    at: float
    """Monotonic seconds."""
    method: str
    path: str
    fields: tuple[tuple[str, str], ...]
    form: tuple[tuple[str, str], ...]

    @property
    def is_watch(self) -> bool:
        return ("wait", "true") in self.fields


class Recorder:
    """Listens beside an etcd, at its address and at a port of its own."""

    def __init__(self, namespace: Namespace, address: str, port: int, etcd_port: int) -> None:
        self.port = port
        self._namespace = namespace
        self._etcd = (address, etcd_port)
        self._lock = threading.Lock()
        self._asked: list[Asked] = []
        self._opened: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = namespace.do(lambda: socket.create_server((address, port)))
        self._thread = threading.Thread(target=self._accept, name="recorder")
        self._thread.start()

    def close(self) -> None:
        """Stop, and close every connection. Safe to call twice."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for opened in self._opened:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for opened in self._opened:
            opened.close()

    def take(self) -> list[Asked]:
        """Return what has been asked since the last call, in the order of arrival."""
        with self._lock:
            asked, self._asked = self._asked, []
        return asked

    def wait_quiet(self, quiet_s: float, timeout_s: float) -> None:
        """Wait until nothing but a watch has been asked for a while."""
        end = time.monotonic() + timeout_s
        since = time.monotonic()
        while time.monotonic() < since + quiet_s:
            assert time.monotonic() < end, f"etcd is asked without end: {self._asked[-5:]}"
            time.sleep(0.02)
            with self._lock:
                since = max([since, *(one.at for one in self._asked if not one.is_watch)])

    # Passing on

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                near, (client, *_) = self._listener.accept()
            except OSError:
                return
            try:
                far = self._namespace.do(lambda: socket.create_connection(self._etcd, 5.0))
            except OSError:  # as if nobody listened
                near.close()
                continue
            far.settimeout(None)
            for opened in (near, far):  # as etcd does: several answers may come one after the other
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number += 1
            self._opened += [near, far]
            self._start(self._back, far, near)
            self._start(self._there, near, far, client, number)

    def _start(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, name="recorder")
        self._threads.append(thread)
        thread.start()

    def _there(self, near: socket.socket, far: socket.socket, client: str, number: int) -> None:
        unread = b""
        while data := received(near):
            unread += data
            while (cut := end_of_request(unread)) is not None:
                asked = parsed(unread[:cut], client, number)
                with self._lock:  # before etcd can answer
                    self._asked.append(asked)
                unread = unread[cut:]
            with contextlib.suppress(OSError):
                far.sendall(data)
        with contextlib.suppress(OSError):
            far.shutdown(socket.SHUT_WR)

    @staticmethod
    def _back(far: socket.socket, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := received(far):
                near.sendall(data)
        with contextlib.suppress(OSError):
            near.shutdown(socket.SHUT_RDWR)


def received(opened: socket.socket) -> bytes:
    """Return what has come, nothing when the connection is over."""
    try:
        return opened.recv(1 << 16)
    except OSError:
        return b""


def end_of_request(data: bytes) -> int | None:
    """Return the length of the first request, None while it is not all there."""
    head, found, _ = data.partition(b"\r\n\r\n")
    if not found:
        return None
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
    end = len(head) + len(found) + length
    return end if len(data) >= end else None


def parsed(data: bytes, client: str, connection: int) -> Asked:
    head, _, body = data.partition(b"\r\n\r\n")
    method, target, _ = head.split(b"\r\n")[0].decode("ascii").split(" ")
    path, _, query = target.partition("?")
    return Asked(
        client=client,
        connection=connection,
        at=time.monotonic(),
        method=method,
        path=urllib.parse.unquote(path),
        fields=tuple(urllib.parse.parse_qsl(query, keep_blank_values=True)),
        form=tuple(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True)),
    )
