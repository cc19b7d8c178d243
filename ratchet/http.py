"""One HTTP/1.1 exchange that has an end, in time and in size, for an engine and for etcd alike.

The time-out of a socket begins anew with each byte, and an answer may say that it has more bytes
than there is memory, or say nothing and go on. So the socket's reader keeps the deadline of the
whole exchange and counts what it has read. Nothing is retried, redirected or kept in here: who asks
knows whether a request may be sent twice.

`http.client` costs 20 ms to import: the parent loads this only to ask an engine. The head of
an answer is read here, as the library parses it as an e-mail, which is a third of what a request to
etcd costs; all else is the library's.
"""

from __future__ import annotations

import http.client
import io
import select
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast, overload

_T = TypeVar("_T")

_CHUNK_BYTES = 1 << 16
_MOST_LINE_BYTES = 1 << 16
_MOST_FIELDS = 100


class TooLargeError(OSError):
    """An answer of more bytes than it may have."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"an answer of more than {limit_bytes >> 20} MiB")


class Fields:
    """The fields of an answer's head, by name in whatever case. Of several the first one counts."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def add(self, name: str, value: str) -> None:
        self._values.setdefault(name.lower(), value)

    @overload
    def get(self, name: str) -> str | None: ...

    @overload
    def get(self, name: str, default: _T) -> str | _T: ...

    def get(self, name: str, default: Any = None) -> Any:
        return self._values.get(name.lower(), default)


class Response(http.client.HTTPResponse):
    """An answer that has come by the deadline and within the limit, or is an error."""

    headers: Fields  # type: ignore[assignment]

    def bound(self, sock: socket.socket, deadline: float, limit_bytes: int) -> None:
        self.fp = io.BufferedReader(Received(self.fp.detach(), sock, deadline, limit_bytes))

    def begin(self) -> None:
        """Read the head, as the base class does, and find out how the body ends."""
        status = http.client.CONTINUE
        while 100 <= status < 200:  # RFC 9110 section 15.2: others come before the answer
            version, status, reason = self._read_status()  # type: ignore[attr-defined]
            fields = _read_fields(self.fp)
        if not version.startswith("HTTP/1."):
            raise http.client.UnknownProtocol(version)
        self.version = 10 if version == "HTTP/1.0" else 11
        self.code = self.status = status
        self.reason = reason.strip()
        self.headers = self.msg = fields  # type: ignore[assignment]
        self.chunked = fields.get("transfer-encoding", "").lower() == "chunked"
        self.chunk_left = None
        length = fields.get("content-length", "")
        if status in (http.client.NO_CONTENT, http.client.NOT_MODIFIED):
            self.length = 0
        else:
            is_stated = not self.chunked and length.isascii() and length.isdigit()
            self.length = int(length) if is_stated else None
        has_end = self.chunked or self.length is not None
        self.will_close = self._check_close() or not has_end  # type: ignore[attr-defined]


def _read_fields(file: Any) -> Fields:
    """Read the fields of a head, with the empty line at its end. *Raises* HTTPException."""
    fields = Fields()
    for _ in range(_MOST_FIELDS + 1):
        line = file.readline(_MOST_LINE_BYTES + 1)
        if len(line) > _MOST_LINE_BYTES:
            raise http.client.LineTooLong("header line")
        if line in (b"\r\n", b"\n", b""):
            return fields
        name, _, value = line.decode("iso-8859-1").partition(":")
        fields.add(name, value.strip())
    raise http.client.HTTPException(f"got more than {_MOST_FIELDS} headers")


class Received(io.RawIOBase):
    """What a socket receives, until the time is over or it is too much. Raises OSError then."""

    def __init__(
        self, raw: io.RawIOBase, sock: socket.socket, deadline: float, limit_bytes: int
    ) -> None:
        self._raw = raw
        self._sock = sock
        self._has_ended = False
        self.begin(deadline, limit_bytes)

    def begin(self, deadline: float, limit_bytes: int) -> None:
        """Have what comes from now on come by this deadline and within this limit."""
        self._deadline = deadline
        self._limit_bytes = self._left_bytes = limit_bytes

    def end(self) -> None:
        """Read nothing more."""
        self._has_ended = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._has_ended:
            return 0
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
) -> Response:
    """Send a request, connecting first if need be, and return the answer for `content` to read.

    `timeout_s` is for all of it, the reading included, `begins_in_s` for the first byte of the
    answer, and `limit_bytes` for all that is received.
    Raises OSError (TimeoutError past the time, ConnectionError if no connection was made in it),
    HTTPException, and ValueError for a chunk whose length is none. The connection is then of no
    more use.
    """
    deadline = time.monotonic() + timeout_s

    def response(sock: socket.socket, *args: Any, **kwargs: Any) -> Response:
        made = Response(sock, *args, **kwargs)
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
        await_answer(connection.sock, begins_in_s)
    return cast(Response, connection.getresponse())


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


def await_answer(connected: socket.socket, begins_in_s: float) -> None:
    """Wait for the first byte of an answer. *Raises* ConnectionError when it does not come."""
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
