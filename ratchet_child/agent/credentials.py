"""How the agent is known to the API server: a kubeconfig, read again when one of its files changes.

Tokens and certificates are renewed while the agent runs. A kubeconfig that cannot be read takes
nothing away: what was read last goes on being used, for that is how the cluster can be told of it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import threading
from urllib.parse import urlsplit

from ratchet import kubeconfig
from ratchet.cni.dataclasses import dataclass
from ratchet.errors import PodSourceError
from ratchet_child.agent.errors import RefusedError
from ratchet_child.model.clock import Clock

# Of its life, that a token may have left before somebody should have renewed it. The kubelet renews
# those that it projects into pods when a fifth is left.
_LATE = 0.1
_LATEST_WARNING_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Access:
    """One API server and one identity."""

    config: kubeconfig.Kubeconfig
    host: str
    port: int
    prefix: str
    tls: ssl.SSLContext | None
    token_ends: float | None  # seconds since the epoch
    token_began: float | None

    @property
    def headers(self) -> dict[str, str]:
        headers = {"User-Agent": "ratchet-agent", "Accept": "application/json"}
        if self.config.token is not None:
            headers["Authorization"] = f"Bearer {self.config.token}"
        return headers


class Credentials:
    """Those of one kubeconfig. Threads may share it."""

    def __init__(self, path: str, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._access: Access | None = None
        self._stamp: object = None
        self._error: str | None = None

    def current(self) -> Access:
        """Return how the server is reached now. *Raises* RefusedError when nobody ever said."""
        with self._lock:
            files = (self.path,) if self._access is None else self._access.config.files
            stamp = kubeconfig.stamp(files)
            if self._access is None or stamp != self._stamp:
                self._read()
            if self._access is None:
                raise RefusedError(self._error or "")
            return self._access

    def refused(self) -> None:
        """Have everything read anew: what was read is not accepted."""
        with self._lock:
            self._stamp = None

    def trouble(self) -> str | None:
        """Look at the files, and return what is wrong with them, or will be soon."""
        with contextlib.suppress(RefusedError):
            self.current()
        with self._lock:
            return self._error or self._ending()

    def _read(self) -> None:
        try:
            access = _access(kubeconfig.read(self.path))
        except PodSourceError as error:
            # Which files it would name is not known, so it is read again each time.
            self._error, self._stamp = f"{error.subject}: {error.details}", None
            return
        self._access, self._error = access, None
        self._stamp = kubeconfig.stamp(access.config.files)

    def _ending(self) -> str | None:
        access = self._access
        if access is None or access.token_ends is None:
            return None
        left_s = access.token_ends - self._clock.time()
        if left_s <= 0:
            return (
                f"the token of kubeconfig {self.path} has expired and was not renewed, or this "
                f"node's clock is wrong"
            )
        life_s = access.token_ends - (access.token_began or 0)
        if left_s < min(life_s * _LATE, _LATEST_WARNING_S):
            minutes = max(round(left_s / 60), 1)
            return f"the token of kubeconfig {self.path} expires in {minutes} min, renew it"
        return None


def _access(config: kubeconfig.Kubeconfig) -> Access:
    """Return what a kubeconfig says. *Raises* PodSourceError."""
    url = urlsplit(config.server)
    secured = url.scheme == "https"
    ends, began = (None, None) if config.token is None else _life(config.token)
    return Access(
        config=config,
        host=url.hostname or "",
        port=url.port or (443 if secured else 80),
        prefix=url.path,
        tls=kubeconfig.tls(config) if secured else None,
        token_ends=ends,
        token_began=began,
    )


def _life(token: str) -> tuple[float | None, float | None]:
    """Return when a service account's token ends and began; None where it does not say so.

    It is a JSON web token (RFC 7519). Nothing is believed of it: the server decides.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None, None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        ends = claims.get("exp")
        began = claims.get("iat", claims.get("nbf"))
    except (ValueError, RecursionError, AttributeError):
        return None, None
    return _moment(ends), _moment(began)


def _moment(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e11:
        return None
    return float(value)
