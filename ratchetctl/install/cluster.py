"""What the installer asks the API server: a token for the node, and whether it is still wanted.

A pod's own token ends with the pod. A node whose DaemonSet pod is being replaced, or cannot be (an
image that is not there), would then be refused by the API server, and a runtime that asks for
STATUS would take the node down. So the node gets a token of its own, by the TokenRequest API, which
lasts a day and is renewed after half of it.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from http import HTTPStatus

from ratchetctl.errors import InstallError
from ratchetctl.install.api import Api, claims, said
from ratchetctl.install.credentials import ServiceAccount

TOKEN_LIFETIME_S = 24 * 3600
ASK_AGAIN_S = 60.0


class Wanted(enum.Enum):
    """Whether the DaemonSet that installs Ratchet is there."""

    YES = "it is there"
    NO = "it is gone"
    UNKNOWN = "the API server does not say"
    REFUSED = "the API server does not let us ask"


class Cluster:
    """The API server, as the service account sees it."""

    def __init__(
        self, account: ServiceAccount, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._api = Api(account)
        self._clock = clock
        self._token: str | None = None
        self._ask_at = 0.0
        self._ends_at = 0.0

    def token(self) -> str:
        """Return a token that outlives this pod, and renew it in time. Raises InstallError."""
        now = self._clock()
        if self._token is not None and now < self._ask_at:
            return self._token
        try:
            token = self._request_token()
            found = claims(token)
            lifetime_s = float(found["exp"] - found["iat"])
        except (InstallError, KeyError, TypeError, ValueError) as error:
            if self._token is None or now > self._ends_at:
                raise InstallError(str(error)) from error
            self._ask_at = now + ASK_AGAIN_S
            return self._token
        # The API server may give less than was asked for, and its clock need not be ours.
        self._token = token
        self._ask_at, self._ends_at = now + lifetime_s / 2, now + lifetime_s
        return token

    def _request_token(self) -> str:
        namespace, name = self._api.identity()
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": TOKEN_LIFETIME_S},
        }
        answer = self._api.ask("POST", path, body)
        if answer.status_code != HTTPStatus.CREATED:
            raise InstallError(f"{path}: the API server answers {said(answer)}")
        try:
            return str(answer.json()["status"]["token"])
        except (ValueError, KeyError, TypeError) as error:
            raise InstallError(f"{path}: the API server's answer is no token") from error

    def wants(self, daemonset: str) -> Wanted:
        """Ask whether the DaemonSet of this name is there.

        A token that is not known any more means that its service account is gone, which
        `kubectl delete -k` removes before the DaemonSet.
        """
        try:
            namespace, _ = self._api.identity()
            path = f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{daemonset}"
            answer = self._api.ask("GET", path)
            if answer.status_code == HTTPStatus.OK:
                is_going = answer.json()["metadata"].get("deletionTimestamp") is not None
                return Wanted.NO if is_going else Wanted.YES
        except (InstallError, ValueError, KeyError, TypeError):
            return Wanted.UNKNOWN
        if answer.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.UNAUTHORIZED):
            return Wanted.NO
        return Wanted.REFUSED if answer.status_code == HTTPStatus.FORBIDDEN else Wanted.UNKNOWN
