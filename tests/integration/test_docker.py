"""Labels from an engine's Unix socket: what it says, and what it says when it is not well."""

from __future__ import annotations

import json
import os
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from ratchet.docker import Container, read_container
from ratchet.errors import PodSourceError, PodUnknownError
from tests.lab.api_server import at_most

CONTAINER_ID = "0123456789abcdef" * 4
POD_LABELS = {
    "ratchet": "true",
    "ratchet.primary": "true",
    "annotation.ratchet.local_ip": "192.168.2.100/25",
    "io.kubernetes.pod.namespace": "team-a",
    "io.kubernetes.pod.name": "in-1",
    "io.kubernetes.pod.uid": "11111111-2222",
}


class Engine(socketserver.ThreadingUnixStreamServer):
    """Answers GET /containers/<id>/json over HTTP, by full ID and by name, as Docker does."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: str) -> None:
        super().__init__(path, Handler)
        self.path = path
        self.containers: dict[str, Any] = {}
        self.fault: Callable[[Handler], None] | None = None
        self.paths: list[str] = []
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.stopping.set()
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away in the middle are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Engine

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        if self.server.fault is not None:
            self.server.fault(self)
            return
        found = self.server.containers.get(self.path.split("/")[2])
        if found is None:
            self.answer(404, json.dumps({"message": "No such container"}).encode())
        else:
            self.answer(200, json.dumps(found).encode())

    def answer(self, code: int, content: bytes, length: int | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(str(tmp_path / "engine.sock"))
    yield engine
    engine.close()


def inspected(labels: Any, **more: Any) -> dict[str, Any]:
    return {"Id": CONTAINER_ID, "Name": "/my_box", "Config": {"Labels": labels}} | more


def read(engine: Engine, timeout_s: float = 5.0) -> Container | None:
    return read_container(engine.path, CONTAINER_ID, timeout_s)


def test_a_sandbox_carries_its_pods_labels_annotations_and_identity(engine: Engine) -> None:
    engine.containers[CONTAINER_ID] = inspected(POD_LABELS)
    assert read(engine) == Container(
        namespace="team-a",
        name="in-1",
        uid="11111111-2222",
        labels=POD_LABELS,
        annotations={"ratchet.local_ip": "192.168.2.100/25"},
    )
    assert engine.paths == [f"/containers/{CONTAINER_ID}/json"]


@pytest.mark.parametrize("labels", [{}, None])
def test_a_plain_container_is_known_by_its_own_name(engine: Engine, labels: Any) -> None:
    engine.containers[CONTAINER_ID] = inspected(labels)
    assert read(engine) == Container(None, "my_box", None, {}, {})


def test_an_identity_that_cannot_be_one_is_none(engine: Engine) -> None:
    labels = {"io.kubernetes.pod.namespace": "../x", "io.kubernetes.pod.uid": "a b"}
    engine.containers[CONTAINER_ID] = inspected(labels, Name="/a/b")
    assert read(engine) == Container(None, None, None, labels, {})


def test_a_container_that_the_engine_does_not_have_is_none(engine: Engine) -> None:
    assert read(engine) is None


def test_a_container_that_is_only_called_like_ours_is_none(engine: Engine) -> None:
    engine.containers[CONTAINER_ID] = inspected({"ratchet": "true"}, Id="f" * 64)
    assert read(engine) is None


def test_nothing_in_an_id_gets_into_the_path(engine: Engine) -> None:
    assert read_container(engine.path, "a/../b?c", 5.0) is None
    assert engine.paths == ["/containers/a%2F..%2Fb%3Fc/json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"[" * 100_000,
        b"[]",
        b"null",
        b"{}",
        b'{"Config": []}',
        b'{"Config": null}',
        b'{"Config": {"Labels": []}}',
        b'{"Config": {"Labels": {"a": 1}}}',
        b" " * (5 << 20),
    ],
)
def test_nonsense_means_try_again_later(engine: Engine, content: bytes) -> None:
    engine.fault = lambda handler: handler.answer(200, content)
    with pytest.raises(PodUnknownError):
        read(engine)


def test_a_truncated_answer_means_try_again_later(engine: Engine) -> None:
    engine.fault = lambda handler: handler.answer(200, b'{"Config"', 1000)
    with pytest.raises(PodUnknownError):
        read(engine)


@pytest.mark.parametrize("code", [302, 400, 409, 500, 503])
def test_an_engine_in_trouble_means_try_again_later(engine: Engine, code: int) -> None:
    engine.fault = lambda handler: handler.answer(code, b"{}")
    with pytest.raises(PodUnknownError, match=str(code)):
        read(engine)


@pytest.mark.parametrize("code", [401, 403])
def test_an_engine_that_does_not_let_us_is_to_be_checked(engine: Engine, code: int) -> None:
    engine.fault = lambda handler: handler.answer(code, b"{}")
    with pytest.raises(PodSourceError):
        read(engine)


def test_the_deadline_is_for_the_whole_call(engine: Engine) -> None:
    def hang(handler: Handler) -> None:
        engine.stopping.wait(60)

    def drip(handler: Handler) -> None:
        try:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
            while not engine.stopping.wait(0.05):
                handler.wfile.write(b"x")
        except OSError:
            pass

    for fault in (hang, drip):
        engine.fault = fault
        with at_most(5), pytest.raises(PodUnknownError, match="in time"):
            read(engine, timeout_s=0.3)


def test_a_socket_without_an_engine_means_try_again_later(engine: Engine) -> None:
    engine.close()
    with pytest.raises(PodUnknownError, match="refused"):
        read(engine)
    os.unlink(engine.path)
    with pytest.raises(PodUnknownError, match="No such file"):
        read(engine)


def test_a_socket_path_that_is_too_long_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(PodUnknownError):
        read_container(str(tmp_path / ("x" * 120)), CONTAINER_ID, 1.0)
