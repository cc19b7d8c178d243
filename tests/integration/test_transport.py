"""The connection to etcd after it has failed, and an answer that has no end."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from urllib3.exceptions import ReadTimeoutError

from ratchet_child.store import transport as transport_module
from ratchet_child.store.transport import Answer, Transport
from tests.lab.api_server import Authority

TIMEOUT_S = 2.0
ANSWER = b"HTTP/1.1 200 OK\r\nX-Etcd-Index: 7\r\nContent-Length: 2\r\n\r\n{}"


def serve(*behaviours: Callable[[socket.socket], None]) -> tuple[int, threading.Thread]:
    """Serve one connection by each of these; the port, and the thread that does it."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)

    def run() -> None:
        with listener:
            for behave in behaviours:
                connection, _ = listener.accept()
                with connection:
                    behave(connection)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return listener.getsockname()[1], thread


def hang_up(connection: socket.socket) -> None:
    connection.recv(1)


def answer(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(ANSWER)
    connection.recv(65536)


def ask(transport: Transport, timeout_s: float = TIMEOUT_S) -> Answer:
    url = "http://etcd:1/v2/keys/a"
    found = transport.request("GET", url, fields={"quorum": "true"}, timeout=timeout_s, headers={})
    assert found.data == b"{}"
    return found


def test_a_handshake_that_failed_is_made_again(tmp_path: Path) -> None:
    authority = Authority(str(tmp_path))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*authority.issue("server", hosts="IP:127.0.0.1"))

    def answer_over_tls(connection: socket.socket) -> None:
        with server.wrap_socket(connection.dup(), server_side=True) as tls:
            answer(tls)

    port, thread = serve(hang_up, answer_over_tls)
    transport = Transport("127.0.0.1", port, ssl.create_default_context(cafile=authority.ca))
    with pytest.raises(OSError):
        ask(transport)
    assert ask(transport).getheader("x-etcd-index") == "7"
    transport.clear()
    thread.join(5)


def test_the_time_out_is_for_the_handshake_and_the_answer_together(tmp_path: Path) -> None:
    authority = Authority(str(tmp_path))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*authority.issue("server", hosts="IP:127.0.0.1"))

    def answer_late_twice(connection: socket.socket) -> None:
        time.sleep(0.7)
        with server.wrap_socket(connection.dup(), server_side=True) as tls:
            tls.recv(65536)
            time.sleep(0.7)
            with contextlib.suppress(OSError):  # nobody waits any more
                tls.sendall(ANSWER)

    port, thread = serve(answer_late_twice)
    transport = Transport("127.0.0.1", port, ssl.create_default_context(cafile=authority.ca))
    started = time.monotonic()
    with pytest.raises(ReadTimeoutError):
        ask(transport, 1.0)
    assert time.monotonic() - started < 1.3
    transport.clear()
    thread.join(5)


def test_a_connection_that_was_closed_meanwhile_is_made_anew() -> None:
    def once(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(ANSWER)

    port, thread = serve(once, once)
    transport = Transport("127.0.0.1", port, None)
    ask(transport)
    ask(transport)
    transport.clear()
    thread.join(5)


def test_an_answer_byte_by_byte_ends_with_the_time_out() -> None:
    def drip(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        with pytest.raises(OSError):
            while True:
                connection.sendall(b"x")
                stop.wait(0.05)
                if stop.is_set():
                    raise ConnectionError

    stop = threading.Event()
    port, thread = serve(drip)
    transport = Transport("127.0.0.1", port, None)
    with pytest.raises(ReadTimeoutError):
        ask(transport, 0.5)
    stop.set()
    thread.join(5)


def test_a_server_that_takes_no_connections_is_no_quiet_watch() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        fillers = []
        for _ in range(4):  # until nobody is let in any more
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        with pytest.raises(OSError) as caught:
            ask(Transport("127.0.0.1", port, None), 0.5)
        assert not isinstance(caught.value, ReadTimeoutError)
        for filler in fillers:
            filler.close()


def silent(connection: socket.socket) -> None:
    """Answer once, and then drop what comes, as a NAT does that has forgotten a connection."""
    connection.recv(65536)
    connection.sendall(ANSWER)
    while connection.recv(65536):
        pass


def test_a_read_on_a_connection_that_was_forgotten_is_repeated_on_a_new_one() -> None:
    port, thread = serve(silent, answer)
    transport = Transport("127.0.0.1", port, None)
    ask(transport, 3.0)
    started = time.monotonic()
    ask(transport, 3.0)
    assert time.monotonic() - started < 1.5
    transport.clear()
    thread.join(5)


def test_a_connection_that_was_idle_for_long_is_not_used_for_a_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport_module, "LONGEST_IDLE_S", 0.1)
    port, thread = serve(silent, answer)
    transport = Transport("127.0.0.1", port, None)
    ask(transport)
    time.sleep(0.2)
    put(transport)
    transport.clear()
    thread.join(5)


def test_a_write_is_never_repeated() -> None:
    def hang_up_after_a_write(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(ANSWER)
        assert connection.recv(65536).startswith(b"PUT")

    port, _ = serve(hang_up_after_a_write)
    transport = Transport("127.0.0.1", port, None)
    ask(transport)
    with pytest.raises(ConnectionError):
        put(transport)


def test_connections_are_kept_alive() -> None:
    port, thread = serve(answer)
    transport = Transport("127.0.0.1", port, None)
    ask(transport)
    connected = transport._connection.sock
    assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 30
    transport.clear()
    thread.join(5)


def put(transport: Transport) -> None:
    url = "http://etcd:1/v2/keys/a"
    fields = {"value": "1"}
    found = transport.request_encode_body("PUT", url, fields=fields, timeout=TIMEOUT_S, headers={})
    assert found.data == b"{}"
