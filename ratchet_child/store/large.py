"""Large answers: one at a time, and the memory that they took given back.

Whoever may write below the prefix decides how much a node has to read. What an answer takes as it
is read and taken apart is many times its size, and the C library keeps what was freed for the next
time, for good. So one thread at a time has a large answer, while small ones pass; and free memory
goes back to the system before the next one, and once the last one has been over for a moment.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import threading
import time

LARGE_BYTES = 256 << 10
# After the last one: what was read lives on for as long as somebody works with it.
_RESTS_S = (1.0, 4.0, 15.0, 60.0)
_LONGEST_WAIT_S = 1.0  # a part of what a request may take


class BusyError(OSError):
    """Others have large answers. It says nothing of whom was asked."""


class LargeTogetherError(Exception):
    """One of several answers that were asked for together is large."""


def refuse_large() -> None:
    """Have none of several answers be large: what all of them take nobody would limit."""
    raise LargeTogetherError


class LargeReads:
    """Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entered = threading.local()
        self._due: tuple[float, ...] = ()  # monotonic seconds

    def enter(self) -> None:
        """Be the one that has large answers. *Blocks* for a while; *raises* BusyError then."""
        if getattr(self._entered, "here", False):
            return
        if not self._lock.acquire(timeout=_LONGEST_WAIT_S):
            raise BusyError("another large answer is being read")
        self._entered.here = True
        if self._due:  # or this answer's memory would come on top of the last one's
            _trim()

    def leave(self) -> None:
        """Let others have theirs. *Safe to call twice*, and for who has not entered."""
        if getattr(self._entered, "here", False):
            self._entered.here = False
            now = time.monotonic()
            self._due = tuple(now + rest_s for rest_s in _RESTS_S)
            self._lock.release()

    def give_back(self) -> None:
        """Give free memory back to the system, if a large answer was read a moment ago."""
        due = self._due
        if not due or time.monotonic() < due[0] or not self._lock.acquire(blocking=False):
            return
        try:
            if self._due == due:
                self._due = due[1:]
                gc.collect()
                _trim()
        finally:
            self._lock.release()


def _trim() -> None:
    """Give the system the freed memory that the C library keeps for each thread."""
    with contextlib.suppress(AttributeError):  # not the GNU C library
        ctypes.CDLL(None).malloc_trim(0)
