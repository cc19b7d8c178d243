"""Several requests on one connection, one behind the other (RFC 9112 section 9.3.2).

The member carries them out in their order and answers in the same one. Neither it nor this process
has to be woken between two of them, which is most of what a small request costs: four writes take a
seventh of the child's time and half of the member's. `http.client` waits for each answer before
it sends the next request, so that requests are written by hand here, and answers are read as
`ratchet.http` reads any.
"""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import urlencode

from ratchet.cni.dataclasses import dataclass
from ratchet.http import Fields, Received, Response, content
from ratchet_child.store.large import LARGE_BYTES

_FORM = "application/x-www-form-urlencoded"

Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it is sent; `fields` stand in its body if it is a PUT, else in the URL."""

    method: str
    path: str
    fields: Mapping[str, str]

    def encoded(self, host: str, headers: Headers) -> bytes:
        fields, body, target = urlencode(self.fields), "", self.path
        head = [f"Host: {host}", "Accept-Encoding: identity"]
        head += [f"{name}: {value}" for name, value in headers.items()]
        if self.method == "PUT":
            body = fields
            head += [f"Content-Length: {len(body)}", f"Content-Type: {_FORM}"]
        elif fields:
            target = f"{self.path}?{fields}"
        lines = "\r\n".join([f"{self.method} {target} HTTP/1.1", *head])
        return f"{lines}\r\n\r\n{body}".encode("latin-1")


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer that has come as a whole."""

    status: int
    headers: Fields
    data: bytes
    ends_connection: bool
    took_s: float
    """From the sending of the first request."""

    def getheaders(self) -> Fields:
        """Return the headers, as python-etcd asks for them."""
        return self.headers


def send(connected: socket.socket, host: str, requests: Sequence[Sent], headers: Headers) -> None:
    """Send requests, each with these headers as well. *Raises* OSError."""
    connected.sendall(b"".join(one.encoded(host, headers) for one in requests))


def receive(
    connected: socket.socket,
    requests: Sequence[Sent],
    *,
    deadline: float,
    timeout_s: float,
    limit_bytes: int,
    on_large: Callable[[], None],
) -> Iterator[Answered]:
    """Yield the answers to requests that are sent, up to one that ends the connection.

    `deadline` (monotonic seconds) is for the first answer, `timeout_s` for each that follows, and
    `limit_bytes` for each. Raises as `ratchet.http.exchange` does, and ConnectionError when more
    comes than was asked for. The connection is then of no more use.
    """
    started = time.monotonic()
    received = Received(connected.makefile("rb", buffering=0), connected, deadline, limit_bytes)
    shared = _Shared(received)
    try:
        for place, one in enumerate(requests, start=1):
            received.begin(deadline, limit_bytes)
            response = Response(_Source(shared), method=one.method)  # type: ignore[arg-type]
            response.begin()
            data = content(response, limit_bytes, large_bytes=LARGE_BYTES, on_large=on_large)
            is_left_open = place == len(requests) and not response.will_close
            if is_left_open and shared.has_more():
                raise ConnectionError("more comes than was asked for")
            now = time.monotonic()
            deadline, took_s = now + timeout_s, now - started
            yield Answered(response.status, response.headers, data, response.will_close, took_s)
            if response.will_close:
                return
    finally:
        received.close()


class _Shared(io.BufferedReader):
    """What several answers are read from, each of which closes it at its end."""

    raw: Received

    def close(self) -> None:
        """Stay open: the next answer is read from it."""

    def has_more(self) -> bool:
        """Say whether something has come that nobody has read. Nothing is read after that."""
        self.raw.end()
        return bool(self.peek(1))


class _Source:
    """What an answer takes for its socket."""

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared

    def makefile(self, _mode: str) -> _Shared:
        return self._shared
