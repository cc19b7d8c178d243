"""HTTP/1.1 to one etcd member, and for python-etcd's watch in the place of its urllib3 pool.

A thread of the child has one connection to a member, so a pool, redirects, proxies and retries are
of no use here, and they are half of the CPU time of a request. A request that may write is sent
once: whoever made it knows whether it may be carried out twice. One that only reads, and gets no
answer on a connection that was there already, is sent once more on a new one. An answer has an end,
in time and in size: the time-out of a socket would begin anew with each byte.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlencode

from urllib3 import make_headers
from urllib3.exceptions import ReadTimeoutError

from ratchet.http import Fields, Response, await_answer, content, exchange, keep_alive
from ratchet_child.store import pipeline
from ratchet_child.store.large import LARGE_BYTES
from ratchet_child.store.pipeline import Answered, Sent

# Of what concerns one pod or one node: 20,000 declarations are less.
LARGEST_ANSWER_BYTES = 8 << 20
# Of a listing of the whole cluster: 20 MB for a thousand nodes.
LARGEST_LISTING_BYTES = 32 << 20

# A connection that was idle for longer is not trusted: making another costs less than a millisecond
# (a few with TLS), and finding out that a NAT has forgotten it costs a request its time-out.
LONGEST_IDLE_S = 5.0
# How long a read waits for its answer on a connection that it has found.
SUSPECT_S = 1.0

# What a request raises that is not answered.
NO_ANSWER = (OSError, http.client.HTTPException, ReadTimeoutError)


class Transport:
    """A connection to one member; `request` and `clear` are what python-etcd asks of a pool.

    Every request raises OSError, HTTPException or, when the answer does not come in time,
    ReadTimeoutError.
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        """Prepare it; `context` says how TLS is spoken, None without. Sends nothing yet."""
        self._connection = (
            http.client.HTTPConnection(host, port)
            if context is None
            else http.client.HTTPSConnection(host, port, context=context)
        )
        self._used_at = 0.0  # monotonic seconds
        self.status: int | None = None
        """The status of the last answer; None while there is none."""
        self._credentials: Mapping[str, str] = {}
        self.on_large: Callable[[], None] | None = None
        """Called while an answer is read that is large; it may raise OSError."""

    def request(
        self,
        method: str,
        url: str,
        *,
        fields: Mapping[str, str] | None,
        timeout: float,
        headers: Mapping[str, str],
        **_: object,
    ) -> Answer:
        """Ask once, with the fields in the URL: python-etcd's watch, whose answer may take long.

        `timeout`: seconds to connect, to send and for the whole answer to come, in all.
        """
        query = f"?{urlencode(fields)}" if fields else ""
        self._ready()
        return self._once(method, _path(url) + query, headers, timeout)

    def get(self, path: str, timeout_s: float) -> bytes:
        """Return what stands at a path that python-etcd does not know. *Raises* OSError."""
        try:
            (found,) = self.together([Sent("GET", path, {})], timeout_s, lambda: None)
        except (ReadTimeoutError, http.client.HTTPException) as error:
            raise ConnectionError("no answer") from error
        return found.data

    def log_in(self, username: str, password: str) -> None:
        """Have requests say who asks; of a watch python-etcd says it."""
        self._credentials = make_headers(basic_auth=f"{username}:{password}")

    def together(
        self,
        requests: Sequence[Sent],
        timeout_s: float,
        on_large: Callable[[], None],
        limit_bytes: int = LARGEST_ANSWER_BYTES,
    ) -> list[Answered]:
        """Send requests one behind the other, and return their answers.

        `timeout_s`: seconds to connect, to send and for the first answer to come, and for each that
        follows. Requests that only read, and whose answers do not come on a connection that was
        there already, are sent once more on a new one. `on_large` is called while an answer is
        read that is large.
        """
        answers: list[Answered] = []
        while len(answers) < len(requests):
            # What comes behind the answer that ends a connection has not been carried out (RFC 9112
            # section 9.6). A proxy may end one with each answer.
            left = requests[len(answers) :]
            answers += self._at_once(left, timeout_s, on_large, limit_bytes)
        return answers

    def _at_once(
        self,
        requests: Sequence[Sent],
        timeout_s: float,
        on_large: Callable[[], None],
        limit_bytes: int,
    ) -> list[Answered]:
        """Send requests, and return the answers up to one that ends the connection."""
        started = time.monotonic()
        connection = self._ready()
        if connection.sock is not None and all(one.method == "GET" for one in requests):
            try:
                begins_in_s = min(timeout_s / 3, SUSPECT_S)
                return self._once_together(requests, timeout_s, on_large, limit_bytes, begins_in_s)
            except NO_ANSWER:
                timeout_s -= time.monotonic() - started
                if timeout_s <= 0:
                    raise
        return self._once_together(requests, timeout_s, on_large, limit_bytes)

    def _once_together(
        self,
        requests: Sequence[Sent],
        timeout_s: float,
        on_large: Callable[[], None],
        limit_bytes: int,
        begins_in_s: float | None = None,
    ) -> list[Answered]:
        connection, self.status = self._connection, None
        deadline = time.monotonic() + timeout_s
        try:
            if connection.sock is None:
                _connect(connection, timeout_s)
            connected = connection.sock
            connected.settimeout(max(deadline - time.monotonic(), 0.001))
            pipeline.send(connected, _host(connection), requests, self._credentials)
            if begins_in_s is not None:
                await_answer(connected, begins_in_s)
            answers = list(
                pipeline.receive(
                    connected,
                    requests,
                    deadline=deadline,
                    timeout_s=timeout_s,
                    limit_bytes=limit_bytes,
                    on_large=on_large,
                )
            )
            self.status = answers[-1].status
            self._used()
        except BaseException as error:
            connection.close()
            _tell_timeout(error)
            raise
        if answers[-1].ends_connection:
            connection.close()
        return answers

    def clear(self) -> None:
        """Close the connection; the next request makes another."""
        self._connection.close()

    def abort(self) -> None:
        """Have the request fail that another thread is waiting for, if any."""
        connected = self._connection.sock
        if connected is not None:
            with contextlib.suppress(OSError):  # it may be closed at this moment
                # Not TLS's own: that is the other thread's.
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

    def _ready(self) -> http.client.HTTPConnection:
        """Return the connection, closed if it is not to be trusted any more."""
        connection = self._connection
        idle_s = time.monotonic() - self._used_at
        if connection.sock is not None and (
            idle_s > LONGEST_IDLE_S or _is_readable(connection.sock)
        ):
            # The member has closed it, or says what nobody has asked; or something between here
            # and there may have forgotten it, which a request would find out by its time-out.
            connection.close()
        return connection

    def _once(self, method: str, path: str, headers: Mapping[str, str], timeout_s: float) -> Answer:
        connection, self.status = self._connection, None
        deadline = time.monotonic() + timeout_s
        try:
            if connection.sock is None:
                _connect(connection, timeout_s)
                timeout_s = max(deadline - time.monotonic(), 0.001)
            response = exchange(
                connection,
                method,
                path,
                headers=headers,
                timeout_s=timeout_s,
                limit_bytes=LARGEST_ANSWER_BYTES,
            )
            self.status = response.status
            return Answer(connection, response, self._used, LARGEST_ANSWER_BYTES, self.on_large)
        except BaseException as error:
            connection.close()
            _tell_timeout(error)
            raise

    def _used(self) -> None:
        self._used_at = time.monotonic()


class Answer:
    """An answer whose body has yet to come: a watch's comes with the change."""

    def __init__(
        self,
        connection: http.client.HTTPConnection,
        response: Response,
        on_end: Callable[[], None],
        limit_bytes: int,
        on_large: Callable[[], None] | None,
    ) -> None:
        self._on_end = on_end
        self._limit_bytes = limit_bytes
        self._on_large = on_large
        self.status = response.status
        self._connection = connection
        self._response = response
        self._data: bytes | None = None

    @property
    def data(self) -> bytes:
        """The body. *Blocks* until it has come; raises what a request raises."""
        if self._data is None:
            try:
                self._data = content(
                    self._response,
                    self._limit_bytes,
                    large_bytes=LARGE_BYTES,
                    on_large=self._on_large,
                )
                self._on_end()
            except BaseException as error:
                self._response.close()  # where it ends with the connection, it alone has that
                self._connection.close()
                _tell_timeout(error)
                raise
        return self._data

    def getheader(self, name: str) -> str | None:
        return self._response.headers.get(name)

    def getheaders(self) -> Fields:
        """Return the headers, by name in whatever case."""
        return self._response.headers


def _path(url: str) -> str:
    """Return a URL's path, which python-etcd has quoted."""
    return "/" + url.split("/", 3)[3]


def _host(connection: http.client.HTTPConnection) -> str:
    """Return what a request has for its Host (RFC 9110 section 7.2)."""
    host = f"[{connection.host}]" if ":" in connection.host else connection.host
    return f"{host}:{connection.port}"


def _connect(connection: http.client.HTTPConnection, timeout_s: float) -> None:
    """Connect, with keep-alive: a watch waits for long, and nobody else would notice its end."""
    connection.timeout = timeout_s
    try:
        connection.connect()
    except TimeoutError as error:  # not an answer's, which may end a watch
        raise ConnectionError("no connection in time") from error
    # Links wait for what a watch brings: its member is missed after eleven seconds.
    keep_alive(connection.sock, idle_s=5, pause_s=2, times=3)


def _is_readable(connected: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connected, select.POLLIN)
    return bool(poll.poll(0))


def _tell_timeout(error: BaseException) -> None:
    """Raise an answer's timeout as python-etcd knows it: a watch that hears nothing ends so."""
    if isinstance(error, TimeoutError):
        raise ReadTimeoutError(None, "", "no answer in time") from error  # type: ignore[arg-type]
