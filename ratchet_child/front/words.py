"""What the front and the child say to each other, as bytes: the structures of front/front.c.

Both run on one machine, so numbers are the machine's own. Another layout is another MAGIC: the
front of another version then becomes the parent.
"""

from __future__ import annotations

import enum
import os
import struct

from ratchet.cni.dataclasses import dataclass

MAGIC = 0x31465452
_HELLO = struct.Struct("=4I2Q")
_WORD = struct.Struct("=9I")
_REPLY = struct.Struct("=5I")
_MOST_HELLO_BYTES = 4 << 20
REPLY_BYTES = _REPLY.size


class Kind(enum.IntEnum):
    """The words."""

    ANSWER = 1
    BECOME = 2
    RUN = 3
    HOLD = 4
    SAY = 5
    PARENT = 6


class Policy(enum.IntEnum):
    """What the front does when no further word comes."""

    BE_PARENT = 0
    LAST_WORDS = 1


class Flag(enum.IntFlag):
    """What became of a program besides its end."""

    OUT_OF_TIME = 1
    TOO_MUCH_OUTPUT = 2


class NonsenseError(Exception):
    """This is not what a front of this version says."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What the runtime gave the front, and where the front lives."""

    environ: dict[str, str]
    input: bytes
    net_namespace: int
    mount_namespace: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """How the front waits for the next word."""

    seconds: float
    when_lost: Policy = Policy.BE_PARENT
    when_late: Policy = Policy.BE_PARENT


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a word. The output follows it."""

    error: int
    status: int
    flags: Flag
    output_bytes: int


def hello_bytes(received: bytes) -> int | None:
    """How many bytes a hello has in all; None as long as nobody can say. *Raises* NonsenseError."""
    if len(received) < _HELLO.size:
        return None
    magic, environment_bytes, input_bytes, *_ = _HELLO.unpack_from(received)
    total = _HELLO.size + int(environment_bytes) + int(input_bytes)
    if magic != MAGIC or total > _MOST_HELLO_BYTES:
        raise NonsenseError
    return total


def hello(received: bytes) -> Hello:
    """Read a hello that has been received as a whole."""
    _, environment_bytes, _, _, net, mount = _HELLO.unpack_from(received)
    end = _HELLO.size + environment_bytes
    environ: dict[str, str] = {}
    # As Python reads its own environment: the first of two entries with one name counts.
    for entry in os.fsdecode(received[_HELLO.size : end]).split("\0"):
        name, equals, value = entry.partition("=")
        if equals:
            environ.setdefault(name, value)
    return Hello(environ, received[end:], net, mount)


def word(
    kind: Kind,
    payload: bytes,
    waiting: Waiting,
    *,
    exit_code: int = 0,
    run_s: float | None = None,
    most_output_bytes: int = 0,
) -> bytes:
    """One word. `run_s` is a program's time; None: it has no limit."""
    head = _WORD.pack(
        MAGIC,
        kind,
        len(payload),
        exit_code,
        int(waiting.seconds * 1000),
        waiting.when_lost,
        waiting.when_late,
        0 if run_s is None else max(1, int(run_s * 1000)),
        most_output_bytes,
    )
    return head + payload


def program(path: str, environ: dict[str, str]) -> bytes:
    """Return the payload of BECOME and RUN."""
    entries = [path, *(f"{name}={value}" for name, value in environ.items())]
    return os.fsencode("\0".join(entries)) + b"\0"


def reply(received: bytes) -> Reply:
    """Read a reply. *Raises* NonsenseError."""
    magic, error, status, flags, output_bytes = _REPLY.unpack(received)
    if magic != MAGIC:
        raise NonsenseError
    return Reply(error, status, Flag(flags), output_bytes)
