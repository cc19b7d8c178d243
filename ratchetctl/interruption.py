"""Ending when a signal asks for it, with everything cleaned up."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

import click

WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn the first signal that asks us to end into an exception, and ignore further ones.

    Cleaning up comes next, and a second Ctrl-C must not cut that short, nor what Python does when
    it ends.
    """
    before = [signal.getsignal(one) for one in WATCHED]
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
        nonlocal interrupted
        interrupted = True
        for one in WATCHED:
            signal.signal(one, signal.SIG_IGN)
        click.echo("interrupted: cleaning up", err=True)
        sys.exit(128 + number)

    for one in WATCHED:
        signal.signal(one, interrupt)
    try:
        yield
    finally:
        if not interrupted:
            for one, handler in zip(WATCHED, before, strict=True):
                signal.signal(one, handler)


@contextlib.contextmanager
def undone(undo: Callable[[], object]) -> Iterator[None]:
    """Undo what was done before the block if it is interrupted; inside `interruptible`."""
    try:
        yield
    except SystemExit:
        undo()
        raise


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Have such signals wait until the block is done. What is started inside would inherit that."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
