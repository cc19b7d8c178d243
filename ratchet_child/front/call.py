"""One call of the plugin that the front was executed for: the child's words, and their order.

To the operations it is the arm that executes programs and the way to the child; they do not notice
that they run in another process than the one the runtime waits for.

What may go wrong is decided here, and told to the front in advance. The table is in
docs/decisions/0011-the-front.md:

- Before anything was changed the front becomes the parent, whatever happens to the child.
- `begin`: an eligible pod's record is about to be written. The front answers this, so that it and
  a parent never work on one pod. If the child dies, the parent does the operation again: that is
  what the records are for. If the child is only late it may still be at work, and an ADD that has
  begun must not begin again beside it: the answer is error 11, and the runtime's DEL cleans up.
- An ADD that is passed to several plugins has no record. Once the first has run, a second ADD of
  it would be one too many: error 11 as well.
- The front is gone: the runtime has killed it. The call ends where it is, as a parent's would.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from ratchet.cni import invoke, skel, version
from ratchet.cni.errors import TRY_AGAIN_LATER, CniError
from ratchet.errors import ChildError
from ratchet_child.front.words import (
    REPLY_BYTES,
    Flag,
    Kind,
    NonsenseError,
    Policy,
    Reply,
    Waiting,
    program,
    reply,
    word,
)

# For the next word: before anything was changed, in a pass-through, and of an eligible pod.
FIRST_WORD_S = 0.1
PASSING_S = 5.0
WORKING_S = 30.0
# For questions that end in time by themselves.
GRACE_S = 5.0
# The API server answers in milliseconds; if it does not, the pod's own parent may wait for it.
LABELS_S = 2.0
_SEND_S = 10.0
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

Answer = dict[str, Any]
Ask = Callable[[Answer, Callable[[Answer], None]], None]
Known = Callable[[Answer], Answer | None]


class ServedError(BaseException):
    """The front has become the delegate: there is nobody left to answer. No error at all."""


class NotOursError(BaseException):
    """A call that this child cannot judge: the parent serves it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Call:
    """The child's side of one call. For one thread."""

    def __init__(self, connection: socket.socket, state_dir: str, ask: Ask, known: Known) -> None:
        """Serve a front; `ask` and `known` are as the door's."""
        self._connection = connection
        self._state_dir = state_dir
        self._ask = ask
        self._known = known
        self._started_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._waiting = Waiting(FIRST_WORD_S)
        self._is_add = False
        self._last_words = b""
        self.has_begun = False
        connection.settimeout(_SEND_S)

    def is_for(self, request: skel.Request) -> None:
        """Note what the call is about, before its operation begins."""
        self._is_add = request.command == "ADD"
        stated = request.config.get("cniVersion") or version.UNSTATED
        error = CniError(
            TRY_AGAIN_LATER,
            "the child has ended or hangs, try again later",
            "ratchet-child served this ADD and does not answer any more",
        )
        self._last_words = skel.error(error, stated)

    # The words ----------------------------------------------------------------------------------

    def answer(self, data: bytes, exit_code: int) -> None:
        """Have the answer printed, which ends the front."""
        self._say(Kind.ANSWER, data, exit_code=exit_code)

    def be_parent(self) -> None:
        """Have the parent serve the call."""
        self._say(Kind.PARENT)

    def stderr(self, data: bytes) -> None:
        """Have a line written to the runtime's standard error."""
        self._say(Kind.SAY, data)

    def serve(self, state_dir: str) -> None:
        """Part of `invoke.Arm`. *Raises* NotOursError."""
        if state_dir != self._state_dir:
            raise NotOursError("state_dir")

    def begin(self) -> None:
        """Part of `invoke.Arm`."""
        if not self.has_begun:
            late = Policy.LAST_WORDS if self._is_add else Policy.BE_PARENT
            self._hold(Waiting(WORKING_S, Policy.BE_PARENT, late))
            self.has_begun = True

    def become(self, path: str, config: bytes, environ: Mapping[str, str]) -> NoReturn:
        """Part of `invoke.Arm`."""
        self._say(Kind.BECOME, program(path, dict(environ)), source=config)
        try:
            error = self._reply(_SEND_S)[0].error
        except invoke.CallerGoneError:
            # What the front had open was closed when it became another program.
            raise ServedError from None
        raise OSError(error, os.strerror(error))

    def run(
        self, path: str, config: bytes, environ: Mapping[str, str], timeout_s: float | None
    ) -> tuple[bytes, int]:
        """Part of `invoke.Arm`."""
        changes = environ.get("CNI_COMMAND") != "VERSION"
        if (
            changes
            and not self.has_begun
            and self._is_add
            and self._waiting.when_lost is Policy.BE_PARENT
        ):
            self._hold(Waiting(PASSING_S, Policy.LAST_WORDS, Policy.LAST_WORDS))
        elif not self.has_begun:
            self._waiting = Waiting(PASSING_S, self._waiting.when_lost, self._waiting.when_late)
        most = invoke.LARGEST_ANSWER_BYTES
        payload = program(path, dict(environ))
        self._say(Kind.RUN, payload, source=config, run_s=timeout_s, most_output_bytes=most)
        told, output = self._reply(None if timeout_s is None else timeout_s + _SEND_S)
        if told.error:
            raise OSError(told.error, os.strerror(told.error))
        if told.flags & Flag.TOO_MUCH_OUTPUT:
            raise invoke.without_end(path)
        if told.flags & Flag.OUT_OF_TIME:
            raise invoke.out_of_time(path)
        return output, told.status

    # The child ----------------------------------------------------------------------------------

    def ask(self, request: Answer, timeout_s: float) -> Answer:
        """Part of `invoke.Arm`."""
        if (known := self._known(request)) is not None:
            return known
        before = self._waiting
        seconds = LABELS_S if request["op"] == "labels" else timeout_s + GRACE_S
        self._hold(Waiting(seconds, before.when_lost, before.when_late))
        answers: list[Answer] = []
        done = _Bell()
        try:

            def receive(answer: Answer) -> None:
                answers.append(answer)
                done.ring()

            self._ask(self._dated(request), receive)
            if not done.wait(self._connection, timeout_s):
                raise ChildError(f"no answer within {timeout_s:g} s")
        finally:
            done.close()
        self._waiting = Waiting(
            WORKING_S if self.has_begun else PASSING_S, before.when_lost, before.when_late
        )
        return answers[0]

    def tell(self, request: Answer) -> None:
        """Part of `invoke.Arm`."""
        self._ask(self._dated(request), lambda _: None)

    def _dated(self, request: Answer) -> Answer:
        """Return the request with the moment of this call, which tells the newer configuration."""
        return {**request, "started_s": self._started_s}

    # The connection -----------------------------------------------------------------------------

    def _hold(self, waiting: Waiting) -> None:
        """Have the front wait like this, and know that it does. *Raises* CallerGoneError."""
        self._waiting = waiting
        self._say(Kind.HOLD, self._last_words, exit_code=1)
        self._reply(_SEND_S)

    def _say(
        self, kind: Kind, payload: bytes = b"", *, source: bytes | None = None, **more: Any
    ) -> None:
        data = memoryview(word(kind, payload, self._waiting, **more))
        try:
            if source is not None:
                fd = _sealed_file(source)
                try:
                    data = data[socket.send_fds(self._connection, [data], [fd]) :]
                finally:
                    os.close(fd)
            if data:
                self._connection.sendall(data)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise
            raise invoke.CallerGoneError from error

    def _reply(self, timeout_s: float | None) -> tuple[Reply, bytes]:
        """Wait for the front's reply. *Raises* CallerGoneError, even if it is only too late."""
        try:
            self._connection.settimeout(timeout_s)
            told = reply(self._exactly(REPLY_BYTES))
            if told.output_bytes > 2 * invoke.LARGEST_ANSWER_BYTES:
                raise invoke.CallerGoneError
            output = self._exactly(told.output_bytes)
            self._connection.settimeout(_SEND_S)
        except (OSError, NonsenseError) as error:
            raise invoke.CallerGoneError from error
        return told, output

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._connection.recv(min(size, 1 << 20))
            if not part:
                raise invoke.CallerGoneError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


class _Bell:
    """Wakes one thread that waits for an answer or for the front's end, whichever comes first."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()

    def ring(self) -> None:
        """From any thread, also when nobody waits any more."""
        with self._lock:
            if self._fd >= 0:
                os.eventfd_write(self._fd, 1)

    def wait(self, connection: socket.socket, timeout_s: float) -> bool:
        """Whether it rang in time. *Raises* CallerGoneError."""
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        poller.register(connection, select.POLLIN)
        heard = dict(poller.poll(timeout_s * 1000))
        if self._fd in heard:
            return True
        if heard:  # a front that waits says nothing: this is its end
            raise invoke.CallerGoneError
        return False

    def close(self) -> None:
        with self._lock:
            os.close(self._fd)
            self._fd = -1


def _sealed_file(data: bytes) -> int:
    """Return a file that nobody can change any more, to be read from its start."""
    fd = os.memfd_create("cni-config", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd
