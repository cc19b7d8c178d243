"""Asking the child, and starting it when none is running.

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

from ratchet import log, statedir
from ratchet.cni import codec
from ratchet.cni.invoke import IGNORED_BY_PYTHON, clean_environ
from ratchet.errors import ChildError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ratchet.config import Config

CHILD = "ratchet-child"
LISTEN_FD = 3
LOCK_FD = 4
BACKLOG = 512
PAUSE_S = 0.005
LONGEST_PATH_BYTES = 107  # sun_path less its final zero, unix(7)
LARGEST_ANSWER_BYTES = 16 * 1024 * 1024
# By which the child tells whose configuration is the newer one.
STARTED_S = time.clock_gettime(time.CLOCK_BOOTTIME)
STARTS = 2  # a child that dies at its start twice will do so again


def ask(
    config: Config, request: Mapping[str, Any], timeout_s: float, spawn: bool
) -> dict[str, Any] | None:
    """Return the child's answer; None when no child runs and ``spawn`` is false.

    Blocks at most ``timeout_s``, the child's start included. Raises ChildError when it cannot be
    started or does not answer, and StateError when the state directory cannot be written. The
    answer may be a failure: ``{"ok": false, "code", "msg", "details"}``.
    """
    return _Call(config, timeout_s).ask(request, spawn)


def tell(config: Config, request: Mapping[str, Any], timeout_s: float) -> None:
    """Hand the child a request, starting it if none runs, and do not wait for the answer.

    Blocks at most ``timeout_s``. Raises as ``ask`` does.
    """
    _Call(config, timeout_s).tell(request)


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
        f"{name} is neither beside {running} nor in CNI_PATH, see child_path", f"CNI_PATH is {path}"
    )


class _Call:
    """One request to the child, and the deadline that all its steps share."""

    __slots__ = ("config", "deadline", "starts", "state_dir", "timeout_s")

    def __init__(self, config: Config, timeout_s: float) -> None:
        self.config = config
        self.state_dir = config.state_dir
        self.timeout_s = timeout_s
        self.deadline = time.monotonic() + timeout_s
        self.starts = 0

    def ask(self, request: Mapping[str, Any], spawn: bool) -> dict[str, Any] | None:
        line = self._line(request)
        while True:
            sock = self._connected(spawn)
            if sock is None:
                return None
            try:
                answer = self._exchange(sock, line)
            finally:
                sock.close()
            if answer is not None:
                return answer
            # The child went away with our connection in its backlog. Every request may be repeated.
            if not spawn:
                return None
            self._pause("it ends without an answer")

    def tell(self, request: Mapping[str, Any]) -> None:
        line = self._line(request)
        while True:
            sock = self._connected(spawn=True)
            if sock is None:  # not with spawn
                return
            try:
                sock.settimeout(self._left_s())
                sock.sendall(line)
            except OSError:
                self._pause("it does not take a request")
            else:
                return
            finally:
                sock.close()

    def _line(self, request: Mapping[str, Any]) -> bytes:
        settings = {"settings": self.config.settings(), "started_s": STARTED_S}
        return codec.encode({**request, **settings}) + b"\n"

    def _exchange(self, sock: _socket.socket, line: bytes) -> dict[str, Any] | None:
        """Return the answer; None when the child went away without one. Raises ChildError."""
        parts: list[bytes] = []
        total = 0
        try:
            sock.settimeout(self._left_s())
            sock.sendall(line)
            while not parts or not parts[-1].endswith(b"\n"):
                sock.settimeout(self._left_s())
                part = sock.recv(65536)
                total += len(part)
                if not part or total > LARGEST_ANSWER_BYTES:
                    break
                parts.append(part)
        except TimeoutError as exc:
            raise ChildError(f"no answer within {self.timeout_s:g} s", self.state_dir) from exc
        except OSError:  # reset: it went away
            return None
        if not parts:
            return None
        try:
            answer = codec.decode(b"".join(parts))
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ChildError("its answer is not a JSON object", self.state_dir)
        return answer

    def _connected(self, spawn: bool) -> _socket.socket | None:
        """Return a connection; None when no child runs and ``spawn`` is false."""
        while True:
            sock = self._connect()
            if sock is None and spawn:
                sock = self._start()
            if sock is not None or not spawn:
                return sock
            self._pause("somebody else is starting it")

    def _connect(self) -> _socket.socket | None:
        """Return a connection; None when nobody listens."""
        while True:
            sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
            try:
                sock.settimeout(self._left_s())
                with_address(self.state_dir, sock.connect)
            except BlockingIOError:  # the backlog is full, unix(7)
                sock.close()
                self._pause("too many wait for it")
            except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
                sock.close()
                return None
            except OSError as exc:
                sock.close()
                raise ChildError("cannot connect", f"{self.state_dir}: {exc.strerror}") from exc
            else:
                return sock

    def _start(self) -> _socket.socket | None:
        """Start the child and return a connection; None when somebody else is about to."""
        lock = self._lock()
        if lock is None:
            return None
        try:
            # Who had the lock before us may just have started the child.
            sock = self._connect()
            if sock is not None:
                return sock
            if self.starts >= STARTS:
                where = self.config.log_file or "log_file, which is not configured"
                raise ChildError("it ends as soon as it is started", f"see {where}")
            self.starts += 1
            program = child_program(self.config, os.environ.get("CNI_PATH", ""))
            listener = self._listen()
            try:
                _spawn(program, self.config, listener.fileno(), lock)
                # Before our listening descriptor is closed: a child that fails must not leave us
                # with a socket that refuses.
                return self._connect()
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
            with_address(self.state_dir, listener.bind)
            listener.listen(BACKLOG)
        except OSError as exc:
            listener.close()
            raise _state_error(self.state_dir, exc) from exc
        finally:
            os.umask(before)
        return listener

    def _left_s(self) -> float:
        """Return the time that is left, never 0, which would mean not to wait at all."""
        return max(0.001, self.deadline - time.monotonic())

    def _pause(self, why: str) -> None:
        if time.monotonic() + PAUSE_S > self.deadline:
            raise ChildError(f"not within {self.timeout_s:g} s: {why}", self.state_dir)
        time.sleep(PAUSE_S)


def with_address(state_dir: str, use: Any) -> None:
    """Call ``connect`` or ``bind`` with the socket's address, however long its path is."""
    path = f"{state_dir}/{statedir.SOCKET}"
    if len(os.fsencode(path)) <= LONGEST_PATH_BYTES:
        use(path)
        return
    folder = os.open(state_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        use(f"/proc/self/fd/{folder}/{statedir.SOCKET}")
    finally:
        os.close(folder)


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
