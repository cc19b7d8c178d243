"""The API server, as a pod's service account reaches it: a request, and who is asking.

Apart from the parent's reader of labels because nobody waits for these few requests, and they are
of every kind.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import requests

from ratchetctl.errors import InstallError
from ratchetctl.install.credentials import ServiceAccount

TIMEOUT_S = 5.0
MERGE = "application/merge-patch+json"
_JSON = "application/json"
_SUBJECT = "system:serviceaccount:"


class Api:
    """Asks with the pod's own token, which is read anew each time because the kubelet renews it."""

    def __init__(self, account: ServiceAccount) -> None:
        self._account = account

    def ask(
        self, method: str, path: str, body: object = None, content_type: str = _JSON
    ) -> requests.Response:
        """Return the answer, whatever its status. Raises InstallError when there is none."""
        headers = {
            "Authorization": f"Bearer {self._account.token()}",
            "Accept": _JSON,
            "Content-Type": content_type,
        }
        with requests.Session() as session:
            session.trust_env = False  # neither proxies nor ~/.netrc
            try:
                return session.request(
                    method,
                    self._account.api_server + path,
                    data=None if body is None else json.dumps(body),
                    headers=headers,
                    verify=self._account.ca_path,
                    timeout=TIMEOUT_S,
                    allow_redirects=False,
                )
            except (requests.RequestException, OSError) as error:
                raise InstallError(f"{path}: {error}") from error

    def identity(self) -> tuple[str, str]:
        """Return the service account's namespace and name as its token has them.

        Raises InstallError.
        """
        try:
            subject = claims(self._account.token())["sub"]
            namespace, name = subject.removeprefix(_SUBJECT).split(":")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InstallError(
                f"{self._account.token_path} is not a service account's token"
            ) from error
        return namespace, name


def said(answer: requests.Response) -> str:
    """Return the status and the reason of a refusal."""
    try:
        return f"{answer.status_code}: {answer.json()['message']}"
    except (ValueError, KeyError, TypeError):
        return str(answer.status_code)


def claims(token: str) -> dict[str, Any]:
    """Return what a token says of itself (RFC 7519 §3). Raises ValueError."""
    parts = token.split(".")
    if len(parts) != 3:
        raise ValueError("it has not three parts")
    found = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    if not isinstance(found, dict):
        raise ValueError("its claims are no object")
    return found
