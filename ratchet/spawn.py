"""Starting the child where none is running, and then asking it as ``ratchet.client`` does.

One child serves a state directory, and forty parents may want it in the same moment. The socket
is made before the child is (socket activation): who gets the lock listens, starts the child with
the listening descriptor and the lock, and is done. Everybody's connection waits in the backlog
until the child, some hundred milliseconds later, accepts it. The child holds the lock as long as
it lives, so the kernel says who is alive, also after a ``kill -9``.

This is the one place that knows where the child's program lies and what a frozen program has to
undo in the environment of what it starts. The child gets no descriptor of the runtime's: it
outlives the call, and the runtime would wait for it.

On the path of every pod: ``_socket`` stands for ``socket``, whose enums cost 5 ms.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import sys
import time

from ratchet import client, log, statedir
from ratchet.cni import codec, invoke
from ratchet.cni.invoke import IGNORED_BY_PYTHON, clean_environ
from ratchet.errors import ChildError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ratchet import messages
    from ratchet.config import Config

CHILD = "ratchet-child"
LISTEN_FD = 3
LOCK_FD = 4
BACKLOG = 512
ATTEND_S = 1.0
TRY_AGAIN_S = 60.0  # after a child that died again and again
STARTS = 2  # a child that dies at its start twice will do so again


def ask(config: Config, request: messages.Request, timeout_s: float) -> dict[str, Any]:
    """Return the child's answer, having started it if none runs.

    Blocks at most ``timeout_s``, the child's start included. Raises ChildError when it cannot be
    started or does not answer, and StateError when the state directory cannot be written. The
    answer may be a ``messages.Failure``.
    """
    arm = invoke.arm()
    if arm is not None:  # this is the child
        return arm.ask(client.told(config, request), timeout_s)
    return _Call(config, timeout_s).ask(request)


def tell(config: Config, request: messages.Request, timeout_s: float) -> None:
    """Hand the child a request, starting it if none runs, and do not wait for the answer.

    Blocks at most ``timeout_s``. Raises as ``ask`` does.
    """
    arm = invoke.arm()
    if arm is not None:  # this is the child
        arm.tell(client.told(config, request))
        return
    _Call(config, timeout_s).tell(request)


def attend(config: Config) -> None:
    """Start the child where none runs although something may be left to do. Never raises.

    Does not wait for it: the pod whose call this is needs no child.
    """
    try:
        given_up = os.stat(f"{config.state_dir}/{statedir.GIVEN_UP}").st_mtime
    except OSError:
        pass
    else:
        if 0 <= time.time() - given_up < TRY_AGAIN_S:
            return
    try:
        _Call(config, ATTEND_S).start()
    except (ChildError, StateError) as exc:
        log.warning(exc.msg, details=exc.details or None)


def child_program(config: Config, path: str) -> str:
    """Return the child's program. Raises ChildError.

    It is ``child_path``; without one (or if that is a mere name) it lies beside the running
    program, or else in one of CNI_PATH's directories.
    """
    name = config.child_path or CHILD
    if "/" in name:
        return name
    frozen = getattr(sys, "frozen", False)
    running = os.path.abspath(sys.executable if frozen else sys.argv[0])
    # The program may have been started through a symbolic link.
    folders = [os.path.dirname(running), os.path.dirname(os.path.realpath(running))]
    for folder in [*folders, *path.split(":")]:
        candidate = f"{folder}/{name}"
        if folder and os.path.isfile(candidate):
            return candidate
    raise ChildError(
        f"{name} is neither beside {running} nor in CNI_PATH; see child_path", f"CNI_PATH is {path}"
    )


class _Call(client.Call):
    """A request for which a child is started if none runs."""

    def __init__(self, config: Config, timeout_s: float) -> None:
        super().__init__(config, timeout_s)
        self.starts = 0

    def ask(self, request: messages.Request) -> dict[str, Any]:
        line = self.line(request)
        while True:
            sock = self._connected()
            try:
                answer = self.exchange(sock, line)
            finally:
                sock.close()
            if answer is not None:
                return answer
            # The child went away with our connection in its backlog. Every request may be repeated.
            self.pause("it ends without an answer")

    def tell(self, request: messages.Request) -> None:
        line = self.line(request)
        while True:
            sock = self._connected()
            try:
                sock.settimeout(self.left_s())
                sock.sendall(line)
            except OSError:
                self.pause("it does not take a request")
            else:
                return
            finally:
                sock.close()

    def start(self) -> None:
        """Start the child, if nobody else is about to."""
        sock = self._start()
        if sock is not None:
            sock.close()

    def _connected(self) -> _socket.socket:
        """Return a connection to a child, which is started if none runs."""
        while True:
            sock = self.connect() or self._start()
            if sock is not None:
                return sock
            self.pause("somebody else is starting it")

    def _start(self) -> _socket.socket | None:
        """Start the child and return a connection; None when somebody else is about to."""
        lock = self._lock()
        if lock is None:
            return None
        try:
            # Who had the lock before us may just have started the child.
            sock = self.connect()
            if sock is not None:
                return sock
            if self.starts >= STARTS:
                where = self.config.log_file or "log_file, which is not configured"
                raise ChildError("it ended as soon as it had started", f"see {where}")
            self.starts += 1
            program = child_program(self.config, os.environ.get("CNI_PATH", ""))
            listener = self._listen()
            try:
                _spawn(program, self.config, listener.fileno(), lock)
                # Before our listening descriptor is closed: a child that fails must not leave us
                # with a socket that refuses.
                return self.connect()
            finally:
                listener.close()
        finally:
            os.close(lock)

    def _lock(self) -> int | None:
        """Return the lock's descriptor, None when somebody else holds it. Raises StateError."""
        try:
            statedir.make_private(self.state_dir)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            lock = os.open(f"{self.state_dir}/{statedir.LOCK}", flags, 0o600)
        except OSError as exc:
            raise _state_error(self.state_dir, exc) from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        except OSError as exc:
            os.close(lock)
            raise _state_error(self.state_dir, exc) from exc
        return lock

    def _listen(self) -> _socket.socket:
        """Return the listening socket, in place of a dead child's. Needs the lock."""
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            statedir.write_private(
                f"{self.state_dir}/{statedir.SETTINGS}", codec.encode(self.config.settings())
            )
            statedir.remove(f"{self.state_dir}/{statedir.SOCKET}")
            client.with_address(self.state_dir, listener.bind)
            listener.listen(BACKLOG)
        except OSError as exc:
            listener.close()
            raise _state_error(self.state_dir, exc) from exc
        finally:
            os.umask(before)
        return listener


def _spawn(program: str, config: Config, listener: int, lock: int) -> None:
    """Start the child in a session of its own. Raises ChildError."""
    argv = [program, "--state-dir", config.state_dir]
    argv += ["--listen-fd", str(LISTEN_FD), "--lock-fd", str(LOCK_FD)]
    environ = {
        key: value
        for key, value in clean_environ(os.environ).items()
        # It serves every pod: the environment of the one that happened to start it says nothing.
        if not key.startswith("CNI_")
    }
    opened = []
    try:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        opened.append(null)
        output = -1 if config.log_file is None else log.open_file(config.log_file)
        if output >= 0:
            opened.append(output)
        else:
            output = null
        # Copies well above the numbers that they are to get, so that none overwrites another.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in (listener, lock, null, output)]
        opened += high
        actions = [
            (os.POSIX_SPAWN_DUP2, high[2], 0),
            (os.POSIX_SPAWN_DUP2, high[3], 1),
            (os.POSIX_SPAWN_DUP2, high[3], 2),
            (os.POSIX_SPAWN_DUP2, high[0], LISTEN_FD),
            (os.POSIX_SPAWN_DUP2, high[1], LOCK_FD),
            *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inherited()),
        ]
        opened.append(os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        os.chdir("/")  # posix_spawn has no way to say it
        try:
            os.posix_spawn(
                program,
                argv,
                environ,
                file_actions=actions,
                setsid=True,
                setsigmask=[],
                setsigdef=IGNORED_BY_PYTHON,
            )
        finally:
            os.fchdir(opened[-1])
    except OSError as exc:
        raise ChildError(f"cannot start {program}", exc.strerror or repr(exc)) from exc
    finally:
        for fd in opened:
            os.close(fd)


def _inherited() -> list[int]:
    """Return the descriptors above our five that a program which we start would inherit."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            if fd > LOCK_FD and os.get_inheritable(fd):
                found.append(fd)
        except OSError:  # the listing's own
            continue
    return found


def _state_error(state_dir: str, exc: OSError) -> StateError:
    return StateError(f"cannot write in {state_dir}", exc.strerror or repr(exc))
