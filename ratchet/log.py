"""One line a fact, as logfmt: ``time=… level=… program=… msg="…" pod=… container=… link=…``.

It stands in for the standard library's ``logging``, which costs more to import than a whole
pass-through takes. It never raises, whatever becomes of the file: a full disk must not fail a
pod. It writes each line with one ``write`` to a descriptor opened for appending, so lines of
forty parents and a child do not mix. What is logged is escaped here, in one place: labels and
plugins' messages are written by strangers. Nothing in here knows what a secret is: never pass
one.
"""

from __future__ import annotations

import _thread
import os
import time

from ratchet import statedir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LEVELS = ("debug", "info", "warning", "error")
LONGEST_VALUE = 8192
# How long a line may go to a file that has been moved away. A parent's life is shorter.
MOVED_S = 1.0


class Sink:
    """Where lines go. One object, so that ``configure`` can be called again."""

    __slots__ = ("fd", "level", "looked_at", "path", "program", "stderr", "to_stderr")

    def __init__(self, stderr: Callable[[bytes], object] | None = None) -> None:
        self.fd = -1
        self.looked_at = 0.0
        """When it was looked last whether the file is still there, seconds since the epoch."""
        self.path: str | None = None
        self.level = 1
        self.program = "ratchet"
        self.to_stderr = True
        self.stderr = stderr
        """What writes to the standard error that is meant; None: this process's own."""

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class _OfThread(_thread._local):  # noqa: SLF001 - threading, which names it, costs 5 ms
    """Where a thread's lines go: the process's sink, unless it has one of its own."""

    sink = Sink()


_of_thread = _OfThread()


def sink() -> Sink:
    """Return where the calling thread's lines go."""
    return _of_thread.sink


def use_sink(own: Sink) -> None:
    """Have the calling thread's lines, and what it configures, go there."""
    _of_thread.sink = own


def configure(path: str | None, level: str, program: str, to_stderr: bool) -> None:
    """Say where lines go. The file is opened when the first line is written; safe to call again."""
    own = _of_thread.sink
    if path != own.path:
        own.close()
    own.path = path
    own.level = LEVELS.index(level) if level in LEVELS else 1
    own.program = program
    own.to_stderr = to_stderr


def debug(message: str, **fields: object) -> None:
    _write(0, message, fields)


def info(message: str, **fields: object) -> None:
    _write(1, message, fields)


def warning(message: str, **fields: object) -> None:
    _write(2, message, fields)


def error(message: str, **fields: object) -> None:
    _write(3, message, fields)


def crash(message: str, exc: BaseException, **fields: object) -> None:
    """Log an exception that nobody expected, with its traceback."""
    import traceback  # noqa: PLC0415 - only ever needed when something broke

    trace = "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))
    _write(3, message, {**fields, "traceback": trace})


class Joined:
    """A field of several values, put together only when a line is written."""

    __slots__ = ("_values",)

    def __init__(self, values: Iterable[object]) -> None:
        self._values = values

    def __str__(self) -> str:
        return ",".join(map(str, self._values)) or "none"


class Logger:
    """Lines about one thing: the fields that name it are given once."""

    __slots__ = ("_fields",)

    def __init__(self, **fields: object) -> None:
        self._fields = fields

    def bind(self, **fields: object) -> Logger:
        """Return a logger with more fields."""
        return Logger(**{**self._fields, **fields})

    def debug(self, message: str, **fields: object) -> None:
        debug(message, **{**self._fields, **fields})

    def info(self, message: str, **fields: object) -> None:
        info(message, **{**self._fields, **fields})

    def warning(self, message: str, **fields: object) -> None:
        warning(message, **{**self._fields, **fields})

    def error(self, message: str, **fields: object) -> None:
        error(message, **{**self._fields, **fields})


def line(level: str, program: str, message: str, fields: dict[str, object], now: float) -> str:
    """Return one line. A field whose value is None is left out."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    parts = [
        f"time={stamp}.{int(now % 1 * 1000):03d}Z",
        f"level={level}",
        f"program={program}",
        f"msg={_quoted(message)}",
    ]
    parts += [f"{key}={_value(str(value))}" for key, value in fields.items() if value is not None]
    return " ".join(parts) + "\n"


def _write(level: int, message: str, fields: dict[str, object]) -> None:
    own = _of_thread.sink
    if level < own.level:
        return
    now = time.time()
    try:
        text = line(LEVELS[level], own.program, message, fields, now)
        data = text.encode("utf-8", "backslashreplace")
    except Exception:  # noqa: BLE001 - a value whose str() fails must not fail a pod
        return
    if own.to_stderr and own.stderr is not None:
        own.stderr(data)
    elif own.to_stderr:
        _append(2, data)
    if own.path is not None:
        if own.fd < 0:
            own.fd = open_file(own.path)
            own.looked_at = now
        elif not 0 <= now - own.looked_at < MOVED_S:
            own.looked_at = now
            if _is_moved(own.path, own.fd):
                _reopen(own)
        if own.fd >= 0:
            _append(own.fd, data)


def reopen() -> None:
    """Open the file anew, as it is called now. Safe in a signal handler, and in any thread."""
    _reopen(_of_thread.sink)


def _reopen(own: Sink) -> None:
    """Open a sink's file anew: logrotate moves it away, or removes it.

    The descriptor keeps its number: another thread may be about to write to it.
    """
    if own.fd < 0 or own.path is None:
        return
    new = open_file(own.path)
    if new < 0:  # better into the old one than nowhere
        return
    try:
        old = os.fstat(own.fd)
        # A child that a parent has started has its last words there.
        for fd in (1, 2):
            if _is_same(os.fstat(fd), old):
                os.dup2(new, fd)
        os.dup2(new, own.fd, inheritable=False)
    except OSError:
        pass
    finally:
        os.close(new)


def _is_moved(path: str, fd: int) -> bool:
    try:
        return not _is_same(os.stat(path), os.fstat(fd))
    except OSError:  # it is not there any more
        return True


def _is_same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def open_file(path: str) -> int:
    """Open a log file for appending; -1 where that cannot, or must not, be done.

    It must not where somebody other than root could put another file in its place.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY
    try:
        folder = os.path.dirname(path)
        statedir.make_readable(folder)
        # O_NONBLOCK: should somebody put a FIFO there, a pod does not hang on its reader.
        fd = os.open(path, flags | os.O_NONBLOCK, 0o600)
        # In /tmp it may be anybody's, who would read and change what it says; or one of root's
        # own files, to which somebody has made a link (fs.protected_hardlinks, proc(5)).
        status = os.fstat(fd)
        is_strange = status.st_uid not in (0, os.geteuid()) or status.st_nlink > 1
        if is_strange and os.stat(folder).st_mode & 0o002:
            os.close(fd)
            fd = -1
    except OSError:
        return -1
    return fd


def _append(fd: int, data: bytes) -> None:
    try:  # noqa: SIM105 - contextlib would cost a pod's ADD 2 ms
        os.write(fd, data)
    except OSError:
        pass


def _value(text: str) -> str:
    plain = text.isascii() and text.isprintable() and text != ""
    if plain and not any(char in text for char in ' "=\\'):
        return text[:LONGEST_VALUE]
    return _quoted(text)


def _quoted(text: str) -> str:
    out = []
    for char in text[:LONGEST_VALUE]:
        if char in '"\\':
            out.append("\\" + char)
        elif char == "\n":
            out.append("\\n")
        elif char.isprintable():
            out.append(char)
        else:
            out.append(f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}")
    return '"' + "".join(out) + '"'
