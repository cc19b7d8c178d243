"""Taking over from a process that serves: its socket, its lock and what it keeps.

Requests that nobody has accepted yet wait in the backlog meanwhile, so none is lost.
"""

from __future__ import annotations

import _socket
import os

from ratchet import messages
from ratchet.cni import codec
from ratchet_child.supervision import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# A child finishes what is under way first.
PATIENCE_S = 30.0
_ANSWER_BYTES = 1 << 16


class Held:
    """What makes a process the one that serves."""

    __slots__ = ("kept", "listener", "lock")

    def __init__(self, listener: int, lock: int, kept: dict[str, int]) -> None:
        self.listener = listener
        self.lock = lock
        self.kept = kept


def ask(connect: Callable[[Callable[[str], None]], None]) -> Held | str:
    """Ask the process that serves to hand over; why it does not otherwise. Never raises OSError.

    `connect` is given what connects to a path. Blocks at most twice PATIENCE_S.
    """
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.settimeout(PATIENCE_S)
        connect(connection.connect)
        connection.sendall(codec.encode({"op": messages.HAND_OVER}) + b"\n")
        data, descriptors = wire.receive_bytes(connection, _ANSWER_BYTES)
        if not descriptors:
            return _reason(data)
        listener, lock, others = descriptors
        return Held(listener, lock, _receive_kept(_socket.socket(fileno=others)))
    except OSError as error:
        return error.strerror or str(error)
    finally:
        connection.close()


def _receive_kept(connection: _socket.socket) -> dict[str, int]:
    kept: dict[str, int] = {}
    connection.settimeout(PATIENCE_S)
    try:
        while (message := wire.receive(connection)) is not None:
            wire.take_kept(message, kept)
    except BaseException:
        for fd in kept.values():
            os.close(fd)
        raise
    finally:
        connection.close()
    return kept


def _reason(data: bytes) -> str:
    if not data:
        return "it ends"
    try:
        answer = codec.decode(data)
        return str(answer["msg"])
    except (ValueError, KeyError, TypeError):
        return "its answer is not understood"
