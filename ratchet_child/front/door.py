"""The node's front.sock: calls of the plugin, served by the parent's own operations.

Whatever child comes first has the door. One that stays takes it from whoever has it when it starts,
and a child that finds nobody behind it takes it as well. The socket is renamed into its place, so
that there is always one, and whoever has lost it notices at the next sweep.

Calls are served by threads of their own, which wait for fronts in `accept`: neither the child's
loop nor a call that takes long is in the way of a pod that is not ours. What the operations have in
common in one process is either told by thread (log lines, the arm) or not touched by them (the
environment, the working directory, standard output).
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

# eligible: the operations import it when they need it, which the first pod would wait for.
from ratchet import eligible as _eligible  # noqa: F401
from ratchet import log, main, plugin, spawn, statedir
from ratchet.cni import invoke, skel
from ratchet_child.front.call import Ask, Call, Known, NotOursError, ServedError
from ratchet_child.front.words import Hello, NonsenseError, hello, hello_bytes
from ratchet_child.metrics import figures

PATH = "/run/ratchet/front.sock"
_MOST_THREADS = 64
_IDLE_THREADS = 4
_HELLO_S = 2.0
_PAUSE_S = 0.05

Operation = Callable[[skel.Request], dict[str, Any] | None]


class Door:
    """The socket, and the threads behind it. Its methods are for one thread."""

    def __init__(
        self, state_dir: str, ask: Ask, known: Known, *, stay: bool, path: str = PATH
    ) -> None:
        """Open it, if nobody else has.

        `ask` has the child's own loop serve a request, and `known` answers those that need no
        waiting for it; None for others. Both from any thread.
        """
        self._state_dir = state_dir
        self._ask = ask
        self._known = known
        self._path = path
        self._namespaces = tuple(os.stat(f"/proc/self/ns/{kind}").st_ino for kind in ("net", "mnt"))
        self._listener: socket.socket | None = None
        self._identity: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._told: str | None = None
        if stay or not self._is_served():
            self._open()

    @property
    def is_busy(self) -> bool:
        """Whether a call is being served."""
        with self._lock:
            return self._threads > self._idle

    def sweep(self) -> None:
        """Take the door where nobody has it, and leave it to who has taken it."""
        if self._listener is not None and self._find() != self._identity:
            log.info("another child serves the front")
            self._stop_listening()
        if self._listener is None and not self._is_served():
            self._open()

    def close(self) -> None:
        """Take no further calls. Those that are being served go on."""
        if self._listener is not None and self._find() == self._identity:
            statedir.remove(self._path)
        self._stop_listening()

    # The socket ---------------------------------------------------------------------------------

    def _open(self) -> None:
        folder, name = os.path.split(self._path)
        temporary = f"{folder}/.{name}.{os.getpid()}"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            statedir.make_private(folder)
            statedir.remove(temporary)
            listener.bind(temporary)
            os.chmod(temporary, 0o600)  # nobody can connect before it listens
            listener.listen(spawn.BACKLOG)
            self._identity = _identity(temporary)
            os.rename(temporary, self._path)
        except OSError as error:
            listener.close()
            statedir.remove(temporary)
            reason = error.strerror or repr(error)
            if reason != self._told:
                log.warning("the front cannot be served", path=self._path, error=reason)
            self._told = reason
            return
        self._told = None
        self._listener = listener
        log.info("the front is served", path=self._path)
        with self._lock:
            self._start_thread(listener)

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
            listener.close()

    def _find(self) -> tuple[int, int] | None:
        return _identity(self._path)

    def _is_served(self) -> bool:
        """Whether somebody listens. Who is asked notices only a front that says nothing."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(self._path)
            except BlockingIOError:
                return True
            except OSError:
                return False
            return True

    # The threads --------------------------------------------------------------------------------

    def _start_thread(self, listener: socket.socket) -> None:
        """*Needs* the lock."""
        self._threads += 1
        self._idle += 1
        # Not an executor's: the process would wait for these at its end.
        threading.Thread(target=self._run, args=(listener,), name="front", daemon=True).start()

    def _run(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if listener is not self._listener:
                    break
                log.error("a front cannot be accepted", error=str(error))
                time.sleep(_PAUSE_S)
                continue
            with self._lock:
                self._idle -= 1
                if self._idle == 0 and self._threads < _MOST_THREADS:
                    self._start_thread(listener)
            try:
                self._serve(connection)
            except Exception as error:  # noqa: BLE001 - a surprise must not end the rest
                log.crash("a call could not be served", error)
            finally:
                connection.close()
            with self._lock:
                self._idle += 1
                if self._idle > _IDLE_THREADS:
                    break
        with self._lock:
            self._idle -= 1
            self._threads -= 1

    # One call -----------------------------------------------------------------------------------

    def _serve(self, connection: socket.socket) -> None:
        received = _hello(connection)
        if received is None:
            return
        call = Call(connection, self._state_dir, self._ask, self._known)
        own, sink = log.sink(), log.Sink(stderr=call.stderr)
        invoke.use_arm(call)
        log.use_sink(sink)
        try:
            result = self._answer(call, received)
        finally:
            invoke.use_arm(None)
            log.use_sink(own)
            sink.close()
        figures.front_served(result)

    def _answer(self, call: Call, received: Hello) -> str:
        """Serve a call and return what became of it."""
        operations = {
            name: main.logged(self._ours(call, operation))
            for name, operation in plugin.OPERATIONS.items()
        }
        printed = _Printed()
        try:
            self._require_same_namespaces(received)
            exit_code = skel.main(
                received.environ, _Input(received.input), printed, operations, main.crashed
            )
            call.answer(printed.data, exit_code)
        except ServedError:
            return figures.DELEGATED
        except NotOursError as error:
            figures.front_fell_back(error.reason)
            with contextlib.suppress(invoke.CallerGoneError):
                call.be_parent()
            return figures.PARENT
        except invoke.CallerGoneError:
            return figures.ABANDONED
        return figures.ANSWERED

    def _require_same_namespaces(self, received: Hello) -> None:
        """Paths must mean the same, and the node's own namespace be this process's."""
        if (received.net_namespace, received.mount_namespace) != self._namespaces:
            raise NotOursError("namespace")

    def _ours(self, call: Call, operation: Operation) -> Operation:
        """Return the operation, for calls that this child can judge."""

        def serve(request: skel.Request) -> dict[str, Any] | None:
            folders = [folder for folder in request.path.split(":") if folder]
            if not all(map(_means_the_same, [*folders, request.netns or "/"])):
                raise NotOursError("path")
            call.is_for(request)
            return operation(request)

        return serve


class _Input:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self) -> bytes:
        return self._data


class _Printed:
    data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    def flush(self) -> None:
        pass


def _means_the_same(path: str) -> bool:
    """Whether a path is the same file for every process in these namespaces."""
    return path.startswith("/") and not path.startswith(("/proc/self", "/proc/thread-self"))


def _hello(connection: socket.socket) -> Hello | None:
    """Read what the front says first; None if it is nonsense."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    if struct.unpack("=3i", credentials)[1] not in (0, os.geteuid()):
        return None
    connection.settimeout(_HELLO_S)
    received = b""
    try:
        while (total := hello_bytes(received)) is None or len(received) < total:
            part = connection.recv(1 << 16)
            if not part:
                return None
            received += part
    except (OSError, NonsenseError):
        return None
    return hello(received)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
