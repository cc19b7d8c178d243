"""What the installer asks the API server: a token for the node, and whether it is still wanted.

A pod's own token ends with the pod. A node whose DaemonSet pod is being replaced, or cannot be (an
image that is not there), would then be refused by the API server, and a runtime that asks for
STATUS would take the node down. So the node gets a token of its own, by the TokenRequest API, which
lasts a day and is renewed after half of it.
"""

from __future__ import annotations

import base64
import enum
import json
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import requests

from ratchetctl.errors import InstallError
from ratchetctl.install.credentials import ServiceAccount

TIMEOUT_S = 5.0
TOKEN_LIFETIME_S = 24 * 3600
ASK_AGAIN_S = 60.0
_SUBJECT = "system:serviceaccount:"


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
        self._account = account
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
            claims = _claims(token)
            lifetime_s = float(claims["exp"] - claims["iat"])
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
        namespace, name = self._identity()
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": TOKEN_LIFETIME_S},
        }
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        try:
            answer = self._ask("POST", path, json.dumps(body))
            if answer.status_code != HTTPStatus.CREATED:
                raise InstallError(f"{path}: the API server answers {_said(answer)}")
            return str(answer.json()["status"]["token"])
        except requests.RequestException as error:
            raise InstallError(f"{path}: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InstallError(f"{path}: the API server's answer is no token") from error

    def wants(self, daemonset: str) -> Wanted:
        """Ask whether the DaemonSet of this name is there.

        A token that is not known any more means that its service account is gone, which
        `kubectl delete -k` removes before the DaemonSet.
        """
        try:
            namespace, _ = self._identity()
            path = f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{daemonset}"
            answer = self._ask("GET", path)
            if answer.status_code == HTTPStatus.OK:
                is_going = answer.json()["metadata"].get("deletionTimestamp") is not None
                return Wanted.NO if is_going else Wanted.YES
        except (InstallError, requests.RequestException, ValueError, KeyError, TypeError):
            return Wanted.UNKNOWN
        if answer.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.UNAUTHORIZED):
            return Wanted.NO
        return Wanted.REFUSED if answer.status_code == HTTPStatus.FORBIDDEN else Wanted.UNKNOWN

    def _ask(self, method: str, path: str, body: str | None = None) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False  # neither proxies nor ~/.netrc
            return session.request(
                method,
                self._account.api_server + path,
                data=body,
                headers={
                    "Authorization": f"Bearer {self._account.token()}",
                    "Accept": "application/json",
                    "Content-Type": "application/json",
                },
                verify=self._account.ca_path,
                timeout=TIMEOUT_S,
                allow_redirects=False,
            )

    def _identity(self) -> tuple[str, str]:
        """Return the service account's namespace and name as its token has them.

        Raises InstallError.
        """
        try:
            subject = _claims(self._account.token())["sub"]
            namespace, name = subject.removeprefix(_SUBJECT).split(":")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InstallError(
                f"{self._account.token_path} is not a service account's token"
            ) from error
        return namespace, name


def _claims(token: str) -> dict[str, Any]:
    """Return what a token says of itself (RFC 7519 §3). Raises ValueError."""
    parts = token.split(".")
    if len(parts) != 3:
        raise ValueError("it has not three parts")
    claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    if not isinstance(claims, dict):
        raise ValueError("its claims are no object")
    return claims


def _said(answer: requests.Response) -> str:
    try:
        return f"{answer.status_code}: {answer.json()['message']}"
    except (ValueError, KeyError, TypeError):
        return str(answer.status_code)
