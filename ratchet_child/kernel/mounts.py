"""Becoming a program of the node itself, for a child that starts in a container.

The front serves calls in its own mount namespace only, as the paths in them would mean something
else in another one. So the agent's container leaves its own before it serves. This must happen
before there is a second thread, setns(2).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import NoReturn

from ratchet.cni.invoke import clean_environ

_CLONE_NEWNS = 0x00020000  # setns(2)

_libc = ctypes.CDLL(None, use_errno=True)


def become(program: str, arguments: Sequence[str], proc: str) -> NoReturn:
    """Execute a program in the mount namespace of the node's first process.

    `proc` is the node's /proc: the container needs its process IDs (`hostPID`). *Needs*
    CAP_SYS_ADMIN. *Raises* OSError; then everything is as it was.
    """
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(f"{proc}/1/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
        finally:
            os.close(there)
        try:
            os.execve(program, [program, *arguments], clean_environ(os.environ))  # noqa: S606 - that is the point
        except OSError:
            _enter(own)
            raise
    finally:
        os.close(own)


def _enter(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNS):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "the node's mount namespace")
