"""One HTTP/1.1 exchange that has an end, in time and in size, for an engine and for etcd alike.

The time-out of a socket begins anew with each byte, and an answer may say that it has more bytes
than there is memory, or say nothing and go on. So the socket's reader keeps the deadline of the
whole exchange and counts what it has read. Nothing is retried, redirected or kept in here: who asks
knows whether a request may be sent twice.

`http.client` costs 20 ms to import: the parent loads this only to ask an engine. The head of a
request and that of an answer are written and read here, as the library has a parser of e-mail for
the second and both are half of what a request to etcd costs; the framing of the body is the
library's.
"""

from __future__ import annotations

import http.client
import io
import re
import select
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

_T = TypeVar("_T")

_CHUNK_BYTES = 1 << 16
_MOST_LINE_BYTES = 1 << 16
_MOST_FIELDS = 100
# What would end a line or a target early (RFC 9112 section 3.2, RFC 9110 section 5.5).
_NOT_IN_TARGET = re.compile(r"[^\x21-\x7e]")
_NOT_IN_FIELD = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


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
        self.fp = io.BufferedReader(_Received(self.fp.detach(), sock, deadline, limit_bytes))

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
) -> Response:
    """Send a request, connecting first if need be, and return the answer for `content` to read.

    `timeout_s` is for all of it, the reading included, `begins_in_s` for the first byte of the
    answer, and `limit_bytes` for all that is received.
    Raises OSError (TimeoutError past the time, ConnectionError if no connection was made in it),
    HTTPException, and ValueError for a chunk whose length is none. The connection is then of no
    more use.
    """
    deadline = time.monotonic() + timeout_s
    connection.timeout = timeout_s
    if connection.sock is None:
        try:
            connection.connect()
        except TimeoutError as error:  # not an answer's, which may end a watch
            raise ConnectionError("no connection in time") from error
    sock = connection.sock
    sock.settimeout(max(deadline - time.monotonic(), 0.001))
    sock.sendall(_request(connection, method, path, body, headers or {}))
    if begins_in_s is not None:
        _await_answer(sock, begins_in_s)
    response = Response(sock, method=method)
    response.bound(sock, deadline, limit_bytes)
    try:
        response.begin()
    except BaseException:
        response.close()
        raise
    if response.will_close:
        connection.close()  # the answer has a descriptor of its own
    return response


def _request(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None,
    headers: Mapping[str, str],
) -> bytes:
    """Return a request as it is sent. *Raises* ValueError."""
    if _NOT_IN_TARGET.search(path):
        raise ValueError(f"{path!a} is not part of a URL")
    host = f"[{connection.host}]" if ":" in connection.host else connection.host
    port = "" if connection.port == connection.default_port else f":{connection.port}"
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}{port}", "Accept-Encoding: identity"]
    for name, value in headers.items():
        if _NOT_IN_FIELD.search(value):
            raise ValueError(f"the value of the header {name} has a control character")
        lines.append(f"{name}: {value}")
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode("iso-8859-1") + (body or b"")


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
