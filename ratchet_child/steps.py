"""Steps of the child's work, by name: an etcd request, a netlink request, a record removed.

Nothing happens at one. The tests of faults start the child by a program of their own, which ends
the process at a chosen step; that program is no part of what is built.
"""

from __future__ import annotations

from collections.abc import Callable

on_step: Callable[[str], None] | None = None


def reach(point: str) -> None:
    """Say that a step is reached."""
    if on_step is not None:
        on_step(point)
