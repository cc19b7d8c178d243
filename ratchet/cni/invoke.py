"""Finding a delegate and running it, or becoming it.

``become`` replaces this process by the plugin: what the runtime then sees is the plugin itself,
byte for byte, and nothing of ours stays in memory while it works. ``run`` is for plugins whose
answer we want to see. Both give the plugin its configuration as an anonymous file on standard
input, the environment that the runtime gave us, and our standard error.

A thread that serves a call which another process was executed for has an *arm*: what executes
programs in that process. Nothing else about a call differs.

Written on ``posix_spawn`` and ``poll``: ``subprocess`` would cost 10 ms. ``_signal`` stands for
``signal``, whose enums alone take 3 ms.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed only knows signal
import _thread
import os
import select
import stat
import sys
import time

from ratchet.cni import codec
from ratchet.cni.errors import CniError, DelegateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, NoReturn, Protocol, TypeVar

    T = TypeVar("T")

    class Arm(Protocol):
        """Executes programs for a call, in the process that the runtime executed."""

        def serve(self, state_dir: str) -> None:
            """Go on only if the call is for this state directory."""

        def begin(self) -> None:
            """Something is about to be changed: what comes before may be done twice.

            Raises CallerGoneError.
            """

        def become(self, program: str, config: bytes, environ: Mapping[str, str]) -> NoReturn:
            """Turn into the program. Raises OSError as execve does, and CallerGoneError."""

        def run(
            self, program: str, config: bytes, environ: Mapping[str, str], timeout_s: float | None
        ) -> tuple[bytes, int]:
            """Return output and wait status. Raises OSError, DelegateError, CallerGoneError."""

        def ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
            """Have a request answered in this process. Raises CniError, CallerGoneError."""

        def tell(self, request: dict[str, Any]) -> None:
            """Have a request served in this process."""


# Python ignores these two at its start, and what is ignored stays so in the programs that we start.
IGNORED_BY_PYTHON = (_signal.SIGPIPE, _signal.SIGXFSZ)
COERCED_LOCALES = ("C.UTF-8", "C.utf8", "UTF-8")
LARGEST_ANSWER_BYTES = 16 * 1024 * 1024
# How long a plugin's file may be open for writing.
BUSY_S = 5.0
BUSY_PAUSE_S = 0.1
_ETXTBSY = 26  # errno(3), without the import


class CallerGoneError(BaseException):
    """The process that the runtime executed is gone: its call ends here, as if it were killed.

    Nothing is undone, as nothing is when a parent is killed: the runtime's DEL finds what is left.
    So this is no Exception, which somebody might handle.
    """


class _OfThread(_thread._local):  # noqa: SLF001 - threading, which names it, costs 5 ms
    """What a thread has of its own; None: this process is the one that the runtime executed."""

    arm: Arm | None = None


_of_thread = _OfThread()


def use_arm(arm: Arm | None) -> None:
    """Have the calling thread's programs executed by this arm from now on."""
    _of_thread.arm = arm


def arm() -> Arm | None:
    """Return the calling thread's arm."""
    return _of_thread.arm


def begin() -> None:
    """Say that something is about to be changed. Raises CallerGoneError."""
    if _of_thread.arm is not None:
        _of_thread.arm.begin()


def find(plugin_type: str, path: str) -> str:
    """Return a plugin's file, the first in CNI_PATH's directories. Raises DelegateError."""
    if not plugin_type or "/" in plugin_type or "\0" in plugin_type or plugin_type in (".", ".."):
        raise DelegateError(f"{plugin_type!a} is not a plugin's name")
    for folder in path.split(":"):
        if not folder:
            continue
        candidate = f"{folder}/{plugin_type}"
        try:
            if stat.S_ISREG(os.stat(candidate).st_mode):
                return candidate
        except (OSError, ValueError):
            continue
    raise DelegateError(
        f"plugin {plugin_type} is in no directory of CNI_PATH", f"CNI_PATH is {path}"
    )


def clean_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment as it was before our own start changed it.

    PyInstaller's loader puts its folder into LD_LIBRARY_PATH, keeps the old value under another
    name and leaves notes to itself. Python itself sets LC_CTYPE where the locale is C (PEP 538).
    """
    cleaned = dict(environ)
    if cleaned.get("LC_CTYPE") in COERCED_LOCALES and not _was_given("LC_CTYPE"):
        del cleaned["LC_CTYPE"]
    if getattr(sys, "frozen", False):
        original = cleaned.pop("LD_LIBRARY_PATH_ORIG", None)
        cleaned.pop("LD_LIBRARY_PATH", None)
        if original is not None:
            cleaned["LD_LIBRARY_PATH"] = original
        for key in environ:
            if key.startswith(("_PYI_", "_MEIPASS2")):
                del cleaned[key]
    return cleaned


def _was_given(name: str) -> bool:
    """Tell whether a variable was in the environment that this process was executed with."""
    try:
        with open("/proc/self/environ", "rb") as file:
            given = file.read()
    except OSError:
        return True
    return any(entry.startswith(name.encode() + b"=") for entry in given.split(b"\0"))


def become(config: Mapping[str, Any], path: str, environ: Mapping[str, str]) -> NoReturn:
    """Replace this process by the plugin. Raises DelegateError if that is not possible."""
    program = find(config["type"], path)
    data = codec.encode(config)
    arm = _of_thread.arm
    if arm is not None:
        _start(program, lambda: arm.become(program, data, environ))
    source = _anonymous_file(data)
    os.dup2(source, 0)
    for number in IGNORED_BY_PYTHON:
        _signal.signal(number, _signal.SIG_DFL)
    cleaned = clean_environ(environ)
    _start(program, lambda: os.execve(program, [program], cleaned))  # noqa: S606 - this is what CNI is


def run(
    config: Mapping[str, Any],
    path: str,
    environ: Mapping[str, str],
    timeout_s: float | None = None,
) -> dict[str, Any] | None:
    """Run a plugin to its end and return its result; None when it prints none.

    Raises CniError with the plugin's own code, message and details, and DelegateError when it is
    missing, was killed, printed something else or was not done within ``timeout_s`` (None: no
    limit).
    """
    plugin_type = config["type"]
    program = find(plugin_type, path)
    arm, source = _of_thread.arm, codec.encode(config)
    if arm is not None:
        data, status = _start(program, lambda: arm.run(program, source, environ, timeout_s))
    else:
        data, status = _run(program, source, clean_environ(environ), timeout_s)
    answer = _decoded(data)
    if os.WIFSIGNALED(status):
        raise DelegateError(f"plugin {plugin_type} was killed by signal {os.WTERMSIG(status)}")
    if status != 0:
        raise _failure(plugin_type, os.waitstatus_to_exitcode(status), data, answer)
    if data.strip() == b"":
        return None
    if not isinstance(answer, dict):
        raise DelegateError(f"plugin {plugin_type} did not print a result", _excerpt(data))
    return answer


def _failure(plugin_type: str, exit_code: int, data: bytes, answer: Any) -> CniError:
    if isinstance(answer, dict):
        code, msg = answer.get("code"), answer.get("msg")
        if type(code) is int and 0 < code < 2**32 and isinstance(msg, str) and msg:
            return CniError(code, msg, str(answer.get("details") or ""))
    return DelegateError(
        f"plugin {plugin_type} exited with {exit_code} and did not print a CNI error",
        _excerpt(data),
    )


def _run(
    program: str, config: bytes, environ: dict[str, str], timeout_s: float | None
) -> tuple[bytes, int]:
    """Return what the program printed and its wait status. Raises DelegateError."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    # All that Python opens is closed at exec: the plugin gets these two and standard error.
    source = _anonymous_file(config)
    reading, writing = os.pipe()
    try:
        pid = _start(
            program,
            lambda: os.posix_spawn(
                program,
                [program],
                environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, source, 0), (os.POSIX_SPAWN_DUP2, writing, 1)],
                setsigdef=IGNORED_BY_PYTHON,
            ),
        )
    except DelegateError:
        os.close(reading)
        raise
    finally:
        os.close(source)
        os.close(writing)
    done = False
    try:
        data = _read_all(reading, program, deadline)
        if deadline is not None:
            _await_exit(pid, program, deadline)
        done = True
    finally:
        os.close(reading)
        if not done:
            os.kill(pid, _signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    return data, status


def _start(program: str, execute: Callable[[], T]) -> T:
    """Execute a program, after a while if somebody is just writing it. Raises DelegateError."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            return execute()
        except OSError as exc:
            # libcni waits, too, when it executes the plugin itself.
            if exc.errno != _ETXTBSY or time.monotonic() > deadline:
                what = exc.strerror or repr(exc)
                raise DelegateError(f"cannot execute {program}", what) from exc
        time.sleep(BUSY_PAUSE_S)


def _read_all(fd: int, program: str, deadline: float | None) -> bytes:
    """Read until the end, which also comes when the plugin is killed. Raises DelegateError."""
    parts: list[bytes] = []
    total = 0
    while True:
        _await(fd, program, deadline)
        part = os.read(fd, 65536)
        if not part:
            return b"".join(parts)
        total += len(part)
        if total > LARGEST_ANSWER_BYTES:
            raise without_end(program)
        parts.append(part)


def _await_exit(pid: int, program: str, deadline: float) -> None:
    """Wait until a plugin that has closed its standard output ends, too. Raises DelegateError."""
    fd = os.pidfd_open(pid)
    try:
        _await(fd, program, deadline)
    finally:
        os.close(fd)


def _await(fd: int, program: str, deadline: float | None) -> None:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    left_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
    if not poller.poll(left_ms):
        raise out_of_time(program)


def without_end(program: str) -> DelegateError:
    return DelegateError(f"{program} prints without end, and was killed")


def out_of_time(program: str) -> DelegateError:
    return DelegateError(f"{program} did not end in time, and was killed")


def _anonymous_file(data: bytes) -> int:
    """Return a descriptor from which the data can be read. A pipe would block on a large one."""
    fd = os.memfd_create("cni-config")
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _decoded(data: bytes) -> Any:
    if not data.strip():
        return None
    try:
        return codec.decode(data)
    except ValueError:
        return None


def _excerpt(data: bytes) -> str:
    """Return the beginning of what a plugin printed, fit for an error message."""
    text = data[:200].decode("utf-8", "replace").strip()
    return f"it printed {text!a}" if text else "it printed nothing"
