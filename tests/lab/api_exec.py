"""`exec` in a pod, as the API server has it over a WebSocket (RFC 6455, v5.channel.k8s.io).

What runs in the pod is a program of this machine's, which the test names. It gets its standard
input until the client says that there is no more, or is gone, as a container runtime has it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import select
import struct
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.lab.api_objects import StatusError

if TYPE_CHECKING:
    from tests.lab.api_server import Handler

PROTOCOL = "v5.channel.k8s.io"
STDIN, STDOUT, STDERR, ERROR, CLOSE = 0, 1, 2, 3, 255
_BINARY, _END, _PING, _PONG = 0x2, 0x8, 0x9, 0xA
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3

Containers = Callable[[str, str, str, Sequence[str]], list[str]]
"""What runs for namespace, pod, container and command."""


def nothing(namespace: str, pod: str, container: str, command: Sequence[str]) -> list[str]:
    """Be a cluster without containers."""
    raise StatusError(500, "InternalError", f"container {container} of {namespace}/{pod}: none")


def serve(handler: Handler, namespace: str, pod: str, containers: Containers) -> None:
    """Switch to a WebSocket, run the command and carry its streams. Raises StatusError."""
    query = parse_qs(urlsplit(handler.path).query)
    key = handler.headers.get("Sec-WebSocket-Key")
    offered = handler.headers.get("Sec-WebSocket-Protocol", "")
    if key is None or PROTOCOL not in offered.split(", "):
        raise StatusError(400, "BadRequest", "you must specify a WebSocket of the protocol v5")
    argv = containers(namespace, pod, query["container"][0], query["command"])
    handler.send_response(101)
    handler.send_header("Upgrade", "websocket")
    handler.send_header("Connection", "Upgrade")
    accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()
    handler.send_header("Sec-WebSocket-Accept", accept)
    handler.send_header("Sec-WebSocket-Protocol", PROTOCOL)
    handler.end_headers()
    handler.close_connection = True
    handler.connection.settimeout(None)
    _Exec(handler).run(argv)


class _Exec:
    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._lock = threading.Lock()
        self._ahead = b""

    def run(self, argv: list[str]) -> None:
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdin is not None
            pumps = [
                threading.Thread(target=self._pump, args=(STDOUT, process.stdout)),
                threading.Thread(target=self._pump, args=(STDERR, process.stderr)),
            ]
            feeding = threading.Thread(target=self._feed, args=(process.stdin,), daemon=True)
            for thread in (*pumps, feeding):
                thread.start()
            for thread in pumps:
                thread.join()
            status = process.wait()
        self._send(_BINARY, bytes([ERROR]) + json.dumps(_status(status)).encode())
        self._send(_END, struct.pack("!H", 1000))

    def _pump(self, channel: int, stream: IO[bytes]) -> None:
        while data := stream.read1(65536):  # type: ignore[attr-defined]
            self._send(_BINARY, bytes([channel]) + data)

    def _feed(self, stdin: IO[bytes]) -> None:
        """Give the program what the client sends, and its end."""
        with contextlib.suppress(OSError, ValueError), stdin:
            while True:
                kind, data = self._frame()
                if kind == _PING:
                    self._send(_PONG, data)
                elif kind == _END or data[:2] == bytes([CLOSE, STDIN]):
                    return
                elif data[:1] == bytes([STDIN]):
                    stdin.write(data[1:])
                    stdin.flush()

    def _frame(self) -> tuple[int, bytes]:
        """Return a frame's kind and what it holds. Raises OSError when the client has gone."""
        first, second = self._read(2)
        size = second & 0x7F
        if size >= 126:
            size = int.from_bytes(self._read(2 if size == 126 else 8), "big")
        mask = self._read(4) if second & 0x80 else bytes(4)
        data = self._read(size)
        return first & 0x0F, bytes(one ^ mask[n % 4] for n, one in enumerate(data))

    def _read(self, size: int) -> bytes:
        """Return so many bytes; the client has sent none of them with its request."""
        connection = self._handler.connection
        while len(self._ahead) < size:
            if not connection.pending():
                select.select([connection], (), ())
            # One thread at a time: OpenSSL's connections are no meeting places.
            with self._lock:
                data = connection.recv(65536)
            if not data:
                raise ConnectionError("the client has gone")
            self._ahead += data
        taken, self._ahead = self._ahead[:size], self._ahead[size:]
        return taken

    def _send(self, kind: int, data: bytes) -> None:
        head = bytes([0x80 | kind])
        if len(data) < 126:
            head += bytes([len(data)])
        elif len(data) < 1 << 16:
            head += struct.pack("!BH", 126, len(data))
        else:
            head += struct.pack("!BQ", 127, len(data))
        with self._lock, contextlib.suppress(OSError):
            self._handler.wfile.write(head + data)


def _status(status: int) -> dict[str, Any]:
    if status == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {status}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(status)}]},
    }
