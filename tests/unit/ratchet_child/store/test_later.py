"""A store that is made with the first request: once, whoever asks at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ratchet.errors import StoreError
from ratchet_child.store.later import Later
from tests.unit.ratchet_child.memory_store import MemoryEtcd, MemoryStore


def test_it_is_made_with_the_first_request_and_once() -> None:
    made: list[MemoryStore] = []
    together = threading.Barrier(4)

    def make() -> MemoryStore:
        made.append(MemoryStore(MemoryEtcd()))
        return made[0]

    store: Any = Later(make)
    assert made == []

    def ask(number: int) -> None:
        together.wait(timeout=10)
        store.set(f"a/{number}", "1")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ask, range(4)))
    assert len(made) == 1
    assert set(store.tree("a")[0]) == {"0", "1", "2", "3"}


def test_what_changes_is_asked_each_time() -> None:
    etcd = MemoryEtcd()
    made = MemoryStore(etcd)
    store: Any = Later(lambda: made)
    store.get("a")
    before = store.cluster
    etcd.begin_anew()
    assert store.cluster == made.cluster
    assert store.cluster != before


def test_a_store_that_cannot_be_made_is_tried_again() -> None:
    attempts: list[int] = []

    def make() -> MemoryStore:
        attempts.append(1)
        if len(attempts) == 1:
            raise StoreError("connect", "not yet")
        return MemoryStore(MemoryEtcd())

    store: Any = Later(make)
    with pytest.raises(StoreError):
        store.get("a")
    assert store.get("a") is None
