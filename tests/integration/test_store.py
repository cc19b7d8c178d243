"""The store's contract, held against the in-memory etcd and against a real one; and what only the
real one can show.

The unit tests and the model of the pairing protocol stand on the in-memory etcd: here is what makes
that worth something. No root needed, only etcd.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pytest

from ratchet.config import Config
from ratchet.errors import StoreError
from ratchet_child.store import etcd_v2 as store_module
from ratchet_child.store.api import (
    Create,
    ExpireValue,
    Get,
    HistoryLostError,
    Prune,
    Remove,
    RemoveTree,
    RemoveValue,
    Set,
    Store,
    Swap,
    Tree,
)
from ratchet_child.store.etcd_v2 import EtcdV2Store
from tests.lab.namespaces import free_port
from tests.lab.polling import wait_for
from tests.unit.ratchet_child.memory_store import MemoryEtcd, MemoryStore

AnyStore = Store


class Server:
    """A private etcd on this machine's loopback."""

    def __init__(self, directory: str) -> None:
        self.port = free_port()
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        clients = [f"http://127.0.0.1:{self.port}"]
        if has_ipv6():
            clients.append(f"http://[::1]:{self.port}")
        peer = f"http://127.0.0.1:{self.port + 1}"
        self._process = subprocess.Popen(
            [
                *("etcd", "--name", "only", "--data-dir", os.path.join(self._directory, "data")),
                "--enable-v2",
                *("--listen-client-urls", ",".join(clients)),
                *("--advertise-client-urls", clients[0]),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", f"only={peer}", "--log-level", "error"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for("etcd to answer", self._answers, timeout_s=20)

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        wait_for("etcd to be stopped", self._state, until=lambda state: state == "T")

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _state(self) -> str:
        """The process's state as proc(5) has it; T when it is stopped."""
        assert self._process is not None
        with open(f"/proc/{self._process.pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0]

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def raw(self, key: str) -> dict[str, Any]:
        """A key as etcd has it, read without python-etcd; `key` as it stands in a URL."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}/v2/keys{key}", timeout=5
        ) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{self.port}/health"
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(json.load(answer)["health"] == "true")
        return False


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if shutil.which("etcd") is None:
        if os.environ.get("RATCHET_REQUIRE_ROOT") == "1":
            pytest.fail("no program etcd")
        pytest.skip("no program etcd")
    running = Server(str(tmp_path_factory.mktemp("etcd")))
    try:
        running.start()
        yield running
    finally:
        running.stop()


def connect(*hosts: str, prefix: str | None = None) -> EtcdV2Store:
    return EtcdV2Store(
        Config.parse(
            {
                "name": "net",
                "type": "ratchet",
                "delegate": {"type": "bridge"},
                "etcd_host": ",".join(hosts),
                "etcd_prefix": prefix or f"/test-{secrets.token_hex(4)}",
            }
        )
    )


@pytest.fixture
def real(server: Server) -> EtcdV2Store:
    """Give a store with a prefix of its own in the real etcd."""
    return connect(f"127.0.0.1:{server.port}")


@pytest.fixture(params=["memory", "etcd"])
def store(request: pytest.FixtureRequest) -> AnyStore:
    """Give either, empty."""
    if request.param == "memory":
        return MemoryStore(MemoryEtcd())
    real: EtcdV2Store = request.getfixturevalue("real")
    return real


# The contract -------------------------------------------------------------------------------------


def test_get_of_a_missing_key_is_none(store: AnyStore) -> None:
    assert store.get("a/b") is None


def test_get_of_a_directory_is_an_error(store: AnyStore) -> None:
    """Else who counts by it would go round for ever: nothing is there, and nothing is written."""
    store.set("a/b", "1")
    with pytest.raises(StoreError):
        store.get("a")


def test_set_returns_the_previous_value(store: AnyStore) -> None:
    assert store.set("a", "1") is None
    assert store.set("a", "2") == "1"
    entry = store.get("a")
    assert entry is not None
    assert entry.value == "2"


def test_a_key_that_is_set_anew_counts_as_created_anew(store: AnyStore) -> None:
    store.set("a", "1")
    first = store.get("a")
    store.set("a", "1")
    second = store.get("a")
    assert first is not None
    assert second is not None
    assert first.created == first.modified < second.created == second.modified


def test_create_writes_only_what_is_not_there(store: AnyStore) -> None:
    entry = store.create("a/b", "1")
    assert entry is not None
    assert entry == store.get("a/b")
    assert store.create("a/b", "2") is None
    assert store.get("a/b") == entry


def test_create_of_a_directory_that_is_there_is_refused(store: AnyStore) -> None:
    store.set("a/b", "1")
    assert store.create("a", "2") is None


def test_swap_keeps_created_and_moves_modified(store: AnyStore) -> None:
    before = store.create("a", "1")
    assert before is not None
    after = store.swap("a", "2", before.modified)
    assert after is not None
    assert after == store.get("a")
    assert (after.value, after.created) == ("2", before.created)
    assert after.modified > before.modified


def test_swap_of_a_changed_or_missing_key_changes_nothing(store: AnyStore) -> None:
    before = store.create("a", "1")
    assert before is not None
    store.set("a", "2")
    assert store.swap("a", "3", before.modified) is None
    assert store.swap("b", "3", before.modified) is None
    entry = store.get("a")
    assert entry is not None
    assert entry.value == "2"
    assert store.get("b") is None


def test_remove_compares_the_index(store: AnyStore) -> None:
    first = store.create("a", "1")
    assert first is not None
    second = store.swap("a", "2", first.modified)
    assert second is not None
    assert not store.remove("a", first.modified)
    assert store.remove("a", second.modified)
    assert not store.remove("a", second.modified)
    assert store.get("a") is None


def test_remove_value_compares_the_value(store: AnyStore) -> None:
    store.set("a", "1")
    assert not store.remove_value("a", "2")
    assert store.remove_value("a", "1")
    assert not store.remove_value("a", "1")


def test_remove_never_removes_a_directory(store: AnyStore) -> None:
    store.set("a/b", "1")
    entry = store.get("a/b")
    assert entry is not None
    assert not store.remove("a", entry.modified)
    assert not store.remove_value("a", "1")
    assert store.get("a/b") == entry


def test_a_directory_stays_behind_empty_until_it_is_pruned(store: AnyStore) -> None:
    store.set("a/b/c", "1")
    assert not store.prune("a/b")
    assert store.remove_value("a/b/c", "1")
    assert store.create("a/b", "2") is None  # the directory is still there
    assert not store.prune("a")
    assert store.prune("a/b")
    assert store.prune("a")
    assert not store.prune("a")


def test_remove_tree_takes_everything_below_with_it(store: AnyStore) -> None:
    store.set("a/b/c", "1")
    store.set("a/d", "2")
    store.set("ab", "3")
    assert store.remove_tree("a")
    assert not store.remove_tree("a")
    assert store.get("a/b/c") is None
    assert store.get("ab") is not None


def test_remove_tree_removes_a_plain_key_as_well(store: AnyStore) -> None:
    store.set("a", "1")
    assert store.remove_tree("a")


def test_tree_lists_one_level_or_all(store: AnyStore) -> None:
    store.set("a/b", "1")
    store.set("a/c/d", "2")
    store.set("ab", "3")
    assert _values(store.tree("a")[0]) == {"b": "1"}
    assert _values(store.tree("a", recursive=True)[0]) == {"b": "1", "c/d": "2"}


def test_tree_shows_the_indices_of_each_key(store: AnyStore) -> None:
    store.set("a/b", "1")
    assert store.tree("a")[0]["b"] == store.get("a/b")


def test_tree_of_nothing_and_of_an_empty_directory_is_empty(store: AnyStore) -> None:
    assert store.tree("a")[0] == {}
    store.set("a/b", "1")
    store.remove_value("a/b", "1")
    assert store.tree("a")[0] == {}
    assert store.tree("a", recursive=True)[0] == {}


def test_the_index_of_a_tree_is_that_of_the_latest_change(store: AnyStore) -> None:
    store.set("a/b", "1")
    entry = store.get("a/b")
    assert entry is not None
    assert store.tree("a")[1] == entry.modified
    assert store.tree("missing")[1] == entry.modified


def test_requests_together_return_what_each_alone_would_and_keep_their_order(
    store: AnyStore,
) -> None:
    kept, removed = store.create("pod/a", "1"), store.create("pod/b", "2")
    assert kept is not None and removed is not None
    before, created, refused, (there, index), gone, again, nothing = store.together(
        Set("pod/a", "3"),
        Create("pod/c", "4"),
        Create("pod/b", "5"),
        Tree("pod"),
        Remove("pod/b", removed.modified),
        Remove("pod/b", removed.modified),
        Get("pod/b"),
    )
    assert before == "1"
    assert created == store.get("pod/c")
    assert refused is None
    assert {name: entry.value for name, entry in there.items()} == {"a": "3", "b": "2", "c": "4"}
    assert index == created.modified
    assert (gone, again, nothing) == (True, False, None)
    swapped, expiring, other, pruned, dropped = store.together(
        Swap("pod/c", "6", created.modified),
        ExpireValue("pod/a", "3", 600),
        RemoveValue("pod/a", "not its value"),
        Prune("pod"),
        RemoveTree("pod"),
    )
    assert swapped is not None and swapped.value == "6"
    assert (expiring, other, pruned, dropped) == (True, False, False, True)
    assert store.together() == []


def test_requests_together_are_all_carried_out_if_one_of_them_fails(store: AnyStore) -> None:
    store.set("pod/a", "1")
    with pytest.raises(StoreError, match="pod/a"):
        store.together(Set("pod/b", "2"), Set("pod/a/below", "3"), Set("pod/c", "4"))
    assert set(store.tree("pod")[0]) == {"a", "b", "c"}


def test_a_failed_condition_moves_no_index(store: AnyStore) -> None:
    store.set("a/b", "1")
    before = store.tree("a")[1]
    store.create("a/b", "2")
    store.swap("a/b", "2", before + 1000)
    store.remove("a/b", before + 1000)
    store.remove_value("a/b", "2")
    store.prune("a")
    assert store.tree("a")[1] == before


@pytest.mark.parametrize(
    "change",
    ["set", "create", "swap", "remove", "remove_value", "remove_tree"],
)
def test_a_watch_tells_of_every_kind_of_change(store: AnyStore, change: str) -> None:
    if change != "create":
        store.set("n/a/x", "old")
    entry = store.get("n/a/x")
    modified = 0 if entry is None else entry.modified
    index = store.tree("n/a")[1]
    if change == "set":
        store.set("n/a/x", "new")
    elif change == "create":
        store.create("n/a/x", "new")
    elif change == "swap":
        store.swap("n/a/x", "new", modified)
    elif change == "remove":
        store.remove("n/a/x", modified)
    elif change == "remove_value":
        store.remove_value("n/a/x", "old")
    else:
        store.remove_tree("n/a/x")
    event = store.watch("n/a", index + 1)
    assert event is not None
    actions = {"swap": "compareAndSwap", "remove": "compareAndDelete"}
    actions |= {"remove_value": "compareAndDelete", "remove_tree": "delete"}
    assert (event.action, event.key) == (actions.get(change, change), "n/a/x")
    assert event.value == ("" if "remove" in change else "new")
    assert event.index == index + 1


def test_a_watch_goes_on_event_by_event(store: AnyStore) -> None:
    index = store.tree("n/a")[1]
    store.set("n/a/x", "1")
    store.set("n/b/x", "other")
    store.set("n/a/y", "2")
    heard = []
    for _ in range(2):
        event = store.watch("n/a", index + 1)
        assert event is not None
        heard.append((event.key, event.value))
        index = event.index
    assert heard == [("n/a/x", "1"), ("n/a/y", "2")]


def test_a_watch_tells_when_a_directory_above_is_removed(store: AnyStore) -> None:
    store.set("n/a/x", "1")
    index = store.tree("n/a")[1]
    store.remove_tree("n")
    event = store.watch("n/a", index + 1)
    assert event is not None
    assert (event.action, event.key) == ("delete", "n")


def test_a_watch_misses_nothing_of_a_key_that_is_gone_again(store: AnyStore) -> None:
    index = store.tree("n/a")[1]
    store.set("n/a/x", "1")
    store.remove_tree("n/a")
    event = store.watch("n/a", index + 1)
    assert event is not None
    assert (event.action, event.key) == ("set", "n/a/x")


def test_a_watch_from_a_thousand_changes_ago_has_lost_its_place(store: AnyStore) -> None:
    store.set("n/a/x", "1")
    index = store.tree("n/a")[1]
    for number in range(1001):
        store.set("other", str(number))
    with pytest.raises(HistoryLostError):
        store.watch("n/a", index + 1)


def test_writing_below_a_key_is_an_error(store: AnyStore) -> None:
    store.set("a", "1")
    for write in (
        lambda: store.set("a/b", "2"),
        lambda: store.create("a/b", "2"),
        lambda: store.swap("a/b", "2", 1),
    ):
        with pytest.raises(StoreError):
            write()


def test_setting_a_directory_is_an_error(store: AnyStore) -> None:
    store.set("a/b", "1")
    with pytest.raises(StoreError):
        store.set("a", "2")


# What only the real one can show ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a b", "ü", "100%", "a?b", "a#b", "a:b", "a+b", 'a"b', "a&b=c"])
def test_a_key_with_odd_characters_is_found_under_its_name(real: EtcdV2Store, name: str) -> None:
    key = f"association/{name}/id"
    real.set(key, "1")
    entry = real.get(key)
    assert entry is not None
    assert entry.value == "1"
    assert _values(real.tree("association", recursive=True)[0]) == {f"{name}/id": "1"}
    assert real.remove_value(key, "1")


@pytest.mark.parametrize(
    "key", ["..", ".", "a/../../b", "../other", "a/./b", "a//b", "/a", "a/", "", "a/\udcff"]
)
def test_a_key_that_would_leave_the_prefix_is_refused(real: EtcdV2Store, key: str) -> None:
    for request in (
        lambda: real.get(key),
        lambda: real.tree(key),
        lambda: real.set(key, "1"),
        lambda: real.create(key, "1"),
        lambda: real.swap(key, "1", 7),
        lambda: real.remove(key, 7),
        lambda: real.remove_value(key, "1"),
        lambda: real.prune(key),
        lambda: real.remove_tree(key),
        lambda: real.watch(key, 1),
    ):
        with pytest.raises(StoreError, match="as a key"):
            request()


@pytest.mark.parametrize("value", ["", "a&b=c", "ü\n", "100%", '{"a": 1}', "x" * 100_000])
def test_a_value_comes_back_as_it_was(real: EtcdV2Store, value: str) -> None:
    real.set("a", value)
    entry = real.get("a")
    assert entry is not None
    assert entry.value == value


def test_an_event_carries_the_key_without_the_prefix(real: EtcdV2Store) -> None:
    index = real.tree("n")[1]
    real.set("n/10.0.0.1/bell/ns:pod", "1")
    event = real.watch("n/10.0.0.1", index + 1)
    assert event is not None
    assert event.key == "n/10.0.0.1/bell/ns:pod"


def test_a_key_with_a_time_to_live_expires(real: EtcdV2Store) -> None:
    real.set("a", "1", ttl_s=1)
    index = real.tree("a")[1]
    event = real.watch("a", index + 1)
    assert event is not None
    assert event.action == "expire"
    assert real.get("a") is None


def test_a_watch_that_hears_nothing_ends_with_none(
    real: EtcdV2Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "WATCH_TIMEOUT_S", 0.3)
    index = real.tree("n")[1]
    assert real.watch("n", index + 1) is None


def test_removing_the_whole_prefix_is_heard_by_a_watch_that_waits(real: EtcdV2Store) -> None:
    """As the clean-up job does it, while a node waits on its own directory."""
    real.set("nodes/a/pods/p", "1")
    index = real.tree("nodes/a")[1]
    heard: list[Any] = []
    waiting = threading.Thread(target=lambda: heard.append(real.watch("nodes/a", index + 1)))
    waiting.start()
    time.sleep(0.3)
    real.remove_tree("nodes")
    waiting.join(10)
    assert [(event.action, event.key) for event in heard] == [("delete", "nodes")]


def test_ipv6_endpoints_are_reached(server: Server) -> None:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    store = connect(f"[::1]:{server.port}")
    store.set("a", "1")
    assert store.get("a") is not None


def test_a_deep_prefix_is_respected(server: Server) -> None:
    prefix = f"/deep/{secrets.token_hex(4)}"
    connect(f"127.0.0.1:{server.port}", prefix=prefix).set("a/b", "1")
    assert server.raw(f"{prefix}/a/b")["node"]["value"] == "1"


def test_a_member_that_is_down_makes_the_store_use_the_next_one(server: Server) -> None:
    store = connect(f"127.0.0.1:{free_port()}", f"127.0.0.1:{server.port}")
    with pytest.raises(StoreError):
        store.set("a", "1")
    store.set("a", "2")
    entry = store.get("a")
    assert entry is not None
    assert entry.value == "2"


def test_an_etcd_that_is_down_is_an_error_that_names_it() -> None:
    port = free_port()
    with pytest.raises(StoreError, match=f"127.0.0.1:{port}"):
        connect(f"127.0.0.1:{port}").get("a")


def test_a_paused_etcd_times_out(
    server: Server, real: EtcdV2Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "REQUEST_TIMEOUT_S", 0.5)
    real.set("a", "1")
    server.pause()
    try:
        started = time.monotonic()
        with pytest.raises(StoreError):
            real.get("a")
        with pytest.raises(StoreError):
            real.set("a", "2")
        assert time.monotonic() - started < 5
    finally:
        server.go_on()
    wait_for("etcd to go on", server._answers)
    assert real.get("a") is not None


def test_a_watch_at_a_member_that_is_silent_to_others_gives_up(
    server: Server, real: EtcdV2Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself it could not tell that from a member that has no news."""
    monkeypatch.setattr(store_module, "REQUEST_TIMEOUT_S", 0.5)
    index = real.tree("n")[1]
    ended: list[BaseException] = []

    def watch() -> None:
        try:
            real.watch("n", index + 1)
        except StoreError as error:
            ended.append(error)

    waiting = threading.Thread(target=watch)
    waiting.start()
    time.sleep(0.3)
    server.pause()
    try:
        with pytest.raises(StoreError):
            real.get("a")
        waiting.join(2)
        assert ended
    finally:
        server.go_on()
        waiting.join(store_module.WATCH_TIMEOUT_S + 1)


class _Impostor(http.server.BaseHTTPRequestHandler):
    """Answers every request in one way."""

    status = 404
    body = b""
    clusters: ClassVar[list[str]] = []  # whose answers these are, one after the other

    def _answer(self) -> None:
        self.send_response(self.status)
        if self.clusters:
            self.send_header("X-Etcd-Cluster-Id", self.clusters.pop(0))
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_GET = do_PUT = do_DELETE = do_POST = _answer  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def impostor(status: int, body: bytes, clusters: Sequence[str] = ()) -> Iterator[EtcdV2Store]:
    """A store whose etcd is something else."""
    answer = {"status": status, "body": body, "clusters": list(clusters)}
    handler = type("Handler", (_Impostor,), answer)
    server = http.server.HTTPServer(("127.0.0.1", 0), handler)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    serving.start()
    try:
        yield connect(f"127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
        serving.join()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"404 page not found\n"),
        (404, b'{"message": "no such page"}'),
        (404, b"[]"),
        (404, b""),
        (200, b""),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b"null"),
        (200, b'{"action": "get"}'),
        (200, b'{"action": "get", "node": 5}'),
        (302, b""),
        (400, b'{"errorCode": 203}'),
        (500, b'{"errorCode": 300, "message": "Raft Internal Error"}'),
        (503, b"no leader"),
    ],
)
def test_what_is_no_etcd_is_an_error_and_not_a_missing_key(status: int, body: bytes) -> None:
    with impostor(status, body) as store:
        for request in (
            lambda: store.get("a"),
            lambda: store.tree("a"),
            lambda: store.set("a", "1"),
            lambda: store.create("a", "1"),
            lambda: store.swap("a", "1", 7),
            lambda: store.remove("a", 7),
            lambda: store.prune("a"),
        ):
            with pytest.raises(StoreError):
                request()


def test_a_value_that_is_not_text_is_an_error() -> None:
    with (
        impostor(200, b'{"action": "get", "node": {"key": "/p/a", "value": 7}}') as store,
        pytest.raises(StoreError),
    ):
        store.get("a")


def test_another_cluster_at_the_address_is_noticed_and_no_error() -> None:
    """Each connection would be told by python-etcd, with a failed request."""
    found = b'{"action": "get", "node": {"key": "/p/a", "value": "1"}}'
    with impostor(200, found, ["a1", "a1", "b2", "b2"]) as store:
        assert store.cluster is None
        seen: list[str | None] = []
        for _ in range(4):
            assert store.get("a") is not None
            seen.append(store.cluster)
    assert seen == ["a1", "a1", "b2", "b2"]


def test_many_threads_use_one_store(real: EtcdV2Store) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for count in range(20):
                real.set(f"t/{number}", str(count))
                entry = real.get(f"t/{number}")
                assert entry is not None
                assert entry.value == str(count)
        except (AssertionError, StoreError) as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def _values(entries: dict[str, Any]) -> dict[str, str]:
    return {name: entry.value for name, entry in entries.items()}


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("3.6.1", ("etcd 3.6.1", "no v2 API", "3.5")),
        ("3.5.9", ("etcd 3.5.9", "--enable-v2=true")),
        (None, ("not an etcd with the v2 API?",)),
    ],
)
def test_an_etcd_without_the_v2_api_is_named(version: str | None, says: tuple[str, ...]) -> None:
    """Go's own answer where there is no handler, which etcd from 3.6 on gives for every key."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            known = version is not None and self.path == "/version"
            told = {"etcdserver": version, "etcdcluster": "3.6.0"}
            body = json.dumps(told).encode() if known else b"404 page not found\n"
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        store = EtcdV2Store(Config.parse({"name": "n", "etcd_host": f"127.0.0.1:{port}"}))
        for ask in (
            lambda: store.get("vxlanid"),
            lambda: store.set("a", "1"),
            lambda: store.tree("nodes/10.0.0.1"),
            lambda: store.watch("nodes/10.0.0.1", 1),
        ):
            with pytest.raises(StoreError) as caught:
                ask()
            for word in says:
                assert word in str(caught.value)
        server.shutdown()
