"""`ratchetctl` without its start: a process that has loaded it, and forks for each command.

A command is a process of its own with the arguments, streams, environment and directory that it
would have had. Only that Python starts and loads modules is not done again hundreds of times, which
took a tenth of a second of a processor each. That the program starts is shown where it is started:
commands that go on for long or are interrupted, and the built programs.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from ratchetctl.cli import cli
from ratchetctl.main import main

Done = subprocess.CompletedProcess[str]

_REQUEST_BYTES = 1 << 20
_lock = threading.Lock()
_address: bytes | None = None


def run(arguments: Sequence[str], *, stdin: str = "", timeout_s: float) -> Done:
    """Run one command and give its output, whatever its exit status, as `subprocess.run` does.

    Raises TimeoutExpired; the command is killed then.
    """
    request = {"arguments": arguments, "environ": dict(os.environ), "cwd": os.getcwd()}
    readers: list[BinaryIO] = []
    with _socket() as server, tempfile.TemporaryFile() as given:
        given.write(stdin.encode())
        given.seek(0)
        server.connect(_server())
        server.settimeout(timeout_s)
        writers = []
        for _ in range(2):
            read, write = os.pipe()
            readers.append(os.fdopen(read, "rb"))
            writers.append(write)
        try:
            socket.send_fds(server, [json.dumps(request).encode()], [given.fileno(), *writers])
        finally:
            for write in writers:
                os.close(write)
        pid = int(server.recv(16))
        try:
            output = _read(readers, time.monotonic() + timeout_s)
            status = int(server.recv(16))
        except TimeoutError as error:
            os.kill(pid, 9)
            raise subprocess.TimeoutExpired(list(arguments), timeout_s) from error
        finally:
            for reader in readers:
                reader.close()
    return Done(["ratchetctl", *arguments], status, *output)


def _read(readers: Sequence[BinaryIO], deadline: float) -> list[str]:
    """Read streams to their ends. Raises TimeoutError."""
    output = {reader.fileno(): b"" for reader in readers}
    with selectors.DefaultSelector() as selector:
        for fd in output:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(deadline - time.monotonic(), 0))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                part = os.read(key.fd, 1 << 16)
                output[key.fd] += part
                if not part:
                    selector.unregister(key.fd)
    return [output[reader.fileno()].decode() for reader in readers]


def _server() -> bytes:
    """Return the address of this process's server, which ends when this process does."""
    global _address  # noqa: PLW0603 - one for each process
    with _lock:
        if _address is None:
            with _socket() as listener:
                listener.bind("")  # any abstract address, unix(7)
                listener.listen()
                server = subprocess.Popen(
                    [sys.executable, "-m", "tests.lab.forks", str(listener.fileno())],
                    cwd=Path(__file__).parents[2],
                    stdin=subprocess.PIPE,  # whose end is the end of this process
                    stdout=subprocess.DEVNULL,
                    pass_fds=[listener.fileno()],
                )
                atexit.register(server.communicate)
                _address = listener.getsockname()
        assert _address is not None
        return _address


def _socket(fd: int | None = None) -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=fd)


# The server ---------------------------------------------------------------------------------------


def serve(listener: socket.socket) -> None:
    """Fork for each command, and tell who has asked for it how it has ended."""
    context = cli.make_context("ratchetctl", [], resilient_parsing=True)
    for name in cli.list_commands(context):
        cli.get_command(context, name)  # loads it
    gc.freeze()
    running: dict[int, tuple[int, socket.socket]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    return
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    data, fds, _, _ = socket.recv_fds(connection, _REQUEST_BYTES, 3)
                    pid = os.fork()
                    if pid == 0:
                        _be(json.loads(data), fds)
                    for fd in fds:
                        os.close(fd)
                    connection.sendall(f"{pid}".encode())
                    end = os.pidfd_open(pid)
                    running[end] = pid, connection
                    selector.register(end, selectors.EVENT_READ)
                    continue
                selector.unregister(key.fd)
                pid, connection = running.pop(key.fd)
                os.close(key.fd)
                _, status = os.waitpid(pid, 0)
                with connection:
                    connection.sendall(f"{os.waitstatus_to_exitcode(status)}".encode())


def _be(request: dict[str, Any], fds: Sequence[int]) -> NoReturn:
    """Become a command."""
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environ"])
    sys.argv = ["ratchetctl", *request["arguments"]]
    main()
    sys.exit()


if __name__ == "__main__":
    serve(_socket(int(sys.argv[1])))
