"""What a node hears, and what it does when it may have missed something."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ratchet.errors import StoreError
from ratchet_child.bells import Bells
from ratchet_child.model.clock import SystemClock
from ratchet_child.model.keys import PodKey, Published
from ratchet_child.model.local import Node
from ratchet_child.pairing.protocol import Pairing
from ratchet_child.pairing.ringing import BELL_TTL_S
from ratchet_child.store.api import HistoryLostError
from tests.unit.ratchet_child.memory_store import MemoryEtcd, MemoryStore

A, B = PodKey("default", "a"), PodKey("blue", "b")
OWN = "nodes/10.0.0.1"


class Listening:
    """One node's bells: `listen` goes on until nothing is left to hear."""

    def __init__(self) -> None:
        self.etcd = MemoryEtcd()
        self.store = MemoryStore(self.etcd)
        self.heard: list[tuple[Any, ...]] = []
        self.now = 1000.0
        self.fail_when_back: Callable[[object], None] = lambda published: None
        store: Any = self.store
        engine: Any = SimpleNamespace(
            node=Node("10.0.0.1", "eth1"),
            pairing=Pairing(
                store,
                Node("10.0.0.1", "eth1"),
                is_local=lambda key: False,
                claimed_earlier=lambda key: None,
                clock=SystemClock(),
            ),
            rung=lambda by, names: self.heard.append(("rung", by, names)),
            look_again=lambda: self.heard.append(("look again",)),
            listed=lambda key, published: self.heard.append(
                ("listed", key, published and published.container)
            ),
            etcd_is_back=self._back,
            keep_alive=lambda: None,
            clock=self,
            registry=SimpleNamespace(is_idle=True),
            etcd_is_away=lambda error: self.heard.append(("away", error)),
        )
        self.registry = engine.registry
        self._bells = Bells(store, engine)

    def pause_s(self) -> float:
        """Fail to reach etcd once, and return how long the next attempt is waited for."""
        waited: list[float] = []
        stopped: Any = SimpleNamespace(wait=waited.append)
        self._bells._stopped = stopped
        self._bells._wait_to_retry()
        return sum(waited)

    def _back(self, published: object) -> None:
        self.fail_when_back(published)
        self.heard.append(("back", published))

    def monotonic(self) -> float:
        return self.now

    def listen(self) -> list[tuple[Any, ...]]:
        """What is heard from now on."""
        self.heard.clear()
        self._bells._listen()
        return list(self.heard)


@pytest.fixture
def node() -> Listening:
    return Listening()


def test_at_first_everything_is_looked_at(node: Listening) -> None:
    node.store.set(f"{OWN}/pods/a", Published("a1", ()).dumps())
    node.store.set(f"{OWN}/bell/blue:b", "a")
    ((what, published),) = node.listen()
    assert what == "back"
    assert {key: one.container for key, (one, _) in published.items()} == {A: "a1"}


def test_a_bell_is_heard_with_who_rang_and_for_whom(node: Listening) -> None:
    node.listen()
    node.store.set(f"{OWN}/bell/blue:b", "blue:c,blue:d")
    assert node.listen() == [
        ("rung", B, [PodKey("blue", "c"), PodKey("blue", "d")]),
        ("back", None),
    ]


def test_a_bell_is_heard_once(node: Listening) -> None:
    node.listen()
    node.store.set(f"{OWN}/bell/a", "")
    assert ("rung", A, []) in node.listen()
    assert node.listen() == [("back", None)]


def test_a_bell_of_another_node_is_not_heard(node: Listening) -> None:
    node.listen()
    node.store.set("nodes/10.0.0.12/bell/a", "")
    assert node.listen() == [("back", None)]


def test_a_bell_that_fades_is_no_news(node: Listening) -> None:
    node.store.set(f"{OWN}/bell/a", "", ttl_s=30)
    node.listen()
    node.etcd.expire()
    assert node.listen() == [("back", None)]


def test_bells_are_found_in_the_list_when_the_history_is_lost(node: Listening) -> None:
    node.listen()
    node.store.set(f"{OWN}/bell/a", "")
    node.etcd.forget_history()
    assert node.listen() == [("rung", A, []), ("back", None)]


def test_losing_the_place_in_the_history_is_told_to_who_listens(node: Listening) -> None:
    node.listen()
    node.etcd.forget_history()
    with pytest.raises(HistoryLostError):
        node.store.watch(OWN, 1)


def test_after_a_silence_that_bells_do_not_outlive_everything_is_looked_at(
    node: Listening,
) -> None:
    node.listen()
    node.now += BELL_TTL_S
    assert node.listen() == [("back", {})]


def test_an_etcd_that_was_set_up_anew_has_everything_looked_at(node: Listening) -> None:
    node.store.set("x", "1")
    node.listen()
    node.etcd.__init__()  # type: ignore[misc]
    assert node.listen() == [("back", {})]


def test_another_etcd_in_which_more_has_happened_has_everything_looked_at(node: Listening) -> None:
    node.store.set(f"{OWN}/pods/a", Published("a1", ()).dumps())
    node.listen()
    node.etcd.begin_anew()
    node.store.set(f"{OWN}/bell/a", "")
    assert node.listen() == [("back", {})]
    assert node.listen() == [("back", None)]


def test_an_event_of_another_etcd_is_not_taken_for_the_next_one(node: Listening) -> None:
    node.listen()

    def restore(name: str, _key: str) -> None:
        if name.startswith("watch"):
            node.etcd.begin_anew()
            node.etcd.write("set", f"{OWN}/bell/a", "", None, 0)
            node.store._before = lambda name, key: None

    node.store._before = restore
    assert node.listen() == [("back", None)]
    assert node.listen() == [("back", {})]


def test_what_a_failure_interrupts_is_begun_again(node: Listening) -> None:
    node.listen()
    node.etcd.begin_anew()
    failures = iter([StoreError("read", "away")])

    def fail(_published: object) -> None:
        for failure in failures:
            raise failure

    node.fail_when_back = fail
    with pytest.raises(StoreError):
        node.listen()
    assert node.listen() == [("back", {})]


def test_a_watch_that_is_cut_is_not_an_etcd_that_is_away(node: Listening) -> None:
    node.listen()

    def cut(name: str, _key: str) -> None:
        if name.startswith("watch"):
            raise StoreError("watch", "connection reset by peer")

    node.store._before = cut
    assert node.listen() == [("back", None)]
    assert node.listen() == [("back", None)]


def test_a_pod_whose_keys_somebody_removed_is_looked_at(node: Listening) -> None:
    node.store.set(f"{OWN}/pods/a", Published("a1", ()).dumps())
    node.listen()
    index = node.etcd.index
    node.store.remove_tree(f"{OWN}/pods/a")
    assert node.etcd.index == index + 1
    heard = _hear(node, index + 1)
    assert heard == [("listed", A, None)]


def test_what_is_written_for_a_pod_of_this_node_is_told(node: Listening) -> None:
    """Also what etcd carries out late, when the container may be gone."""
    node.listen()
    index = node.etcd.index
    node.store.set(f"{OWN}/pods/a", Published("a1", ()).dumps())
    assert _hear(node, index + 1) == [("listed", A, "a1")]


def test_what_was_written_while_nobody_listened_is_told(node: Listening) -> None:
    node.listen()
    node.store.set(f"{OWN}/pods/a", Published("a1", ()).dumps())
    node.etcd.forget_history()
    assert node.listen() == [("listed", A, "a1"), ("back", None)]


@pytest.mark.parametrize("key", [f"{OWN}/pods", OWN, "nodes"])
def test_a_directory_that_somebody_removed_has_everything_looked_at(
    node: Listening, key: str
) -> None:
    node.store.set(f"{OWN}/pods/a", Published("a1", ()).dumps())
    node.listen()
    index = node.etcd.index
    node.store.remove_tree(key)
    assert _hear(node, index + 1) == [("look again",)]


def _hear(node: Listening, index: int) -> list[tuple[Any, ...]]:
    """What a watch that was waiting tells."""
    event = node.store.watch(OWN, index)
    assert event is not None
    node.heard.clear()
    node._bells._hear(event)
    return node.heard


def test_a_node_without_pods_asks_less_and_less_often_for_an_etcd_that_is_away() -> None:
    node = Listening()
    pauses = [node.pause_s() for _ in range(8)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1
    assert 9 < pauses[-1] < 11


def test_a_pod_that_comes_meanwhile_is_not_kept_waiting() -> None:
    node = Listening()
    for _ in range(8):
        node.pause_s()
    node.registry.is_idle = False
    assert node.pause_s() < 0.5
    node.registry.is_idle = True
    assert node.pause_s() < 1
