"""Programs that the supervisor runs beside the child, without waiting for them."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed only knows signal
import os
import time

from ratchet.cni.invoke import clean_environ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Done = Callable[[int], None]

LIMIT_S = 20.0


class Helpers:
    """The programs that run, and who is told of their ends."""

    def __init__(self) -> None:
        self._running: dict[int, tuple[Done, float]] = {}

    def __bool__(self) -> bool:
        return bool(self._running)

    def start(self, command: list[str], done: Done) -> None:
        """Start a program; `done` is told its exit status, negative for a signal. Raises OSError.

        It sees and says nothing, and is killed after LIMIT_S.
        """
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            pid = os.posix_spawn(
                command[0],
                command,
                clean_environ(os.environ),
                file_actions=[(os.POSIX_SPAWN_DUP2, null, number) for number in (0, 1, 2)],
            )
        finally:
            os.close(null)
        self._running[pid] = done, time.monotonic() + LIMIT_S

    def reap(self) -> None:
        """Tell of those that have ended."""
        for pid, (done, deadline) in list(self._running.items()):
            reaped, status = os.waitpid(pid, os.WNOHANG)
            if reaped:
                del self._running[pid]
                done(os.waitstatus_to_exitcode(status))
            elif time.monotonic() > deadline:
                os.kill(pid, _signal.SIGKILL)


def shown(status: int | None) -> str | None:
    """Return an exit status in words; None when it is not known."""
    if status is None:
        return None
    return f"signal {-status}" if status < 0 else f"exit status {status}"
