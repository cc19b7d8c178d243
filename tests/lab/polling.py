"""Waiting with a name, a deadline and a last word.

Every wait of the integration tests goes through `wait_for`, so that a test which waits in vain says
what it waited for and what it saw instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_S = 10.0
INTERVAL_S = 0.05


def wait_for(
    what: str,
    look: Callable[[], T],
    *,
    until: Callable[[T], object] = bool,
    timeout_s: float = DEADLINE_S,
    interval_s: float = INTERVAL_S,
) -> T:
    """Look again and again until what is seen satisfies `until`, and return it.

    Raises AssertionError with the last thing seen when `timeout_s` has passed. Blocks at most
    `timeout_s` and one look.
    """
    end = time.monotonic() + timeout_s
    while True:
        seen = look()
        if until(seen):
            return seen
        if time.monotonic() >= end:
            raise AssertionError(f"waited {timeout_s:g} s for {what}; last seen: {seen!r}")
        time.sleep(interval_s)


def hold_for(
    what: str, look: Callable[[], object], *, duration_s: float, interval_s: float = 0.1
) -> None:
    """Assert that something stays true for the whole of `duration_s`."""
    end = time.monotonic() + duration_s
    while time.monotonic() < end:
        seen = look()
        assert seen, f"{what} did not hold: {seen!r}"
        time.sleep(interval_s)
