"""Making inputs and judging what becomes of them.

An input is a function of (seed, target, number) alone, so that one that fails can be made again by
itself: `python -m tests.fuzz --seed S --only NAME --start NUMBER --inputs 1`.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from random import Random
from types import FrameType
from typing import Any

from tests.fuzz.mutate import Mutator

# Of processor time, for one input: a hundred times what any should take.
LONGEST_S = 3.0
SHOWN_CHARS = 4000

Check = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Target:
    """Something that takes input, and what must hold of it whatever that is."""

    name: str
    make: Callable[[Mutator], Any]
    opened: Callable[[], AbstractContextManager[Check]]
    """Gives the check, which raises for what must not be."""
    share: float = 1.0
    """How many inputs it gets, against the others."""
    kind: str = "parser"


def target(name: str, make: Callable[[Mutator], Any], check: Check, share: float = 1.0) -> Target:
    """A target that needs nothing prepared."""
    return Target(name, make, lambda: contextlib.nullcontext(check), share)


@dataclass(frozen=True, slots=True)
class Report:
    """What a run has done."""

    name: str
    inputs: int
    seconds: float
    slowest_s: float


class BrokenError(Exception):
    """An input for which something did not hold."""


class StuckError(BaseException):
    """An input takes longer than any should. No parser catches it."""


def run(
    one: Target,
    *,
    seed: int,
    inputs: int,
    start: int = 0,
    seconds: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Report:
    """Give a target its inputs. Raises BrokenError at the first for which something does not hold.

    `seconds` of the clock end the run early. They count from when the target is there: what some
    of them start (an etcd, a child) takes longer than that on a busy machine.
    """
    slowest = 0.0
    done = 0
    with one.opened() as check, _watched() as watch:
        began, end = time.monotonic(), None if seconds is None else clock() + seconds
        for number in range(start, start + inputs):
            if end is not None and clock() > end:
                break
            made: Any = "(nothing: its making failed)"
            try:
                made = one.make(Mutator(Random(f"{seed}/{one.name}/{number}")))
                watch(LONGEST_S)
                before = time.thread_time()
                check(made)
                took = time.thread_time() - before
                watch(0)
            except (Exception, StuckError) as error:
                watch(0)
                raise BrokenError(_told(one, seed, number, made, error)) from error
            slowest = max(slowest, took)
            done += 1
    return Report(one.name, done, time.monotonic() - began, slowest)


@contextlib.contextmanager
def bounded_memory(more_bytes: int) -> Iterator[None]:
    """Let this process grow by no more than that: an input that wants more fails."""
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + more_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))


@contextlib.contextmanager
def _watched() -> Iterator[Callable[[float], object]]:
    """Give a function that has StuckError raised after so much processor time; 0 for never."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda _seconds: None
        return

    def stuck(_number: int, _frame: FrameType | None) -> None:
        raise StuckError(f"more than {LONGEST_S:g} s of processor time")

    before = signal.signal(signal.SIGVTALRM, stuck)
    try:
        yield lambda seconds: signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _told(one: Target, seed: int, number: int, made: object, error: BaseException) -> str:
    try:
        shown = repr(made)
    except (ValueError, RecursionError) as unshown:
        shown = f"(cannot be shown: {unshown})"
    if len(shown) > SHOWN_CHARS:
        shown = f"{shown[:SHOWN_CHARS]}... ({len(shown)} characters)"
    trace = "".join(traceback.format_exception(error, limit=-12))
    if len(trace) > 3 * SHOWN_CHARS:
        trace = f"{trace[:SHOWN_CHARS]}\n...\n{trace[-2 * SHOWN_CHARS :]}"
    return (
        f"{one.name}, input {number} of seed {seed}:\n{shown}\n\n{trace}\n"
        f"again: python -m tests.fuzz --seed {seed} --only {one.name} --start {number} --inputs 1"
    )
