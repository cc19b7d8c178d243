"""Which program this is, whether another one has been installed in its place, and executing that.

A process that is replaced by a new program keeps its identity, its descriptors and its lock. What
it has to tell the new program is written to an anonymous file (memfd_create(2)) whose descriptor an
environment variable names, and not to the command line: so an older program can follow, too, which
would refuse an option that it does not know.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed only knows signal
import os
import sys

from ratchet.cni.invoke import IGNORED_BY_PYTHON, clean_environ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

LISTEN_FD, LOCK_FD = 3, 4  # as ratchet.spawn has them
BUILDS = "ratchet.d"  # where packaging/install.sh puts each build
KEPT = "RATCHET_KEPT_FD"

Identity = tuple[int, int, int, int]


def path() -> str:
    """Return the path by which this program is found again, after an update as well.

    A program that was started from its build's own folder is found by the symbolic link that an
    update turns to the next build.
    """
    by_name = getattr(sys, "frozen", False) and "/" not in sys.argv[0]  # found in PATH
    given = sys.executable if by_name else os.path.abspath(sys.argv[0])
    folder, name = os.path.split(given)
    builds, _ = os.path.split(folder)
    link = f"{os.path.dirname(builds)}/{name}"
    if os.path.basename(builds) == BUILDS and os.path.islink(link):
        return link
    return given


def command(program: str) -> list[str]:
    """Return the words that execute the program."""
    if os.access(program, os.X_OK):
        return [program]
    return [sys.executable, "-m", "ratchet_child.main"]


def identity(program: str) -> Identity | None:
    """Return what tells one build of a program from another; None when it is not there."""
    try:
        status = os.stat(program)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def execute(
    program: str,
    arguments: Sequence[str],
    listener: int,
    lock: int,
    kept: Mapping[str, int],
) -> NoReturn:
    """Become the program, which goes on with the socket, the lock and what is kept.

    Raises OSError, with everything as it was.
    """
    notes = os.memfd_create("ratchet-kept")
    try:
        os.write(notes, "".join(f"{fd} {name}\n" for name, fd in kept.items()).encode())
        os.lseek(notes, 0, os.SEEK_SET)
        handed = [listener, lock, notes, *kept.values()]
        for fd in handed:
            os.set_inheritable(fd, True)
        words = command(program)
        environ = {**clean_environ(os.environ), KEPT: str(notes)}
        fds = ["--listen-fd", str(listener), "--lock-fd", str(lock)]
        for number in IGNORED_BY_PYTHON:
            _signal.signal(number, _signal.SIG_DFL)
        os.execve(words[0], [*words, *arguments, *fds], environ)  # noqa: S606 - an exact command
    finally:
        os.close(notes)
        for fd in (listener, lock, *kept.values()):
            os.set_inheritable(fd, False)


def take_kept() -> dict[str, int]:
    """Return what the program before this one has kept, none of which will be inherited."""
    notes = os.environ.pop(KEPT, "")
    kept: dict[str, int] = {}
    if not notes.isdigit():
        return kept
    try:
        with open(int(notes), encoding="utf-8") as file:
            for line in file:
                number, _, name = line.rstrip("\n").partition(" ")
                os.set_inheritable(int(number), False)
                kept[name] = int(number)
    except (OSError, ValueError):  # not for us: somebody's environment
        return kept
    return kept
