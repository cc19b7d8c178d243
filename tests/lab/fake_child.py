"""A child made of a socket and a script, for fronts: it says whatever a test wants it to say.

The structures are written down once more here, so that the front's layout is held by two texts.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.lab import programs

MAGIC = 0x31465452
ANSWER, BECOME, RUN, HOLD, SAY, PARENT = range(1, 7)
BE_PARENT, LAST_WORDS = 0, 1
OUT_OF_TIME, TOO_MUCH_OUTPUT = 1, 2
INPUT = b'{"cniVersion": "1.0.0", "name": "net"}'
TIMEOUT_S = 20.0

# What the parent would be: it shows why it was executed, and with what input and environment.
_PARENT = """#!/bin/sh
case $2 in
    --input=*) cat /dev/fd/${2#--input=} - > $0.input ;;
    *) cat > $0.input ;;
esac
echo "parent $1 $MARK $(cksum < $0.input)"
"""

Script = Callable[["Connection"], None]


def word(
    kind: int,
    payload: bytes = b"",
    *,
    exit_code: int = 0,
    wait_ms: int = 2000,
    lost: int = BE_PARENT,
    late: int = BE_PARENT,
    run_ms: int = 0,
    most: int = 1 << 24,
    magic: int = MAGIC,
    size: int | None = None,
) -> bytes:
    """Return one word; `size` stands for what it says of its payload."""
    length = len(payload) if size is None else size
    head = (magic, kind, length, exit_code, wait_ms, lost, late, run_ms, most)
    return struct.pack("=9I", *head) + payload


def program(path: str, environ: Mapping[str, str] | None = None) -> bytes:
    entries = [path, *(f"{name}={value}" for name, value in (environ or {}).items())]
    return "".join(f"{entry}\0" for entry in entries).encode()


class Connection:
    """A front that has said hello."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.settimeout(TIMEOUT_S)
        head = self.read(32)
        magic, environment, size, _, self.net, self.mount = struct.unpack("=4I2Q", head)
        assert magic == MAGIC
        self.environ = self.read(environment)
        self.input = self.read(size)

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._connection.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def say(self, data: bytes, *sources: bytes) -> None:
        """Send words, and with them programs' standard inputs."""
        fds = [_file(source) for source in sources]
        try:
            if fds:
                data = data[socket.send_fds(self._connection, [data], fds) :]
            if data:
                self._connection.sendall(data)
        finally:
            for fd in fds:
                os.close(fd)

    def reply(self) -> tuple[int, int, int, bytes]:
        """Return error, wait status, flags and output."""
        magic, error, status, flags, size = struct.unpack("=5I", self.read(20))
        assert magic == MAGIC
        return error, status, flags, self.read(size)

    def closed(self) -> bool:
        """Wait until the front has closed its end."""
        with contextlib.suppress(ConnectionResetError):
            return self._connection.recv(1) == b""
        return True


class FakeChild:
    """A listening socket, a front that knows it, and a parent that shows what it was given."""

    def __init__(self, folder: Path, kind: str = "release", *options: str) -> None:
        self.kind = kind
        self.path = str(folder / "front.sock")
        self.front = str(folder / "ratchet")
        self.parent = folder / "ratchet-parent"
        self.errors: list[BaseException] = []
        define = f'-DFRONT_SOCKET="{self.path}"'
        programs.compile_front(self.front, kind, define, *options)
        self.parent.write_text(_PARENT)
        self.parent.chmod(0o755)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()

    def call(
        self,
        script: Script | None,
        stdin: bytes = INPUT,
        environ: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Execute the front, with this script for what it is told; None: nobody accepts."""
        thread = threading.Thread(target=self._serve, args=(script,))
        if script is not None:
            thread.start()
        try:
            return subprocess.run(
                [self.front],
                input=stdin,
                env={"MARK": "mark", **(environ or {})},
                capture_output=True,
                timeout=TIMEOUT_S,
            )
        finally:
            if script is not None:
                thread.join()
            if self.errors:
                raise self.errors.pop()

    def _serve(self, script: Script | None) -> None:
        self.listener.settimeout(TIMEOUT_S)
        try:
            connection, _ = self.listener.accept()
            with connection:
                assert script is not None
                script(Connection(connection))
        except BaseException as error:  # noqa: BLE001 - handed to the test's thread
            self.errors.append(error)

    def close(self) -> None:
        self.listener.close()


def _file(data: bytes) -> int:
    fd = os.memfd_create("fake")
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
