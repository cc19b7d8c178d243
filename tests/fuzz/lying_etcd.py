"""An etcd that lies: a real server on the loopback, whose answers are spoilt.

Every method of the real `Store` has to return what it says it does, or raise StoreError (a watch
also HistoryLostError), within the time that a request has. `Liar` is also put between a real child
and a real etcd (`child_socket`).
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ratchet import labels
from ratchet.config import Config
from ratchet.errors import StoreError
from ratchet_child.model.clock import SystemClock
from ratchet_child.model.keys import PodKey, Published
from ratchet_child.model.local import LocalPod, Memory, Node
from ratchet_child.pairing.protocol import Pairing
from ratchet_child.store import etcd_v2 as store_module
from ratchet_child.store.api import Entry, Event, HistoryLostError, Request, Store
from ratchet_child.store.etcd_v2 import EtcdV2Store
from ratchet_child.store.pipeline import Answered
from tests.fuzz.mutate import Mutator
from tests.fuzz.pod_parsers import ANNOTATIONS, LABELS
from tests.fuzz.runner import Check, Target
from tests.fuzz.shared_parsers import DECLARATION, PUBLISHED, quiet

REQUEST_S = 0.5  # instead of 3 s, so that a run has an end
WATCH_S = 0.7
SLACK_S = 1.5  # for a busy machine

NODE: dict[str, Any] = {
    "key": "/ratchet/association/r1",
    "dir": True,
    "nodes": [
        {
            "key": "/ratchet/association/r1/id",
            "value": "c1",
            "modifiedIndex": 7,
            "createdIndex": 7,
        },
        {
            "key": "/ratchet/association/r1/parentaddr",
            "value": "10.0.0.7",
            "modifiedIndex": 8,
            "createdIndex": 6,
            "ttl": 30,
            "expiration": "2030-01-01T00:00:00Z",
        },
        {
            "key": "/ratchet/association/r1/links",
            "dir": True,
            "nodes": [
                {
                    "key": "/ratchet/association/r1/links/r2:in1",
                    "value": json.dumps(DECLARATION),
                    "modifiedIndex": 9,
                    "createdIndex": 9,
                }
            ],
            "modifiedIndex": 9,
            "createdIndex": 9,
        },
    ],
    "modifiedIndex": 5,
    "createdIndex": 5,
}
LEAF: dict[str, Any] = {
    "key": "/ratchet/nodes/10.0.0.1/bell/r2",
    "value": "r1,r2",
    "modifiedIndex": 50,
    "createdIndex": 50,
}
ANSWERS: tuple[tuple[int, dict[str, Any]], ...] = (
    (200, {"action": "get", "node": NODE}),
    (200, {"action": "get", "node": LEAF}),
    (200, {"action": "set", "node": LEAF, "prevNode": LEAF}),
    (201, {"action": "create", "node": {**LEAF, "value": json.dumps(PUBLISHED)}}),
    (200, {"action": "compareAndSwap", "node": LEAF, "prevNode": LEAF}),
    (200, {"action": "delete", "node": {**LEAF, "value": None}, "prevNode": LEAF}),
    (404, {"errorCode": 100, "message": "Key not found", "cause": "/ratchet/a", "index": 12}),
    (412, {"errorCode": 101, "message": "Compare failed", "cause": "[1 != 2]", "index": 12}),
    (412, {"errorCode": 105, "message": "Key already exists", "cause": "/a", "index": 12}),
    (400, {"errorCode": 401, "message": "The event in requested index is outdated", "index": 12}),
    (403, {"errorCode": 102, "message": "Not a file", "cause": "/a", "index": 12}),
    (401, {"errorCode": 110, "message": "The request requires user authentication", "index": 0}),
    (500, {"errorCode": 300, "message": "Raft Internal Error", "index": 12}),
    (500, {"errorCode": 301, "message": "During Leader Election", "index": 12}),
    (404, {"message": "404 page not found"}),
    (200, {"health": "true"}),
)
ANSWER_KEYS = (
    *("action", "node", "nodes", "key", "value", "dir", "modifiedIndex", "createdIndex"),
    *("prevNode", "errorCode", "message", "cause", "index", "ttl", "expiration", "status"),
)
HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>\r\n"
# Instead of an answer, and how it is sent.
WIRE: tuple[tuple[str, bytes], ...] = (
    ("", b""),
    ("", b"\r\n\r\n"),
    ("", b"\0" * 100),
    ("", b"SSH-2.0-OpenSSH_9.2\r\n"),
    ("", b"HTTP/1.1 200 OK\r\n"),
    ("", b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n{}"),
    ("", b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}"),
    ("", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}"),
    ("", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n{}\r\n0\r\n\r\n"),
    ("", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n"),
    ("", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\n{}"),
    ("", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}"),
    ("", b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"),
    ("", b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
    ("", b"HTTP/1.1 307 T\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"),
    ("", b"HTTP/1.1 204 No\r\n\r\n"),
    ("", b"HTTP/1.1 99999 No\r\n\r\n"),
    ("", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"\r\n"),
    ("", b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"),
    ("", b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
    ("", b"HTTP/1.1 502 No\r\nContent-Length: %d\r\n\r\n" % len(HTML) + HTML),
    ("", b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(HTML) + HTML),
    ("", b"HTTP/1.1 404 No\r\nContent-Length: %d\r\n\r\n" % len(HTML) + HTML),
    ("wait", b""),
    ("wait", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"),
    ("slowly", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50),
    ("slowly", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b" " * 1000),
    ("huge", b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n"),
    ("huge", b"HTTP/1.1 200 OK\r\n\r\n"),
)


@dataclass(slots=True)
class Lie:
    """What the server does with one connection."""

    data: bytes
    how: str = ""


@dataclass(slots=True)
class Liar:
    """A server that tells the lie of the moment; with `honest`, what an etcd there says."""

    lie: Lie | None = None
    honest: tuple[str, int] | None = None
    port: int = 0
    _listener: socket.socket = field(default_factory=socket.socket)
    _open: set[socket.socket] = field(default_factory=set)

    def start(self) -> None:
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        """End all connections."""
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        self._open.add(client)
        try:
            with client, contextlib.suppress(OSError):
                if self.lie is None and self.honest is not None:
                    self._pass_on(client, self.honest)
                else:
                    unread = bytearray()
                    while (
                        (lie := self.lie) is not None
                        and _request(client, unread)
                        and _tell(client, lie)
                    ):
                        pass
        finally:
            self._open.discard(client)

    def _pass_on(self, client: socket.socket, address: tuple[str, int]) -> None:
        with socket.create_connection(address, timeout=5) as server:
            server.settimeout(None)
            self._open.add(server)
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            _copy(client, server)
            back.join()
            self._open.discard(server)


def _copy(source: socket.socket, to: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            to.sendall(data)
    for one in (source, to):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def _request(client: socket.socket, unread: bytearray) -> bytes:
    """Read one request, and leave in `unread` what comes behind it; b"" at the end."""
    while True:
        head, end, body = unread.partition(b"\r\n\r\n")
        found = re.search(rb"(?i)content-length: *(\d+)", head)
        length = int(found[1]) if found else 0
        if end and len(body) >= length:
            del unread[: len(head) + len(end) + length]
            return bytes(head)
        part = client.recv(65536)
        if not part:
            return b""
        unread += part


def _tell(client: socket.socket, lie: Lie) -> bool:
    """Tell it; whether the connection is kept for another one."""
    if lie.how == "slowly":
        for byte in lie.data:
            client.sendall(bytes([byte]))
            time.sleep(0.05)
        return False
    client.sendall(lie.data)
    if lie.how == "wait":
        time.sleep(2 * WATCH_S)
    elif lie.how == "huge":
        for _ in range(110):
            client.sendall(bytes(1 << 20))
    return lie.how == "keep"


def make_lie(mutator: Mutator) -> Lie:
    """An answer: a right one, a spoilt one, or nothing like one."""
    if mutator.chance(0.12):
        how, data = mutator.pick(WIRE if mutator.chance(0.3) else WIRE[:-6])
        return Lie(data, how)
    status, obj = mutator.pick(ANSWERS)
    body = mutator.json(mutator.tree(obj, ANSWER_KEYS) if mutator.chance(0.9) else obj)
    if mutator.chance(0.1):
        status = mutator.pick((200, 201, 204, 301, 400, 401, 403, 404, 412, 500, 503))
    length = len(body)
    if mutator.chance(0.05):
        length += mutator.pick((-1, 1, 1000))
    headers = {
        "Content-Type": "application/json",
        "X-Etcd-Cluster-Id": "7e27652122e8b2ae",
        "X-Etcd-Index": "12",
        "X-Raft-Index": "99",
    }
    if mutator.chance(0.15):
        name = mutator.pick(tuple(headers))
        headers[name] = mutator.pick(("-1", "", "x", "1e999", "9" * 30, "²", "0x1", "1_0", "other"))
    if mutator.chance(0.1):
        del headers[mutator.pick(tuple(headers))]
    head = f"HTTP/1.1 {status} Said\r\nContent-Length: {max(0, length)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    keep = "keep" if length == len(body) and mutator.chance(0.7) else ""
    return Lie(head.encode("utf-8") + b"\r\n" + body, keep)


# The store ----------------------------------------------------------------------------------------


def _is_index(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**64


def _is_entry(value: Any) -> bool:
    return (
        isinstance(value, Entry)
        and type(value.value) is str
        and _is_index(value.modified)
        and _is_index(value.created)
    )


def _is_tree(value: Any) -> bool:
    entries, index = value
    return _is_index(index) and all(
        isinstance(name, str) and _is_entry(entry) for name, entry in entries.items()
    )


def _is_event(value: Any) -> bool:
    return (
        isinstance(value, Event)
        and all(type(text) is str for text in (value.action, value.key, value.value))
        and _is_index(value.index)
        and value.index >= 7
    )


METHODS: dict[str, tuple[Callable[[Store], Any], Callable[[Any], bool]]] = {
    "get": (lambda store: store.get("a"), lambda got: got is None or _is_entry(got)),
    "tree": (lambda store: store.tree("association/r1"), _is_tree),
    "tree all": (
        lambda store: store.tree("association/r1", recursive=True),
        _is_tree,
    ),
    "set": (lambda store: store.set("a", "1"), lambda got: got is None or isinstance(got, str)),
    "create": (lambda store: store.create("a", "1"), lambda got: got is None or _is_entry(got)),
    "swap": (lambda store: store.swap("a", "1", 5), lambda got: got is None or _is_entry(got)),
    "remove": (lambda store: store.remove("a", 5), lambda got: type(got) is bool),
    "remove value": (lambda store: store.remove_value("a", "1"), lambda got: type(got) is bool),
    "prune": (lambda store: store.prune("a"), lambda got: type(got) is bool),
    "remove tree": (lambda store: store.remove_tree("a"), lambda got: type(got) is bool),
    "watch": (lambda store: store.watch("a", 7), lambda got: got is None or _is_event(got)),
}


def make_answer(mutator: Mutator) -> tuple[str, Lie]:
    return mutator.pick(tuple(METHODS)), make_lie(mutator)


@contextlib.contextmanager
def store_opened() -> Iterator[Check]:
    """A real store that asks a liar."""
    with _short_times():
        liar = Liar()
        liar.start()
        store = EtcdV2Store(_config(liar.port))

        def check(made: tuple[str, Lie]) -> None:
            name, liar.lie = made
            method, is_right = METHODS[name]
            _expect_bounded(lambda: method(store), is_right, watches=name == "watch")

        try:
            yield check
        finally:
            liar.close()


def _expect_bounded(
    work: Callable[[], Any], is_right: Callable[[Any], bool], *, watches: bool, times: int = 1
) -> None:
    began = time.monotonic()
    try:
        with quiet():
            got = work()
    except StoreError as error:
        assert error.code == 50
        assert isinstance(str(error), str)
    except HistoryLostError:
        assert watches
    else:
        assert is_right(got), f"gave {got!r}"
    took = time.monotonic() - began
    limit = times * (WATCH_S if watches else REQUEST_S) + SLACK_S
    assert took < limit, f"took {took:.1f} s"


@contextlib.contextmanager
def _short_times() -> Iterator[None]:
    before = store_module.REQUEST_TIMEOUT_S, store_module.WATCH_TIMEOUT_S
    store_module.REQUEST_TIMEOUT_S, store_module.WATCH_TIMEOUT_S = REQUEST_S, WATCH_S
    try:
        yield
    finally:
        store_module.REQUEST_TIMEOUT_S, store_module.WATCH_TIMEOUT_S = before


def _config(port: int) -> Config:
    return Config.parse({"name": "net", "etcd_host": "127.0.0.1", "etcd_port": port})


# Pairing on top of it -----------------------------------------------------------------------------


def make_answers(mutator: Mutator) -> tuple[str, list[Lie]]:
    step = mutator.pick(("publish", "look", "withdraw", "node", "leave", "ring"))
    lies = [make_lie(mutator) for _ in range(mutator.pick((1, 3, 6)))]
    # One that costs a second is enough.
    slow = [lie for lie in lies if lie.how in ("wait", "slowly", "huge")]
    return step, [lie for lie in lies if lie not in slow] + slow[:1]


@contextlib.contextmanager
def pairing_opened() -> Iterator[Check]:
    """The steps of the protocol, each request of which is answered by another lie."""
    links = labels.parse(LABELS, ANNOTATIONS, own_name="r1", cni_ifname="eth0").links
    with _short_times():
        liar = Liar()
        liar.start()

        def check(made: tuple[str, list[Lie]]) -> None:
            step, lies = made
            store = _Scripted(_config(liar.port), liar, lies)
            pairing = Pairing(
                store,
                Node("10.0.0.1", "eth0", "/run/x"),
                is_local=lambda _: False,
                claimed_earlier=lambda _: ("c1", 5),
                clock=SystemClock(),
            )
            pod = LocalPod(PodKey("default", "r1"), "c1", links)
            memory = Memory(unheard=True)
            published = Published("c1", (("r2", "in1"), ("r3", "in2")))
            work: dict[str, Callable[[], Any]] = {
                "publish": lambda: pairing.publish(pod, memory),
                "look": lambda: pairing.look(pod, memory, None),
                "withdraw": lambda: pairing.withdraw(pod.key, published, "10.0.0.1"),
                "node": lambda: pairing.node("10.0.0.1"),
                "leave": lambda: pairing.leave("10.0.0.1"),
                "ring": lambda: pairing.ring(pod, memory),
            }
            _expect_bounded(work[step], lambda _: True, watches=False, times=4)

        try:
            yield check
        finally:
            liar.close()


class _Scripted(EtcdV2Store):
    """A store each of whose requests meets the next lie; when there is none, etcd is away."""

    def __init__(self, config: Config, liar: Liar, lies: list[Lie]) -> None:
        super().__init__(config)
        self._liar = liar
        self._lies = list(lies)

    def _exchange(
        self, client: Any, requests: Sequence[Request], on_large: Callable[[], None]
    ) -> list[Answered]:
        for path in (self._path(one.key) for one in requests):
            assert path.startswith("/ratchet"), path
            assert not {".", ".."} & set(path.split("/")), path
        if not self._lies:
            raise StoreError("no more lies")
        self._liar.lie = self._lies.pop(0)
        return super()._exchange(client, requests, on_large)


TARGETS: tuple[Target, ...] = (
    Target("lying-etcd", make_answer, store_opened, 3, kind="etcd"),
    Target("lying-etcd-pairing", make_answers, pairing_opened, 1, kind="etcd"),
)
