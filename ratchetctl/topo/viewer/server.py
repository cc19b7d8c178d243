"""The page, served to browsers on this machine, with what is new while it is open.

It listens on 127.0.0.1 only, answers GET and HEAD only, and only under this machine's own names: a
page elsewhere that has its name lead here (DNS rebinding) gets nothing. What is seen is looked up
when somebody asks for it, and at most once in LOOK_S for all who ask.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from ratchetctl.errors import TopologyError
from ratchetctl.topo.graph import page, picture
from ratchetctl.topo.graph.picture import Picture
from ratchetctl.topo.graph.seen import Seen

ADDRESS = "127.0.0.1"
NAMES = ("127.0.0.1", "localhost", "[::1]")
LOOK_S = 1.0
TIMEOUT_S = 30.0  # of a browser that says nothing


class Server(ThreadingHTTPServer):
    """Serves one drawing. `look` says what is seen now; one thread at a time calls it.

    None: the drawing is of a file, and nothing of it changes.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, drawing: Picture, look: Callable[[], Seen] | None) -> None:
        self._drawing = drawing
        self._look = look
        self._lock = threading.Lock()
        self._looked_at = 0.0
        self._now: Picture = drawing
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise TopologyError(
                f"port {port} of {ADDRESS} cannot be used: {error.strerror};"
                " give another --port, or 0 for any"
            ) from error

    @property
    def is_live(self) -> bool:
        return self._look is not None

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_address[1]}/"

    def now(self) -> Picture:
        """Return the drawing as it is now, or was a moment ago."""
        if self._look is None:
            return self._drawing
        with self._lock:
            if time.monotonic() - self._looked_at >= LOOK_S:
                self._now = picture.look(self._drawing, self._look())
                self._looked_at = time.monotonic()
            return self._now

    def server_bind(self) -> None:
        """Bind without asking a name server for this machine's name, as the library would."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that went away; anything else is a mistake to be shown."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = TIMEOUT_S
    server_version, sys_version = "ratchetctl", ""

    def do_GET(self) -> None:
        live = self.server.is_live
        if not _is_own(self.headers.get("Host", "")):
            self._answer(403, "text/plain", "this server answers to this machine's own names only")
        elif self.path == "/":
            self._answer(200, "text/html", page.page(self.server.now(), is_served=live))
        elif self.path == "/state.json":
            now = page.now(self.server.now())
            self._answer(200, "application/json", json.dumps(now, separators=(",", ":")))
        else:
            self._answer(404, "text/plain", "there is / and /state.json")

    do_HEAD = do_GET  # noqa: N815 - the name that the standard library looks for

    def _answer(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        # A page's own policy cannot say who may frame it.
        self.send_header(
            "Content-Security-Policy",
            f"{page.policy(is_served=self.server.is_live)}; frame-ancestors 'none'",
        )
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing: whoever started the server sees the page."""


def _is_own(host: str) -> bool:
    """Say whether a request was sent to this machine by one of its own names, on any port.

    Any port, because it may have come through a tunnel (ssh -L).
    """
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower() in NAMES
