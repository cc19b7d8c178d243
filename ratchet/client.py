"""Asking a child that runs: one request, one answer, over the socket in the state directory.

Who may also start one is ``ratchet.spawn``, which this module knows nothing of: a question about
labels, and ``ratchetctl``, leave a node without a child as it is.

On the path of every pod whose labels the runtime does not tell: ``_socket`` stands for ``socket``,
whose enums cost 5 ms.
"""

from __future__ import annotations

import _socket
import os
import sys
import time

from ratchet import messages, statedir
from ratchet.cni import codec, invoke
from ratchet.errors import ChildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ratchet.config import Config

PAUSE_S = 0.005
LONGEST_PATH_BYTES = 107  # sun_path less its final zero, unix(7)
LARGEST_ANSWER_BYTES = 16 * 1024 * 1024
# By which the child tells whose configuration is the newer one.
STARTED_S = time.clock_gettime(time.CLOCK_BOOTTIME)
# The option with which the front becomes a parent.
FRONT_OPTION = "--front="
_is_told = False


def ask(config: Config, request: messages.Request, timeout_s: float) -> dict[str, Any] | None:
    """Return the child's answer; None when no child runs.

    Blocks at most ``timeout_s``. Raises ChildError when it does not answer. The answer may be a
    ``messages.Failure``.
    """
    arm = invoke.arm()
    if arm is not None:  # this is the child
        return arm.ask(told(config, request), timeout_s)
    call = Call(config, timeout_s)
    sock = call.connect()
    if sock is None:
        return None
    try:
        return call.exchange(sock, call.line(request))
    finally:
        sock.close()


def told(config: Config, request: messages.Request) -> dict[str, Any]:
    """Return all that the child is told with a request."""
    settings = {"settings": config.settings(), "started_s": STARTED_S}
    return {**messages.request_to_json(request), **settings}


def _fallen_back() -> dict[str, str]:
    """Return why the front has become this parent, for the first request that can tell it."""
    global _is_told  # noqa: PLW0603 - one process is one call
    if _is_told or len(sys.argv) < 2 or not sys.argv[1].startswith(FRONT_OPTION):
        return {}
    _is_told = True
    return {"front": sys.argv[1][len(FRONT_OPTION) :]}


class Call:
    """One request to the child, and the deadline that all its steps share."""

    def __init__(self, config: Config, timeout_s: float) -> None:
        self.config = config
        self.state_dir = config.state_dir
        self.timeout_s = timeout_s
        self.deadline = time.monotonic() + timeout_s

    def line(self, request: messages.Request) -> bytes:
        return codec.encode({**told(self.config, request), **_fallen_back()}) + b"\n"

    def exchange(self, sock: _socket.socket, line: bytes) -> dict[str, Any] | None:
        """Return the answer; None when the child went away without one. Raises ChildError."""
        parts: list[bytes] = []
        total = 0
        try:
            sock.settimeout(self.left_s())
            sock.sendall(line)
            while not parts or not parts[-1].endswith(b"\n"):
                sock.settimeout(self.left_s())
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

    def connect(self) -> _socket.socket | None:
        """Return a connection; None when nobody listens."""
        while True:
            sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
            try:
                sock.settimeout(self.left_s())
                with_address(self.state_dir, sock.connect)
            except BlockingIOError:  # the backlog is full, unix(7)
                sock.close()
                self.pause("too many wait for it")
            except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
                sock.close()
                return None
            except OSError as exc:
                sock.close()
                raise ChildError("cannot connect", f"{self.state_dir}: {exc.strerror}") from exc
            else:
                return sock

    def left_s(self) -> float:
        """Return the time that is left, never 0, which would mean not to wait at all."""
        return max(0.001, self.deadline - time.monotonic())

    def pause(self, why: str) -> None:
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
