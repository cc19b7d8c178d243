"""What the supervisor and its child say to each other, over a Unix socket of packets.

A message is a word, perhaps with a name, perhaps with descriptors (SCM_RIGHTS, unix(7)). The end of
the connection is a message too: the other process is gone, however it ended.

``_socket`` stands for ``socket``, whose enums would cost the supervisor a megabyte.
"""

from __future__ import annotations

import _socket
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# From the child.
READY = "ready"  # it serves
OVER = "over"  # it ends because there is nothing left to do
LISTENER = "listener"  # another listening socket, in the place of the one that it has shut
KEEP, DROP = "keep", "drop"  # a descriptor with a name
HAND_OVER = "hand-over"  # somebody else wants to serve, at the other end of this connection
# From the supervisor.
FINISH = "finish"  # answer who still waits, and end

LONGEST_BYTES = 1024
MOST_DESCRIPTORS = 8  # in one message
_INT_BYTES = 4


class Message:
    """One message. Its descriptors are the receiver's to close."""

    __slots__ = ("descriptors", "name", "word")

    def __init__(self, word: str, name: str, descriptors: list[int]) -> None:
        self.word = word
        self.name = name
        self.descriptors = descriptors


def pair() -> tuple[_socket.socket, _socket.socket]:
    """Return the two ends of a connection. Raises OSError."""
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)


def send(
    connection: _socket.socket, word: str, name: str = "", descriptors: Sequence[int] = ()
) -> None:
    """Send one message. Raises OSError, and ValueError for a name that is too long."""
    data = f"{word} {name}".encode()
    if len(data) > LONGEST_BYTES:
        raise ValueError(f"a name of {len(data)} bytes")
    connection.sendmsg([data], rights(descriptors))


def rights(descriptors: Sequence[int]) -> list[tuple[int, int, bytes]]:
    """Return the ancillary data that carries descriptors."""
    if not descriptors:
        return []
    packed = b"".join(fd.to_bytes(_INT_BYTES, sys.byteorder) for fd in descriptors)
    return [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)]


def receive(connection: _socket.socket) -> Message | None:
    """Wait for a message; None when the other process is gone."""
    try:
        data, descriptors = receive_bytes(connection, LONGEST_BYTES)
    except ConnectionResetError:
        return None
    if not data:
        return None
    word, _, name = data.decode("utf-8", "replace").partition(" ")
    return Message(word, name, descriptors)


def receive_bytes(connection: _socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Receive bytes and the descriptors that come with them. Raises OSError."""
    space = _socket.CMSG_SPACE(MOST_DESCRIPTORS * _INT_BYTES)
    data, ancillary, _, _ = connection.recvmsg(size, space, _socket.MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for level, kind, packed in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            descriptors += [
                int.from_bytes(packed[at : at + _INT_BYTES], sys.byteorder)
                for at in range(0, len(packed) - _INT_BYTES + 1, _INT_BYTES)
            ]
    return data, descriptors


def send_kept(connection: _socket.socket, kept: Mapping[str, int]) -> None:
    """Send every descriptor that is kept. Raises OSError."""
    for name, fd in kept.items():
        send(connection, KEEP, name, [fd])


def take_kept(message: Message, kept: dict[str, int]) -> None:
    """Carry out KEEP or DROP, and close what is not kept any more."""
    before = kept.pop(message.name, None)
    if before is not None:
        os.close(before)
    if message.word == KEEP and message.descriptors:
        kept[message.name] = message.descriptors.pop(0)
    for fd in message.descriptors:
        os.close(fd)
