"""The child's side of its supervisor: what it gives it to keep, and says to it.

What is kept outlives the child: the next one finds it by its name. Should the supervisor die, the
child starts another one and gives it everything again.
"""

from __future__ import annotations

import _socket
import _thread
import os
import time

from ratchet.cni.invoke import IGNORED_BY_PYTHON, clean_environ
from ratchet_child.supervision import program, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ADOPTED = "RATCHET_ADOPTED"  # DESCRIPTOR:PID of the child that has started its supervisor
_ADOPT_FD = 5
_PAUSE_S = 1.0
_PATIENCE_S = 2.0


class Keeper:
    """Keeps descriptors for the children to come. Safe to use from any thread."""

    def __init__(
        self,
        connection: _socket.socket | None = None,
        kept: Mapping[str, int] | None = None,
        held: tuple[Sequence[str], int] = ((), -1),
    ) -> None:
        """Take what the supervisor has left: `connection` leads to it.

        Without a `connection` there is none, and what is kept ends with this process.
        `kept` is what earlier children have left; `held` the program's arguments and the lock.
        """
        self._connection = connection
        self._kept = dict(kept or {})
        self._arguments, self._lock_fd = held
        self._lock = _thread.allocate_lock()
        self._supervisor: int | None = None  # one that this process has started
        self._renewed_at: float | None = None

    # Descriptors --------------------------------------------------------------------------------

    def keep(self, name: str, fd: int) -> None:
        """Keep a copy of a descriptor, in the place of another of that name. Raises OSError.

        The caller's own stays the caller's.
        """
        copy = os.dup(fd)
        with self._lock:
            before = self._kept.pop(name, None)
            self._kept[name] = copy
            if before is not None:
                os.close(before)
            self._say(wire.KEEP, name, [copy])

    def drop(self, name: str) -> None:
        """Keep a descriptor no longer. Safe to call twice."""
        with self._lock:
            before = self._kept.pop(name, None)
            if before is not None:
                os.close(before)
                self._say(wire.DROP, name)

    def kept(self) -> dict[str, int]:
        """Return what is kept. The descriptors stay the keeper's: copy what is to be used."""
        with self._lock:
            return dict(self._kept)

    # The supervisor -----------------------------------------------------------------------------

    def fileno(self) -> int | None:
        """Return what is readable when the supervisor has something to say, or is gone."""
        return None if self._connection is None else self._connection.fileno()

    def ready(self) -> None:
        """Say that this process serves."""
        self._tell(wire.READY)

    def over(self) -> None:
        """Say that this process ends because nothing is left to do: the supervisor ends, too."""
        self._tell(wire.OVER)

    def listener(self, fd: int) -> None:
        """Give the supervisor another listening socket."""
        self._tell(wire.LISTENER, [fd])

    def hand_over(self, fd: int) -> None:
        """Have all handed over, when this process has ended, to who is at the other end of `fd`."""
        self._tell(wire.HAND_OVER, [fd])

    def receive(self) -> str | None:
        """Return the supervisor's word; None when it is gone."""
        if self._connection is None:
            return None
        message = wire.receive(self._connection)
        return None if message is None else message.word

    def renew(self, listener: int) -> bool:
        """Start another supervisor where the old one is gone; False when that has to wait.

        Raises OSError.
        """
        now = time.monotonic()
        if self._renewed_at is not None and now < self._renewed_at + _PAUSE_S:
            return False
        self._renewed_at = now
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            if self._supervisor is not None:  # it was a child of this process
                os.waitpid(self._supervisor, 0)
                self._supervisor = None
            ours, theirs = wire.pair()
            try:
                self._supervisor = self._spawn(listener, theirs.fileno())
                ours.settimeout(_PATIENCE_S)
                wire.send(ours, wire.READY)
                wire.send_kept(ours, self._kept)
            except OSError:
                ours.close()
                raise
            finally:
                theirs.close()
            self._connection = ours
        return True

    def _spawn(self, listener: int, connection: int) -> int:
        words = program.command(program.path())
        wanted = {
            program.LISTEN_FD: listener,
            program.LOCK_FD: self._lock_fd,
            _ADOPT_FD: connection,
        }
        fds = ["--listen-fd", str(program.LISTEN_FD), "--lock-fd", str(program.LOCK_FD)]
        environ = {**clean_environ(os.environ), ADOPTED: f"{_ADOPT_FD}:{os.getpid()}"}
        # By way of numbers that are none of those that they are to get.
        high = {number: _copied(fd) for number, fd in wanted.items()}
        try:
            return os.posix_spawn(
                words[0],
                [*words, *self._arguments, *fds],
                environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in high.items()],
                setsid=True,
                setsigmask=[],
                setsigdef=IGNORED_BY_PYTHON,
            )
        finally:
            for fd in high.values():
                os.close(fd)

    def _tell(self, word: str, descriptors: Sequence[int] = ()) -> None:
        with self._lock:
            self._say(word, "", descriptors)

    def _say(self, word: str, name: str, descriptors: Sequence[int] = ()) -> None:
        """Needs the lock. A supervisor that is gone hears of everything from the next one."""
        if self._connection is None:
            return
        try:
            wire.send(self._connection, word, name, descriptors)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            return


def _copied(fd: int) -> int:
    import fcntl  # noqa: PLC0415 - only where a supervisor has died

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64)
