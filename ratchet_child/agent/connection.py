"""Requests to the API server: one connection, one request at a time, and streams of lines.

Written over the standard library, as the child has loaded it anyway; decision 16 says what a client
library costs. Proxies, redirects and `.netrc` are not followed: each could carry the credentials
elsewhere. An answer has an end, in time and in size. A watch may be silent for minutes, so the
kernel is asked to find out that the server's machine is gone.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

from ratchet import causes
from ratchet.errors import shown
from ratchet.http import content, exchange, keep_alive
from ratchet_child.agent.credentials import Access, Credentials
from ratchet_child.agent.errors import (
    ApiError,
    AwayError,
    ConflictError,
    ExpiredError,
    ForbiddenError,
    InvalidError,
    MissingError,
    RefusedError,
)

CALL_S = 10.0
LARGEST_ANSWER_BYTES = 4 << 20
# A node's pods at once, or what a watch brings in the minutes that it lasts.
LARGEST_STREAM_BYTES = 256 << 20
_CONNECT_S = 10.0
# A connection that was idle for longer may be closed at its other end, or forgotten on the way.
_LONGEST_IDLE_S = 5.0
_MERGE = "application/strategic-merge-patch+json"


class Connection:
    """A connection for one thread; any thread may `abort` it."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._connection: http.client.HTTPConnection | None = None
        self._access: Access | None = None
        self._used_at = 0.0  # monotonic seconds

    def get(self, path: str, needs: str) -> dict[str, Any]:
        """Return an object. `needs` is the right, as in "get pods", for the error without it.

        *Raises* ApiError, as all requests do. *Blocks at most* `CALL_S`, and for connecting.
        """
        return self._call("GET", path, needs)

    def post(self, path: str, body: Mapping[str, Any], needs: str) -> dict[str, Any]:
        """Make an object."""
        return self._call("POST", path, needs, body, "application/json")

    def patch(self, path: str, body: Mapping[str, Any], needs: str) -> dict[str, Any]:
        """Change an object by a strategic merge patch."""
        return self._call("PATCH", path, needs, body, _MERGE)

    @contextmanager
    def stream(
        self, path: str, query: Mapping[str, str], needs: str, *, lasts_s: float
    ) -> Iterator[http.client.HTTPResponse]:
        """Give an answer to be read bit by bit. *Blocks at most* `lasts_s`, and for connecting."""
        with self._translated(needs):
            response = self._send("GET", f"{path}?{urlencode(query)}", None, {}, lasts_s)
            if response.status != 200:
                self._refuse(response, needs)
            try:
                yield response
            finally:
                self.close()

    def abort(self) -> None:
        """Have the request fail that another thread is waiting for, if any."""
        connected = None if self._connection is None else self._connection.sock
        if connected is not None:
            with contextlib.suppress(OSError):  # it may be closed at this moment
                # Not TLS's own: that is the other thread's.
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection. *Safe to call twice*; the next request makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _call(
        self,
        method: str,
        path: str,
        needs: str,
        body: Mapping[str, Any] | None = None,
        kind: str | None = None,
    ) -> dict[str, Any]:
        sent = None if body is None else json.dumps(body).encode()
        headers = {} if kind is None else {"Content-Type": kind}
        with self._translated(needs):
            was_open = self._connection is not None
            try:
                response = self._send(method, path, sent, headers, CALL_S)
            except (ConnectionError, ssl.SSLEOFError, http.client.BadStatusLine):
                # A connection that was kept and that the server has just closed looks like this.
                # What is sent twice is made once: objects have names, and patches say what is.
                self.close()
                if not was_open:
                    raise
                response = self._send(method, path, sent, headers, CALL_S)
            if not 200 <= response.status < 300:
                self._refuse(response, needs)
            return _decoded(content(response, LARGEST_ANSWER_BYTES))

    def _send(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], lasts_s: float
    ) -> http.client.HTTPResponse:
        access = self._credentials.current()
        idle_s = time.monotonic() - self._used_at
        if access is not self._access or idle_s > _LONGEST_IDLE_S:
            self.close()
        self._access = access
        if self._connection is None:
            connection = _connection(access)
            connection.timeout = min(_CONNECT_S, lasts_s)
            connection.connect()
            # Labels may be some seconds late: the API server of a large cluster is spared.
            keep_alive(connection.sock, idle_s=15, pause_s=5, times=3, unanswered_s=30)
            self._connection = connection
        self._used_at = time.monotonic()
        return exchange(
            self._connection,
            method,
            access.prefix + path,
            body=body,
            headers={**access.headers, **headers},
            timeout_s=lasts_s,
            begins_in_s=min(lasts_s, CALL_S),
            limit_bytes=LARGEST_STREAM_BYTES,
        )

    @contextmanager
    def _translated(self, needs: str) -> Iterator[None]:
        """Translate what a request can raise; a connection on which something failed is closed."""
        try:
            yield
        except ApiError as error:
            if isinstance(error, AwayError | RefusedError):
                self.close()
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise self._error(error, needs) from error

    def _error(self, error: Exception, needs: str) -> ApiError:
        """Return what an error of a library means. Its text is not used: it may hold anything."""
        path = self._credentials.path
        server = "the API server" if self._access is None else self._access.config.server
        if isinstance(error, ssl.SSLCertVerificationError):
            return RefusedError(
                f"the certificate of {server} is not valid ({error.verify_message}), check "
                f"certificate-authority, tls-server-name and server in {path}, and the clock"
            )
        if isinstance(error, ssl.SSLError) and not isinstance(
            error, ssl.SSLEOFError | ssl.SSLZeroReturnError
        ):
            return RefusedError(
                f"no TLS with {server} ({error.reason or 'no reason given'}), check server and the "
                f"client certificate in {path}"
            )
        if isinstance(error, TimeoutError):
            return AwayError(f"{server} does not answer in time ({needs})")
        cause = causes.innermost(error, OSError)
        why = getattr(cause, "strerror", None) or type(error).__name__
        return AwayError(f"{server} cannot be reached ({why})")

    def _refuse(self, response: http.client.HTTPResponse, needs: str) -> None:
        """Raise the error that an answer is."""
        status, path = response.status, self._credentials.path
        said = self._said(response)
        if status == 401:
            self._credentials.refused()
            raise RefusedError(
                f"the API server does not accept the credentials (401), check those in {path}{said}"
            )
        if status == 403:
            raise ForbiddenError(
                f"the API server refuses the request (403), check RBAC: the user of {path} needs "
                f"the right to {needs}{said}"
            )
        for known, kind in ((404, MissingError), (409, ConflictError), (410, ExpiredError)):
            if status == known:
                raise kind(f"{needs}: status {status}{said}")
        if status in (408, 429) or status >= 500:
            raise AwayError(
                f"the API server is busy or broken ({status}){said}",
                status=status,
                retry_after_s=_seconds(response.headers.get("Retry-After", "")),
            )
        raise InvalidError(f"{needs}: the API server answers with status {status}{said}")

    def _said(self, response: http.client.HTTPResponse) -> str:
        """Return what a Status object says, for the end of a sentence; "" without one."""
        try:
            said = _decoded(content(response, LARGEST_ANSWER_BYTES)).get("message")
        except (ApiError, OSError, http.client.HTTPException, ValueError):
            return ""
        finally:
            if not response.isclosed():
                self.close()
        token = None if self._access is None else self._access.config.token
        # A server that repeats the request must not get the token into an error.
        if not isinstance(said, str) or not said or (token and token in said):
            return ""
        return f": {shown(said)}"


class _Secured(http.client.HTTPSConnection):
    """Takes the server name that a kubeconfig may give, and our TLS settings as they are."""

    def __init__(self, access: Access, tls: ssl.SSLContext) -> None:
        super().__init__(access.host, access.port, context=tls)
        self._tls = tls
        self._server_name = access.config.tls_server_name or access.host

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._server_name)


def _connection(access: Access) -> http.client.HTTPConnection:
    if access.tls is None:
        return http.client.HTTPConnection(access.host, access.port)
    return _Secured(access, access.tls)


def _decoded(answer: bytes) -> dict[str, Any]:
    try:
        decoded = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise AwayError("the API server's answer is not JSON") from error
    if not isinstance(decoded, dict):
        raise AwayError("the API server's answer is not an object")
    return decoded


def _seconds(text: str) -> float | None:
    # RFC 9110 §10.2.3 allows a date as well, but the API server sends seconds.
    return float(text) if text.isascii() and text.isdigit() and len(text) < 5 else None
