"""Requests to the API server over urllib3: connections that several threads share, and errors.

urllib3 keeps connections, repeats what a busy server has put off (429 and 503 with Retry-After) and
goes through proxies. What is ours is who asks: tokens that are renewed, plugins for credentials.
Redirects and `.netrc` are not followed: each could carry the credentials elsewhere.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    MaxRetryError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from ratchet import __version__, causes, kubeconfig
from ratchet.errors import PodSourceError, shown
from ratchetctl.api import execution
from ratchetctl.api.errors import (
    AwayError,
    ConfigError,
    ConflictError,
    ExpiredError,
    ForbiddenError,
    InvalidError,
    MissingError,
    Owner,
    RefusedError,
)
from ratchetctl.api.settings import Settings
from ratchetctl.errors import ClusterError

CONNECT_S = 10.0
ANSWER_S = 60.0  # an API server ends requests after a minute by itself
LARGEST_ANSWER_BYTES = 64 << 20
LONGEST_LINE_BYTES = 8 << 20
PARALLEL = 8
ATTEMPTS = 6
LONGEST_PAUSE_S = 20.0
RENEW_FILES_S = 60.0  # how often a token's file is read again, as client-go does it
_PIECE_BYTES = 1 << 16


class _Repeat(urllib3.Retry):
    """Repeat what was put off, as long as the server says and not for hours."""

    def get_retry_after(self, response: urllib3.BaseHTTPResponse) -> float | None:
        told = super().get_retry_after(response)
        return None if told is None else min(told, LONGEST_PAUSE_S)


# All that is asked can be asked twice: objects have names, and an apply says what should be.
_REPEAT = _Repeat(
    total=ATTEMPTS,
    connect=0,
    read=2,
    redirect=0,
    status=ATTEMPTS,
    other=0,
    allowed_methods=None,
    status_forcelist=(429, 503),
    backoff_factor=0.5,
    backoff_max=LONGEST_PAUSE_S,
    raise_on_status=False,
)
_ONCE = urllib3.Retry(total=0, redirect=0, raise_on_status=False)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: `needs` is the verb and resource, as in "patch pods", for errors."""

    method: str
    path: str
    needs: str
    about: str = ""  # the object or namespace that it is about
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class _Access:
    pool: urllib3.PoolManager
    server: str
    headers: urllib3.HTTPHeaderDict = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    good_until: float | None  # seconds since the epoch


class Connection:
    """A way to one API server as one identity. Threads may share it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._access: _Access | None = None

    def ask(self, request: Request) -> dict[str, Any]:
        """Return the answer, an object. *Raises* ClusterError."""
        with self._exchange(request, ANSWER_S, _REPEAT) as (response, access):
            content = _read(response, access)
        return _decoded(content)

    @contextmanager
    def lines(self, request: Request, silent_s: float) -> Iterator[Iterator[dict[str, Any]]]:
        """Give an answer as objects, one a line, as they come. *Raises* ClusterError.

        A server that says nothing for `silent_s` ends them.
        """
        with self._exchange(request, silent_s, _ONCE) as (response, _):
            yield map(_decoded, _split(response))

    def close(self) -> None:
        """Close all connections. *Safe to call twice*."""
        with self._lock:
            access, self._access = self._access, None
        if access is not None:
            access.pool.clear()

    @contextmanager
    def _exchange(
        self, request: Request, timeout_s: float, repeat: urllib3.Retry
    ) -> Iterator[tuple[urllib3.BaseHTTPResponse, _Access]]:
        access = self._current()
        with _translated(request, access):
            response = _send(access, request, timeout_s, repeat)
            if response.status == 401 and self._renew(access):
                response.drain_conn()
                access = self._current()
                response = _send(access, request, timeout_s, repeat)
            try:
                if not 200 <= response.status < 300:
                    raise _refusal(request, access, response, self.settings)
                yield response, access
            finally:
                response.close()
                response.release_conn()

    def _current(self) -> _Access:
        with self._lock:
            access = self._access
            if access is None or (
                access.good_until is not None and time.time() >= access.good_until
            ):
                access = self._access = _access(self.settings)
            return access

    def _renew(self, refused: _Access) -> bool:
        """Forget credentials that were refused; False when they cannot become others."""
        with self._lock:
            if self._access is refused:
                self._access = None
        return self.settings.exec is not None or bool(self.settings.user.get("tokenFile"))


def _access(settings: Settings) -> _Access:
    """Make a way to the server. *Raises* ConfigError."""
    given = None
    spec = settings.exec
    good_until = time.time() + RENEW_FILES_S if settings.user.get("tokenFile") else None
    if spec is not None and not settings.user.get("token") and good_until is None:
        given = execution.run(settings, spec)
        if given.ends is not None:
            good_until = given.ends - execution.RENEW_S
    config = settings.access(given.fields if given else None)
    headers = urllib3.HTTPHeaderDict(
        {"User-Agent": f"ratchetctl/{__version__}", "Accept": "application/json"}
    )
    if config.token is not None:
        headers["Authorization"] = f"Bearer {config.token}"
    for name, value in settings.impersonation():
        headers.add(name, value)
    secrets = (config.token,) if config.token else ()
    return _Access(_pool(settings, config), config.server, headers, secrets, good_until)


def _pool(settings: Settings, config: kubeconfig.Kubeconfig) -> urllib3.PoolManager:
    keys: dict[str, Any] = {"maxsize": PARALLEL, "num_pools": 1, "block": False}
    if config.server.startswith("https:"):
        try:
            keys["ssl_context"] = kubeconfig.tls(config)
        except PodSourceError as error:
            raise ConfigError(f"{error.subject}: {error.details}") from error
        if config.tls_server_name:
            keys["server_hostname"] = config.tls_server_name
    proxy = settings.proxy or _proxy_of(config.server)
    if proxy is None:
        return urllib3.PoolManager(**keys)
    try:
        return urllib3.ProxyManager(proxy, **keys)
    except (urllib3.exceptions.ProxySchemeUnknown, LocationParseError) as error:
        raise ConfigError(
            f"kubeconfig {settings.files}: the proxy {shown(proxy)}: allowed is a URL that begins"
            " with http:// or https://"
        ) from error


def _proxy_of(server: str) -> str | None:
    """Return the proxy that the environment names for a server, as kubectl takes it."""
    url = urlsplit(server)
    if not url.hostname or urllib.request.proxy_bypass(url.netloc):
        return None
    return urllib.request.getproxies().get(url.scheme)


def _send(
    access: _Access, request: Request, timeout_s: float, repeat: urllib3.Retry
) -> urllib3.BaseHTTPResponse:
    query = f"?{urlencode(request.query)}" if request.query else ""
    headers = urllib3.HTTPHeaderDict(access.headers)
    if request.body is not None:
        headers["Content-Type"] = request.content_type
    return access.pool.request(
        request.method,
        f"{access.server}{request.path}{query}",
        body=request.body,
        headers=headers,
        timeout=urllib3.Timeout(connect=CONNECT_S, read=timeout_s),
        retries=repeat,
        redirect=False,
        preload_content=False,
    )


def _read(response: urllib3.BaseHTTPResponse, access: _Access) -> bytes:
    content = response.read(LARGEST_ANSWER_BYTES + 1, decode_content=True)
    if len(content) > LARGEST_ANSWER_BYTES:
        raise AwayError(
            f"the answer of {access.server} is larger than {LARGEST_ANSWER_BYTES >> 20} MiB"
        )
    return content


def _split(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for piece in response.stream(_PIECE_BYTES, decode_content=True):
        *lines, rest = (rest + piece).split(b"\n")
        yield from filter(None, lines)
        if len(rest) > LONGEST_LINE_BYTES:
            raise AwayError(f"an event is larger than {LONGEST_LINE_BYTES >> 20} MiB")


def _decoded(content: bytes) -> dict[str, Any]:
    try:
        decoded = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise AwayError("the API server's answer is not JSON") from error
    if not isinstance(decoded, dict):
        raise AwayError("the API server's answer is not an object")
    return decoded


def _refusal(
    request: Request,
    access: _Access,
    response: urllib3.BaseHTTPResponse,
    settings: Settings,
) -> ClusterError:
    """Return the error that an answer is."""
    code = response.status
    try:
        status = _decoded(_read(response, access))
    except (ClusterError, HTTPError):
        status = {}
    said = _message(status, access)
    about = f" {request.about}" if request.about else ""
    if code == 401:
        return RefusedError(
            f"{access.server} does not accept the credentials (401); check the user of context"
            f" {settings.context} in {settings.files}{said}"
        )
    if code == 403:
        return ForbiddenError(
            f"not allowed to {request.needs}{about} (403); check the roles of the user, and quotas"
            f" and pod security of the namespace{said}"
        )
    if code == 404:
        return MissingError(f"{request.needs}{about}: not found (404){said}")
    if code == 409:
        owners = tuple(_owners(status))
        named = "; ".join(f"{one.manager} manages {one.field}" for one in owners)
        why = f": {named}" if named else said
        return ConflictError(f"{request.needs}{about}: conflict (409){why}", owners)
    if code == 410:
        return ExpiredError(f"{request.needs}{about}: too old (410){said}")
    if code in (408, 429) or code >= 500:
        return AwayError(
            f"{access.server} is busy or broken ({code}): {request.needs}{about}{said}"
        )
    return InvalidError(f"{request.needs}{about}: refused ({code}){said}")


def _message(status: Mapping[str, Any], access: _Access) -> str:
    """Return what a Status object says, for the end of a sentence."""
    said = status.get("message")
    # A server that repeats the request must not get the token into an error.
    if not isinstance(said, str) or not said or any(one in said for one in access.secrets):
        return ""
    return f": {said[:1000]}" if said.isprintable() else f": {shown(said)}"


def _owners(status: Mapping[str, Any]) -> Iterator[Owner]:
    """Yield who manages the fields of a conflict: Status has it as causes."""
    details = status.get("details")
    causes_ = details.get("causes") if isinstance(details, dict) else None
    for one in causes_ or ():
        if isinstance(one, dict) and one.get("reason") == "FieldManagerConflict":
            message = str(one.get("message", ""))
            parts = message.split('"')
            manager = parts[1] if len(parts) > 2 else message
            yield Owner(manager, str(one.get("field", "")).lstrip("."))


@contextmanager
def _translated(request: Request, access: _Access) -> Iterator[None]:
    try:
        yield
    except (HTTPError, OSError) as error:
        raise _meant(error, request, access.server) from error


def _meant(error: Exception, request: Request, server: str) -> ClusterError:
    """Return what an error of urllib3 means."""
    reason: object = error
    while isinstance(reason, MaxRetryError) and reason.reason is not None:
        reason = reason.reason
    if isinstance(reason, ProxyError):
        why = causes.innermost(reason, OSError)
        return AwayError(
            f"the proxy on the way to {server} cannot be used ({_why(why)}); check proxy-url,"
            " https_proxy and no_proxy"
        )
    invalid = causes.innermost(error, ssl.SSLCertVerificationError)
    if isinstance(invalid, ssl.SSLCertVerificationError):
        return RefusedError(
            f"the certificate of {server} is not valid ({invalid.verify_message}); check"
            " certificate-authority, tls-server-name and server in the kubeconfig, and the clock"
        )
    if isinstance(reason, SSLError):
        why = causes.innermost(error, ssl.SSLError)
        return RefusedError(
            f"no TLS with {server} ({getattr(why, 'reason', None) or _why(why)}); check server and"
            " the client certificate in the kubeconfig"
        )
    # What cannot be connected to is one of urllib3's time-outs, too.
    is_late = isinstance(reason, ConnectTimeoutError | ReadTimeoutError | TimeoutError)
    if is_late and not isinstance(reason, NewConnectionError):
        return AwayError(f"{server} does not answer in time ({request.needs})")
    return AwayError(f"{server} cannot be reached ({_why(causes.innermost(error, OSError))})")


def _why(cause: object) -> str:
    return getattr(cause, "strerror", None) or type(cause).__name__
