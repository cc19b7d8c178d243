"""CNI errors: a code, a message and details, as the specification's error JSON has them.

They are apart from ``ratchet.errors`` because the specification's own codes (1 to 99) belong to CNI
and ours (from 100) to Ratchet, and because ``ratchet.cni`` knows nothing of Ratchet.

CNI spec 1.1.0, "Error": codes 1 to 99 are reserved, those from 100 are the plugin's own.
"""

from __future__ import annotations

INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
UNKNOWN_CONTAINER = 3
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
UNDECODABLE = 6
INVALID_CONFIG = 7
TRY_AGAIN_LATER = 11
NOT_AVAILABLE = 50
NOT_AVAILABLE_AND_LIMITED = 51

DELEGATE_FAILED = 101


class CniError(Exception):
    """An error that goes up to the runtime as it is."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(code, msg, details)
        self.code = code
        self.msg = msg
        self.details = details
        self.repeats = 0
        """How often the same has been answered before, where somebody counts that."""

    def __str__(self) -> str:
        return f"{self.msg} ({self.details})" if self.details else self.msg


class DelegateError(CniError):
    """A delegate is missing, was killed, took too long or did not answer in CNI's words.

    A delegate that fails properly is none of these: its error goes up as it is, a ``CniError``.
    """

    def __init__(self, subject: str, details: str = "") -> None:
        super().__init__(DELEGATE_FAILED, f"delegate failed: {subject}", details)
