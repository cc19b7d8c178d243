"""The connection to etcd after it has failed, and an answer that has no end."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from urllib3.exceptions import ReadTimeoutError

from ratchet.config import Config
from ratchet.errors import StoreError
from ratchet.http import TooLargeError
from ratchet_child.store import transport as transport_module
from ratchet_child.store.api import Tree
from ratchet_child.store.etcd_v2 import EtcdV2Store
from ratchet_child.store.large import LARGE_BYTES
from ratchet_child.store.pipeline import Answered, Sent
from ratchet_child.store.transport import Transport
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


READ = Sent("GET", "/v2/keys/a", {"quorum": "true"})
WRITE = Sent("PUT", "/v2/keys/a", {"value": "1"})


def watch(transport: Transport, timeout_s: float = TIMEOUT_S) -> None:
    """Ask as python-etcd does, for a watch."""
    url = "http://etcd:1/v2/keys/a"
    found = transport.request("GET", url, fields={"wait": "true"}, timeout=timeout_s, headers={})
    assert found.data == b"{}"
    assert found.getheader("x-etcd-index") == "7"


def ask(transport: Transport, timeout_s: float = TIMEOUT_S) -> None:
    (found,) = together(transport, READ, timeout_s=timeout_s)
    assert found.data == b"{}"
    assert found.headers.get("x-etcd-index") == "7"


def put(transport: Transport) -> None:
    (found,) = together(transport, WRITE)
    assert found.data == b"{}"


def together(
    transport: Transport, *requests: Sent, timeout_s: float = TIMEOUT_S, limit_bytes: int = 8 << 20
) -> list[Answered]:
    return transport.together(requests, timeout_s, lambda: None, limit_bytes)


Ask = Callable[..., None]
both_ways = pytest.mark.parametrize("ask", [ask, watch])


@both_ways
def test_a_handshake_that_failed_is_made_again(ask: Ask, tmp_path: Path) -> None:
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
    ask(transport)
    transport.clear()
    thread.join(5)


@both_ways
def test_the_time_out_is_for_the_handshake_and_the_answer_together(
    ask: Ask, tmp_path: Path
) -> None:
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


@both_ways
def test_a_connection_that_was_closed_meanwhile_is_made_anew(ask: Ask) -> None:
    def once(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(ANSWER)

    port, thread = serve(once, once)
    transport = Transport("127.0.0.1", port, None)
    ask(transport)
    ask(transport)
    transport.clear()
    thread.join(5)


@both_ways
def test_an_answer_byte_by_byte_ends_with_the_time_out(ask: Ask) -> None:
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


@both_ways
def test_a_server_that_takes_no_connections_is_no_quiet_watch(ask: Ask) -> None:
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


def test_an_answer_that_begins_and_does_not_end_is_not_asked_for_again() -> None:
    def begin(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(ANSWER)
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{")
        assert connection.recv(65536) == b""

    port, thread = serve(begin)
    transport = Transport("127.0.0.1", port, None)
    ask(transport)
    with pytest.raises(ReadTimeoutError):  # not what a time-out that has passed is refused with
        together(transport, READ, timeout_s=0.3)
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


@pytest.mark.parametrize(
    ("is_listing", "most_bytes"), [(False, 8 << 20), (True, 32 << 20)], ids=["one pod's", "all"]
)
def test_an_answer_that_is_too_large_is_given_up(is_listing: bool, most_bytes: int) -> None:
    """By what it says of its length, and by what comes without that."""

    def answer_without_end(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Etcd-Index: 7\r\n\r\n")
        with contextlib.suppress(OSError):  # it is given up in the middle
            for _ in range(most_bytes // (1 << 20) + 8):
                connection.sendall(b" " * (1 << 20))

    port, thread = serve(answer_without_end)
    transport = Transport("127.0.0.1", port, None)
    limit = (
        transport_module.LARGEST_LISTING_BYTES
        if is_listing
        else transport_module.LARGEST_ANSWER_BYTES
    )
    with pytest.raises(TooLargeError) as failed:
        together(transport, READ, timeout_s=30, limit_bytes=limit)
    assert str(failed.value) == f"an answer of more than {most_bytes >> 20} MiB"
    transport.clear()
    thread.join(5)


def test_neither_redirects_nor_proxies_nor_netrc_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each could carry the password elsewhere."""
    asked: list[bytes] = []

    def redirect(connection: socket.socket) -> None:
        asked.append(connection.recv(65536))
        location = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/v2/keys/ratchet/a"
        connection.sendall(
            f"HTTP/1.1 307 Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
        )
        connection.recv(65536)

    elsewhere = socket.create_server(("127.0.0.1", 0))
    elsewhere.settimeout(0.5)
    port, thread = serve(redirect)
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{elsewhere.getsockname()[1]}")
    (tmp_path / ".netrc").write_text("default login netrc password canary\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    password = tmp_path / "password"
    password.write_text("secret\n")
    keys = {"etcd_host": "127.0.0.1", "etcd_port": port, "etcd_username": "node"}
    delegate = {"name": "net", "delegate": {"type": "x"}}
    store = EtcdV2Store(Config.parse({**delegate, **keys, "etcd_password_file": str(password)}))
    with pytest.raises(StoreError):
        store.get("a")
    with elsewhere, pytest.raises(TimeoutError):
        elsewhere.accept()
    assert b"authorization: basic bm9kztpzzwnyzxq=" in asked[0].lower()  # node:secret
    thread.join(5)


# Requests that are sent together ----------------------------------------------------------------


def said(number: int) -> bytes:
    body = b'{"number": %d}' % number
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    return head + body


def received(connection: socket.socket, requests: int) -> bytes:
    """Read as many requests that only read; each ends with an empty line."""
    data = b""
    while data.count(b"\r\n\r\n") < requests:
        part = connection.recv(65536)
        assert part, data
        data += part
    return data


def test_answers_are_told_apart_however_they_come() -> None:
    """All at once, a byte at a time, and in chunks (RFC 9112 section 7.1)."""
    in_chunks = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"num\r\n'
    in_chunks += b'a\r\nber": 3}  \r\n0\r\n\r\n'

    def at_once(connection: socket.socket) -> None:
        received(connection, 4)
        connection.sendall(said(1) + said(2) + in_chunks + said(4))
        received(connection, 4)
        for byte in said(1) + said(2) + in_chunks + said(4):
            connection.sendall(bytes([byte]))
        connection.recv(1)

    port, thread = serve(at_once)
    transport = Transport("127.0.0.1", port, None)
    for _ in range(2):
        answers = together(transport, READ, READ, READ, READ)
        assert [json.loads(one.data)["number"] for one in answers] == [1, 2, 3, 4]
    transport.clear()
    thread.join(5)


def test_each_answer_has_the_time_of_one() -> None:
    def slow(connection: socket.socket) -> None:
        received(connection, 3)
        for number in range(3):
            time.sleep(0.6)
            connection.sendall(said(number))
        connection.recv(1)

    port, thread = serve(slow)
    transport = Transport("127.0.0.1", port, None)
    assert len(together(transport, READ, READ, READ, timeout_s=1.0)) == 3
    transport.clear()
    thread.join(5)


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (said(1), "closed"),
        (said(1) + said(2)[:-3], "IncompleteRead"),
        (said(1) + said(2) + b"HTTP", "more comes than was asked for"),
    ],
)
def test_answers_that_are_too_few_or_too_many_are_an_error(answers: bytes, why: str) -> None:
    def tell(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answers)

    port, thread = serve(tell, answer)
    transport = Transport("127.0.0.1", port, None)
    with pytest.raises(transport_module.NO_ANSWER) as failed:
        together(transport, WRITE, WRITE)
    assert why in repr(failed.value)
    ask(transport)  # on a connection of its own
    transport.clear()
    thread.join(5)


def test_what_comes_behind_the_end_of_a_connection_is_sent_on_another_one() -> None:
    """As it is with a proxy that ends a connection with each answer, or with some."""
    asked: list[bytes] = []
    ends = b"OK\r\nConnection: close"

    def end_with_the_first(connection: socket.socket) -> None:
        data = connection.recv(65536)
        while data.count(b"value=1") < 3 - len(asked):
            data += connection.recv(65536)
        asked.append(data)
        connection.sendall(said(len(asked)).replace(b"OK", ends) + said(99))
        connection.recv(65536)

    port, thread = serve(end_with_the_first, end_with_the_first, end_with_the_first)
    transport = Transport("127.0.0.1", port, None)
    answers = together(transport, WRITE, WRITE, WRITE)
    assert [json.loads(one.data)["number"] for one in answers] == [1, 2, 3]
    assert [one.count(b"PUT") for one in asked] == [3, 2, 1]
    thread.join(5)


def test_a_connection_that_ends_with_the_last_answer_is_not_used_again() -> None:
    def tell(connection: socket.socket) -> None:
        received(connection, 2)
        connection.sendall(said(1) + said(2).replace(b"OK", b"OK\r\nConnection: close"))

    port, thread = serve(tell, answer)
    transport = Transport("127.0.0.1", port, None)
    assert len(together(transport, READ, READ)) == 2
    put(transport)
    transport.clear()
    thread.join(5)


def test_reads_that_are_not_answered_are_repeated_together_and_writes_are_not() -> None:
    def tell(connection: socket.socket) -> None:
        received(connection, 2)
        connection.sendall(said(1) + said(2))
        connection.recv(65536)

    port, thread = serve(silent, tell)
    transport = Transport("127.0.0.1", port, None)
    ask(transport)
    assert len(together(transport, READ, READ, timeout_s=3.0)) == 2
    with pytest.raises(transport_module.NO_ANSWER):
        together(transport, READ, WRITE)
    thread.join(5)


def test_several_large_answers_are_asked_for_one_by_one() -> None:
    asked: list[int] = []
    node = {"key": "/ratchet/a", "dir": True, "nodes": [{"key": "/ratchet/a/b", "value": "x"}]}
    filler = "x" * (LARGE_BYTES + 1)
    body = json.dumps({"action": "get", "node": node, "filler": filler}).encode()
    large = b"HTTP/1.1 200 OK\r\nX-Etcd-Index: 7\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    def tell(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the first connection is given up
            while data := connection.recv(65536):
                asked.append(data.count(b"GET"))
                connection.sendall(large * data.count(b"GET"))

    port, thread = serve(tell, tell)
    keys = {"etcd_host": "127.0.0.1", "etcd_port": port}
    store = EtcdV2Store(Config.parse({"name": "net", "delegate": {"type": "x"}, **keys}))
    found = store.together(Tree("a"), Tree("a"), Tree("a"))
    assert [list(entries) for entries, _ in found] == [["b"]] * 3
    assert asked == [3, 1, 1, 1]
    del store
    thread.join(5)
