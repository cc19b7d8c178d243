"""Threads of which one moves at a time, from one point of its code to the next.

Whoever decides calls `step`; the code under test calls `point` before everything that others can
see. So every interleaving can be had, and had again. A task can be killed where it stands, as
`kill -9` would: nothing of it runs on but the release of locks.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator

_STUCK_S = 20.0


# Which of its processors this process's tasks share.
_PLACE = random.random()


@contextlib.contextmanager
def on_one_processor() -> Iterator[None]:
    """Have the caller and its tasks share a processor, as one of them moves at a time.

    To be woken on another one takes twice as long, and on a busy machine much longer.
    """
    free = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(free)[int(_PLACE * len(free))]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, free)


# Threads that wake each other again and again may keep a processor from all others for many seconds
# (seen with Linux 6.18), so at times both sleep where others want it: among many workers.
_RUNS_S, _SLEEPS_S = 0.005, 0.002
_HAS_OTHERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > (os.cpu_count() or 1)
_slept_at = 0.0


def _let_others_run() -> None:
    global _slept_at  # noqa: PLW0603 - of the process, whose tasks share a processor
    now = time.monotonic()
    if _HAS_OTHERS and now - _slept_at > _RUNS_S:
        time.sleep(_SLEEPS_S)
        _slept_at = time.monotonic()


class Killed(BaseException):
    """Not an Exception: the code under test must not catch it."""


class StuckError(AssertionError):
    """A task waits for something that is no point: a lock that another task holds."""


def _always() -> bool:
    return True


class Task:
    """A thread that waits at a point, or has ended."""

    def __init__(self, name: str, body: Callable[[], None]) -> None:
        self.name = name
        self.at = ("begin", "")  # the operation before which it waits, and its key
        self.ready: Callable[[], bool] = _always
        self.ended = False
        self.failure: BaseException | None = None
        self._body = body
        self._killed = False
        self._runner = _idle.pop() if _idle else _Runner()
        self._go, self._back = self._runner.go, self._runner.back
        self._runner.run = self._run

    def step(self) -> None:
        """Have it go on to its next point, or to its end."""
        _let_others_run()
        self._go.release()
        if not self._back.acquire(timeout=_STUCK_S):
            raise StuckError(f"{self.name} is stuck after {self.at}")
        if self.ended:
            _idle.append(self._runner)
        if self.failure is not None:
            raise self.failure

    def kill(self) -> None:
        """End it where it waits. *Safe to call twice.*"""
        if not self.ended:
            self._killed = True
            self.step()

    def point(self, operation: str, key: str, ready: Callable[[], bool] = _always) -> None:
        """Called by the task itself: wait to be let on."""
        if self._killed:
            raise Killed
        self.at, self.ready = (operation, key), ready
        self._back.release()
        self._go.acquire()
        if self._killed:
            raise Killed

    def _run(self) -> None:
        try:
            if not self._killed:
                self._body()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - it is raised again by who decides
            self.failure = error
        self.ended = True


class _Runner:
    """A thread that runs one task after the other: to start it costs more than most tasks."""

    def __init__(self) -> None:
        self.run: Callable[[], None] | None = None
        # Locks that one side releases and the other acquires: cheaper than semaphores by half.
        self.go = threading.Lock()
        self.back = threading.Lock()
        self.go.acquire()
        self.back.acquire()
        threading.Thread(target=self._run, name="task", daemon=True).start()

    def _run(self) -> None:
        while True:
            self.go.acquire()
            assert self.run is not None
            self.run()
            self.run = None
            self.back.release()


_idle: list[_Runner] = []


class TaskLock:
    """A lock whose waiters stand at a point, so that the one who decides knows of it."""

    def __init__(self, running: Callable[[], Task | None], name: str) -> None:
        self._running = running
        self._name = name
        self._held = False

    def __enter__(self) -> None:
        task = self._running()
        if self._held and task is not None:
            task.point("lock", self._name, lambda: not self._held)
        assert not self._held
        self._held = True

    def __exit__(self, *_: object) -> None:
        self._held = False
