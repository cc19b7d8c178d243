"""One HTTP/1.1 exchange that has an end, in time and in size, for an engine and for etcd alike.

The time-out of a socket begins anew with each byte, and an answer may say that it has more bytes
than there is memory, or say nothing and go on. So the socket's reader keeps the deadline of the
whole exchange and counts what it has read. Nothing is retried, redirected or kept in here: who asks
knows whether a request may be sent twice.

`http.client` costs 20 ms to import: the parent loads this only to ask an engine.
"""

from __future__ import annotations

import http.client
import io
import select
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

_CHUNK_BYTES = 1 << 16


class TooLargeError(OSError):
    """An answer of more bytes than it may have."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"an answer of more than {limit_bytes >> 20} MiB")


class _Bounded(http.client.HTTPResponse):
    """An answer that has come by the deadline and within the limit, or is an error."""

    def bound(self, sock: socket.socket, deadline: float, limit_bytes: int) -> None:
        self.fp = io.BufferedReader(_Received(self.fp.detach(), sock, deadline, limit_bytes))


class _Received(io.RawIOBase):
    """What a socket receives, until the time is over or it is too much. Raises OSError then."""

    def __init__(
        self, raw: io.RawIOBase, sock: socket.socket, deadline: float, limit_bytes: int
    ) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline = deadline
        self._limit_bytes = self._left_bytes = limit_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left_s)
        count: int | None = self._raw.readinto(buffer)
        self._left_bytes -= count or 0
        if self._left_bytes < 0:
            raise TooLargeError(self._limit_bytes)
        return count

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


def exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float,
    begins_in_s: float | None = None,
    limit_bytes: int,
) -> http.client.HTTPResponse:
    """Send a request, connecting first if need be, and return the answer for `content` to read.

    `timeout_s` is for all of it, the reading included, `begins_in_s` for the first byte of the
    answer, and `limit_bytes` for all that is received.
    Raises OSError (TimeoutError past the time, ConnectionError if no connection was made in it),
    HTTPException, and ValueError for a chunk whose length is none. The connection is then of no
    more use.
    """
    deadline = time.monotonic() + timeout_s

    def response(sock: socket.socket, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:
        made = _Bounded(sock, *args, **kwargs)
        made.bound(sock, deadline, limit_bytes)
        return made

    connection.timeout = timeout_s
    connection.response_class = response  # type: ignore[assignment]
    if connection.sock is None:
        try:
            connection.connect()
        except TimeoutError as error:  # not an answer's, which may end a watch
            raise ConnectionError("no connection in time") from error
    connection.sock.settimeout(max(deadline - time.monotonic(), 0.001))
    connection.request(method, path, body, headers or {})
    if begins_in_s is not None:
        _await_answer(connection.sock, begins_in_s)
    return connection.getresponse()


def keep_alive(
    connected: socket.socket,
    *,
    idle_s: int,
    pause_s: int,
    times: int,
    unanswered_s: int | None = None,
) -> None:
    """Have the kernel find out that a machine has gone which is not heard of: tcp(7).

    It asks after `idle_s` of silence, and `times` times with `pause_s` between. What was sent may
    be `unanswered_s` without an answer; None: as long as the kernel tries.
    """
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_s)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, pause_s)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, times)
    if unanswered_s is not None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unanswered_s * 1000)


def _await_answer(connected: socket.socket, begins_in_s: float) -> None:
    poller = select.poll()  # select() knows no descriptors above 1023
    poller.register(connected, select.POLLIN)
    if not poller.poll(begins_in_s * 1000):
        raise ConnectionError("the answer does not begin")


def content(
    response: http.client.HTTPResponse,
    limit_bytes: int,
    *,
    large_bytes: int = 0,
    on_large: Callable[[], None] | None = None,
) -> bytes:
    """Return the body of an answer. Raises as `exchange` does, and TooLargeError.

    `on_large` is called, once, when more than `large_bytes` have come.
    """
    read = bytearray()
    # Never as much as the answer says that it has: that may be more than there is memory.
    while part := response.read(_CHUNK_BYTES):
        read += part
        if len(read) > limit_bytes:
            raise TooLargeError(limit_bytes)
        if on_large is not None and len(read) > large_bytes:
            on_large()
            on_large = None
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return bytes(read)
