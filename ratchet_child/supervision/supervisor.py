"""The process that starts a node's child, and starts it again when it dies.

It holds what must outlive a child: the listening socket, in whose backlog requests wait from one
child to the next; the lock, which says that somebody serves; and the descriptors that the child has
given it to keep. A child is a fork of it, so both always run the same program. When the program's
file has been replaced, the child finishes what is under way, and this process becomes the new
program with all that it holds.

It ends when the child says that nothing is left to do, when it is told to (SIGTERM, passed on),
when another process takes over, and when children die as soon as they are started.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed only knows signal
import _socket
import os
import resource
import select
import sys
import time

from ratchet import log, statedir
from ratchet_child.supervision import cgroup, program, wire
from ratchet_child.supervision.helpers import Helpers, shown
from ratchet_child.supervision.keeper import ADOPTED, Keeper
from ratchet_child.supervision.update import Update

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Serve = Callable[[Sequence[str], int, Keeper], int]

# A child that has served for this long has not died at its start.
WELL_S = 10.0
# The pauses before a child is started again whose predecessors died at their start.
PAUSES_S = (0.0, 0.25, 0.5, 1.0, 2.0)
LOOK_S = 2.0  # how often it is looked whether the program was replaced
BUSY_S = 0.05  # the same while something is waited for
GRACE_S = 10.0  # for a child to end that was told to
FINISH_S = 30.0  # and for one that answers first who waits; ratchet_child.child takes less
HANDED_OVER_S = 5.0
COMMANDS = ("ratchet-super", "ratchet-child")  # in ps(1): proc_pid_comm(5)
REFUSED = 1  # the exit status of a child whose configuration cannot be used
_HANDLED = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGCHLD)
_NAMED = ("--listen-fd", "--lock-fd")


def is_asked_for(arguments: Sequence[str]) -> bool:
    """Whether the arguments are those of a process that has the socket and the lock."""
    return all(option in arguments for option in _NAMED)


def main(arguments: Sequence[str], serve: Serve) -> int:
    """Supervise; the exit status. `serve` is the child, called in a process of its own."""
    try:
        return Supervisor(arguments, serve).run()
    except (OSError, ValueError) as error:
        sys.stderr.write(f"ratchet-child: it cannot be supervised: {error}\n")
        return 1


class Supervisor:
    """Supervises the child of one state directory."""

    def __init__(self, arguments: Sequence[str], serve: Serve) -> None:
        self._is_told = False
        self.helpers = Helpers()
        self.update = Update(self.helpers)
        self._arguments, self._listener, self._lock = _without_descriptors(arguments)
        self._state_dir = os.path.dirname(os.readlink(f"/proc/self/fd/{self._lock}"))
        self._serve = serve
        self._kept = program.take_kept()
        self._is_claimed = False
        self._successor: _socket.socket | None = None  # who takes over
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> int:
        """Supervise to the end; the exit status. In the child, that of the child."""
        self._prepare()
        child = self._adopted()
        deaths = 0
        while True:
            if child is None:
                pid, connection = self._fork()
                if pid == 0:
                    return self._be_the_child(connection)
                child = _Child(self, pid, connection, is_own=True)
            child.attend()
            status = child.reap()
            if self._has_handed_over() or child.is_over or self.is_ending():
                return 0
            if not child.is_ready and status == REFUSED:
                return REFUSED  # the child has said why
            if child.is_finished:
                deaths = 0
            else:
                log.warning("the child has died", pid=child.pid, by=shown(status))
                deaths = 1 if child.has_been_well else deaths + 1
            if deaths > len(PAUSES_S):
                return self._give_up(status)
            if self.update.is_ready:
                self.update.execute(self._arguments, self._listener, self._lock, self._kept)
            self._pause(0 if deaths == 0 else PAUSES_S[deaths - 1])
            if self.is_ending():
                return 0
            child = None

    def _prepare(self) -> None:
        log.configure(None, "info", "ratchet-child", to_stderr=True)
        for fd in (self._listener, self._lock):
            os.set_inheritable(fd, False)
        for number in (_signal.SIGTERM, _signal.SIGINT):
            _signal.signal(number, self._told_to_end)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)  # only to be woken
        _signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        try:
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        except (OSError, ValueError) as error:
            log.warning("no more files than usual can be open", error=str(error))
        _rename_to(COMMANDS[0])
        for name in (statedir.AT_REST, statedir.GIVEN_UP):
            statedir.remove(f"{self._state_dir}/{name}")
        self.claim()

    def _told_to_end(self, *_: object) -> None:
        self._is_told = True

    def is_ending(self) -> bool:
        """Say whether this process was told to end."""
        return self._is_told

    def claim(self) -> None:
        """Take the lock that parents look at without taking it. Safe to call twice.

        Who has handed over has it for a moment longer.
        """
        if self._is_claimed:
            return
        try:
            os.lockf(self._lock, os.F_TLOCK, 0)
        except OSError:
            return
        self._is_claimed = True

    def poll(self, connection: _socket.socket | None, timeout_s: float) -> bool:
        """Wait for a message, a signal or the time; whether there is a message."""
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        if connection is not None:
            poller.register(connection.fileno(), select.POLLIN)
        found = [fd for fd, _ in poller.poll(max(timeout_s, 0) * 1000)]
        if self._wake_read in found:
            os.read(self._wake_read, 4096)
        self.helpers.reap()
        return connection is not None and connection.fileno() in found

    def _pause(self, pause_s: float) -> None:
        until = time.monotonic() + pause_s
        while not self.is_ending() and (left_s := until - time.monotonic()) > 0:
            self.poll(None, left_s)

    def _give_up(self, status: int | None) -> int:
        log.error(
            "the child dies again and again and is not started any more",
            deaths=len(PAUSES_S) + 1,
            by=shown(status),
        )
        try:
            statedir.write_private(f"{self._state_dir}/{statedir.GIVEN_UP}", b"")
        except OSError as error:
            log.warning("the next parent starts it", error=error.strerror)
        return 1

    # The child ----------------------------------------------------------------------------------

    def _fork(self) -> tuple[int, _socket.socket]:
        """Start a process for the child; the process, 0 in it, and the connection to the other."""
        ours, theirs = wire.pair()
        # What arrives in the child before it has handlers of its own would be lost in ours.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _HANDLED)
        pid = os.fork()
        if pid == 0:
            _signal.set_wakeup_fd(-1)
            for number in _HANDLED:
                _signal.signal(number, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _HANDLED)
        if pid == 0:
            ours.close()
            return 0, theirs
        theirs.close()
        if "--stay" not in self._arguments:
            # Only now, so that a pod's ADD does not wait for it.
            self._leave_cgroup(pid)
        return pid, ours

    def _be_the_child(self, connection: _socket.socket) -> int:
        os.close(self._wake_read)
        os.close(self._wake_write)
        _rename_to(COMMANDS[1])
        keeper = Keeper(connection, self._kept, (self._arguments, self._lock))
        return self._serve(self._arguments, self._listener, keeper)

    def _adopted(self) -> _Child | None:
        """Return the child that has started this supervisor in a dead one's place."""
        given = os.environ.pop(ADOPTED, "")
        if not given:
            return None
        number, _, pid = given.partition(":")
        os.set_inheritable(int(number), False)
        return _Child(self, int(pid), _socket.socket(fileno=int(number)), is_own=False)

    def _leave_cgroup(self, child: int) -> None:
        asked = cgroup.leave((os.getpid(), child), f"ratchet-child-{os.getpid()}")
        if asked is not None:
            try:
                self.helpers.start(asked, _systemd_answered)
            except OSError as error:
                log.warning("systemd cannot be asked for a scope", error=error.strerror)

    def told(self, message: wire.Message) -> None:
        """Take what a child gives."""
        if message.word in (wire.KEEP, wire.DROP):
            wire.take_kept(message, self._kept)
            return
        for fd in message.descriptors:
            if message.word == wire.LISTENER:
                os.close(self._listener)
                self._listener = fd
            elif message.word == wire.HAND_OVER and self._successor is None:
                self._successor = _socket.socket(fileno=fd)
            else:
                os.close(fd)

    def _has_handed_over(self) -> bool:
        """Give all that is held to who has asked for it; whether somebody has it now."""
        successor, self._successor = self._successor, None
        if successor is None:
            return False
        ours, theirs = wire.pair()
        try:
            successor.settimeout(HANDED_OVER_S)
            ours.settimeout(HANDED_OVER_S)
            held = wire.rights([self._listener, self._lock, theirs.fileno()])
            successor.sendmsg([b'{"ok": true}\n'], held)
            theirs.close()
            wire.send_kept(ours, self._kept)
        except OSError as error:
            log.warning("another process was to take over and is gone", error=str(error))
            return False
        finally:
            successor.close()
            ours.close()
            theirs.close()
        log.info("another process has taken over")
        return True


class _Child:
    """A child, and what it has said."""

    def __init__(
        self, supervisor: Supervisor, pid: int, connection: _socket.socket, *, is_own: bool
    ) -> None:
        self.pid = pid
        self.is_ready = False
        self.is_over = False
        self.is_finished = False  # it was asked to end, for another to begin
        self._supervisor = supervisor
        self._connection = connection
        self._is_own = is_own
        self._since = time.monotonic()
        self._told_at: float | None = None  # when it was told to end

    @property
    def has_been_well(self) -> bool:
        return self.is_ready and time.monotonic() - self._since > WELL_S

    def attend(self) -> None:
        """Listen to it until it is gone."""
        while True:
            is_busy = self._told_at is not None or self._supervisor.helpers
            if self._supervisor.poll(self._connection, BUSY_S if is_busy else LOOK_S):
                message = wire.receive(self._connection)
                if message is None:
                    return
                self._heard(message)
                continue
            self._supervisor.claim()
            self._see_to_its_end()
            if self._told_at is None:
                self._supervisor.update.look(self._finish)

    def _heard(self, message: wire.Message) -> None:
        if message.word == wire.READY:
            self.is_ready = True
        elif message.word == wire.OVER:
            self.is_over = True
        elif message.word == wire.HAND_OVER:
            self.is_finished = True
            self._told_at = time.monotonic()
        self._supervisor.told(message)

    def _finish(self) -> None:
        """Have it end when it has answered who waits."""
        try:
            wire.send(self._connection, wire.FINISH)
        except OSError:  # it is gone, as will be heard
            return
        self.is_finished = True
        self._told_at = time.monotonic()

    def _see_to_its_end(self) -> None:
        now = time.monotonic()
        if self._supervisor.is_ending() and (self._told_at is None or self.is_finished):
            self._told_at = now
            self.is_finished = False
            self._signal(_signal.SIGTERM)
        elif self._told_at is not None:
            patience_s = FINISH_S if self.is_finished else GRACE_S
            if now - self._told_at > patience_s:
                log.warning("the child does not end and is killed", pid=self.pid)
                self._told_at = now
                self._signal(_signal.SIGKILL)

    def _signal(self, number: int) -> None:
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return

    def reap(self) -> int | None:
        """Return the exit status, negative for a signal; None where only its parent can know."""
        self._connection.close()
        if not self._is_own:
            return None
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)


def _without_descriptors(arguments: Sequence[str]) -> tuple[list[str], int, int]:
    """Return the arguments without the two descriptors, and these."""
    rest = list(arguments)
    found = []
    for option in _NAMED:
        at = rest.index(option)
        found.append(int(rest[at + 1]))
        del rest[at : at + 2]
    return rest, found[0], found[1]


def _systemd_answered(status: int) -> None:
    if status != 0:
        log.warning("systemd did not take the child out of the runtime's cgroup", by=shown(status))


def _rename_to(name: str) -> None:
    try:
        with open("/proc/self/comm", "w", encoding="ascii") as file:
            file.write(name)
    except OSError:
        return
