"""What a cluster can answer instead of what was asked for.

ClusterError            (ratchetctl/errors.py) shown as one line; exit status 1
├── ConfigError         a context that is not there, a plugin that gives nothing
│   └── NoConfigError   there is no kubeconfig at all
├── AwayError           the API server cannot be reached, or is busy or broken
├── RefusedError        401: who asks is not known, or TLS fails
├── ForbiddenError      403: who asks is known, and lacks a right
├── MissingError        404: there is no such object, namespace or kind
├── ConflictError       409: other field managers own the fields, or the object has changed
├── InvalidError        422 and 400: the object is wrong
└── ExpiredError        410: the version that a watch starts from has been forgotten
"""

from __future__ import annotations

from dataclasses import dataclass

from ratchetctl.errors import ClusterError


class ConfigError(ClusterError):
    """It is not known which cluster is meant, or as whom."""


class NoConfigError(ConfigError):
    """There is no kubeconfig, and this is no pod."""


class AwayError(ClusterError):
    """The API server cannot be reached, does not answer in time, or is busy or broken."""


class RefusedError(ClusterError):
    """The API server does not accept the credentials, or its certificate is not accepted."""


class ForbiddenError(ClusterError):
    """A right is missing."""


class MissingError(ClusterError):
    """There is no such object."""


class InvalidError(ClusterError):
    """The API server does not take the object."""


class ExpiredError(ClusterError):
    """The resource version is too old to be watched from."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A field that somebody else manages, as server-side apply tells of it."""

    manager: str
    field: str


class ConflictError(ClusterError):
    """Somebody else manages fields of the object (`owners`), or it has changed meanwhile."""

    def __init__(self, message: str, owners: tuple[Owner, ...] = ()) -> None:
        super().__init__(message)
        self.owners = owners
