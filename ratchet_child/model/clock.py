"""Time, as everything in the child that waits or notes a moment is given it.

A protocol and the system's clock; tests hand in one that stands still until they move it.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def monotonic(self) -> float:
        """Return seconds that never jump, for deadlines and delays."""

    def time(self) -> float:
        """Return seconds since the epoch, for people."""


class SystemClock:
    """The machine's."""

    def monotonic(self) -> float:
        return time.monotonic()

    def time(self) -> float:
        return time.time()
