"""What the API server can answer besides what was asked for.

These never leave the room: an operation answers with the errors of `ratchet.errors`. Each says in
its text what failed and what to check, and none holds a token.
"""

from __future__ import annotations


class ApiError(Exception):
    """A request that was not done."""


class AwayError(ApiError):
    """The server is away, busy or talks nonsense: trying again later may help.

    `retry_after_s` is what it asks for, None when it asks for nothing.
    """

    def __init__(self, text: str, *, status: int | None = None, retry_after_s: float | None = None):
        super().__init__(text)
        self.status = status
        self.retry_after_s = retry_after_s


class RefusedError(ApiError):
    """Somebody has to mend the kubeconfig, the credentials or the rights first."""


class ForbiddenError(RefusedError):
    """The user is known and lacks a right (403)."""


class ExpiredError(ApiError):
    """The server no longer has the resource version that was asked for (410)."""


class MissingError(ApiError):
    """There is no such object (404)."""


class ConflictError(ApiError):
    """The object is not what it was taken for, or is there already (409)."""


class InvalidError(ApiError):
    """The server does not take the request as it is (any other 4xx)."""
