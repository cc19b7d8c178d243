"""A unit test opens no socket and starts no process: an audit hook sees to it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

FORBIDDEN = (
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.system",
    "socket.__new__",
    "subprocess.Popen",
)


class _Guard:
    """An audit hook cannot be removed: this one is installed once and turned on for each test."""

    def __init__(self) -> None:
        self.is_on = False
        sys.addaudithook(self._look)

    def _look(self, event: str, args: tuple[object, ...]) -> None:
        if self.is_on and event in FORBIDDEN:
            self.is_on = False
            raise AssertionError(f"a unit test did {event}: that is an integration test's")


_guard = _Guard()


@pytest.fixture(autouse=True)
def guard() -> Iterator[None]:
    _guard.is_on = True
    yield
    _guard.is_on = False
