"""The program ``ratchet``: one call of the CNI plugin.

It joins the specification's skeleton to Ratchet's operations, the process's streams and the log. It
decides nothing; only here does the process end.
"""

from __future__ import annotations

import os
import select
import sys

from ratchet import log, plugin, pods
from ratchet.cni import skel
from ratchet.errors import CniError, RatchetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Operation = Callable[[skel.Request], dict[str, Any] | None]

# For standard input that is not needed and that nobody may ever close.
PATIENCE_MS = 500
# The option with which the front hands on what it has read of a standard input without an end.
INPUT_OPTION = "--input="


def main() -> int:
    """Serve the one request that environment and standard input hold; return the exit code."""
    _occupy_streams()
    operations = {name: logged(operation) for name, operation in plugin.OPERATIONS.items()}
    patience_ms = None if skel.needs_stdin(os.environ) else PATIENCE_MS
    stdin = _StandardInput(patience_ms, _begun())
    return skel.main(os.environ, stdin, _StandardOutput(), operations, crashed)


def _occupy_streams() -> None:
    """Put something in place of standard streams that are closed, before a file becomes one.

    Input and output fail as they did, to the runtime's knowledge, and what would go to standard
    error is lost.
    """
    for fd, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", flags)  # takes the lowest number that is free: this one


def _begun() -> int | None:
    """Return the file with the beginning of standard input, if the front has read that already."""
    for option in sys.argv[1:]:
        if option.startswith(INPUT_OPTION) and option[len(INPUT_OPTION) :].isdigit():
            fd = int(option[len(INPUT_OPTION) :])
            os.set_inheritable(fd, False)
            return fd
    return None


def logged(operation: Operation) -> Operation:
    """Return the operation, with its error in the log as well."""

    def serve(request: skel.Request) -> dict[str, Any] | None:
        try:
            return operation(request)
        except CniError as exc:
            if exc.repeats:
                from ratchet import repeated  # noqa: PLC0415 - not for a pod

                if not repeated.is_told(exc.repeats):
                    raise
            log.error(
                exc.msg,
                repeated=exc.repeats or None,
                operation=request.command,
                code=exc.code,
                details=exc.details or None,
                pod=_pod(request),
                container=request.container_id or None,
                args=request.args or None,
            )
            raise

    return serve


def _pod(request: skel.Request) -> str | None:
    """Return the pod that a request is for, by the name that the runtime gives."""
    try:
        namespace, name, _ = pods.identity(pods.cni_args(request.args))
    except CniError:
        return None
    return None if name is None else pods.logged(namespace, name)


def crashed(exc: Exception) -> CniError:
    """Return the error that the runtime is told of one that nobody expected."""
    log.crash("internal error", exc)
    return RatchetError(type(exc).__name__, "the log has the traceback")


class _StandardInput:
    """Standard input without Python's stream, which is None when the runtime gave none."""

    def __init__(self, patience_ms: int | None, begun: int | None) -> None:
        self.patience_ms = patience_ms
        """How long to wait for more; None: until somebody closes it."""
        self.begun = begun

    def read(self) -> bytes:
        if os.isatty(0):  # somebody tries the program by hand
            return b""
        poller = select.poll()
        poller.register(0, select.POLLIN)
        parts = []
        while self.begun is not None and (part := os.read(self.begun, 65536)):
            parts.append(part)
        while self.patience_ms is None or poller.poll(self.patience_ms):
            part = os.read(0, 65536)
            if not part:
                break
            parts.append(part)
        return b"".join(parts)


class _StandardOutput:
    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]

    def flush(self) -> None:
        pass


if __name__ == "__main__":
    raise SystemExit(main())
