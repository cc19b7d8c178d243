"""etcd's v2 API in memory: what `ratchet_child.store.Store` offers, without a server.

`MemoryEtcd` is the server and `MemoryStore` a client of it, so that several nodes can share one.
It keeps what the protocol leans on: one index over all keys, `modified` and `created` of each,
directories that come by themselves and stay behind empty, conditions that fail without a trace, a
history of limited length. `tests/integration/test_store.py` holds it against a real etcd. It knows
nothing of Ratchet's keys.

A client calls `before` ahead of each request: a test can fail it there, hold it up, or end it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ratchet.errors import StoreError
from ratchet_child.store.api import Entry, Event, HistoryLostError, Request

HISTORY = 1000  # events, over all keys

Before = Callable[[str, str], None]


@dataclass(slots=True)
class _Node:
    value: str | None  # None: a directory
    modified: int
    created: int
    ttl_s: int | None = None

    @property
    def is_directory(self) -> bool:
        return self.value is None


@dataclass(frozen=True, slots=True)
class _Change:
    event: Event
    of_directory: bool


class MemoryEtcd:
    """The keys, and what has happened to them."""

    def __init__(self) -> None:
        self.index = 0
        self.cluster = "1"
        self._nodes: dict[str, _Node] = {}
        self._history: list[_Change] = []
        # Until when a watch has had nothing to answer, by its key and the index that it waits from.
        self._quiet: dict[tuple[str, int], int] = {}

    # Looking at it, for tests -----------------------------------------------------------------

    def contents(self) -> dict[str, str]:
        """Every key with its value, directories left out."""
        return {
            key: node.value for key, node in sorted(self._nodes.items()) if node.value is not None
        }

    def directories(self) -> list[str]:
        return sorted(key for key, node in self._nodes.items() if node.is_directory)

    def expire(self, seconds: float = 1e9) -> None:
        """Let the time of keys that have one run out. Directories do not go with them."""
        for key in [key for key, node in self._nodes.items() if (node.ttl_s or 1e10) <= seconds]:
            del self._nodes[key]
            self._note("expire", key, "", of_directory=False)

    def forget_history(self) -> None:
        """What a thousand changes of other keys do."""
        self.index += HISTORY + 1
        self._history.clear()

    def begin_anew(self) -> None:
        """What an administrator does who sets up another etcd in the place of this one."""
        later, cluster = self.index + 100, f"{self.cluster}1"
        self.__init__()  # type: ignore[misc]
        self.index, self.cluster = later, cluster

    # Requests ---------------------------------------------------------------------------------

    def find(self, key: str) -> _Node | None:
        self._check_path(key)
        return self._nodes.get(key)

    def below(self, key: str) -> Iterator[tuple[str, _Node]]:
        start = key + "/"
        names = sorted(name for name in self._nodes if name.startswith(start))
        return ((name[len(start) :], self._nodes[name]) for name in names)

    def write(self, action: str, key: str, value: str, ttl_s: int | None, created: int) -> Entry:
        """Write a key, its directories first; `created` 0 for a new one."""
        self._check_path(key)
        self.index += 1
        for parent in _above(key):
            if parent not in self._nodes:
                self._nodes[parent] = _Node(None, self.index, self.index)
        node = _Node(value, self.index, created or self.index, ttl_s)
        self._nodes[key] = node
        self._note(action, key, value)
        return Entry(value, node.modified, node.created)

    def delete(self, action: str, key: str) -> None:
        self.index += 1
        of_directory = self._nodes[key].is_directory
        for name in [name for name in self._nodes if f"{name}/".startswith(f"{key}/")]:
            del self._nodes[name]
        self._note(action, key, "", of_directory=of_directory)

    def next_change(self, key: str, index: int) -> Event | None:
        """The first change of `key`, below it, or of a directory above it that went away."""
        self._check_history(index)
        return self._first_change(key, index)

    def _check_history(self, index: int) -> None:
        if index <= self.index - HISTORY and index <= self.index:
            raise HistoryLostError(f"the event in requested index {index} is outdated")

    def _first_change(self, key: str, index: int) -> Event | None:
        found = None
        below = f"{key}/"
        for change in reversed(self._history):
            event = change.event
            if event.index < index:
                break
            if (
                event.key == key
                or event.key.startswith(below)
                or (change.of_directory and below.startswith(f"{event.key}/"))
            ):
                found = event
        return found

    def has_news(self, key: str, index: int) -> bool:
        """Whether a watch has something to answer, be it that it is too late."""
        quiet = self._quiet.get((key, index), index - 1)
        if quiet == self.index:
            return False
        try:
            self._check_history(index)
        except HistoryLostError:
            return True
        if self._first_change(key, quiet + 1) is not None:
            return True
        self._quiet[key, index] = self.index
        return False

    def _note(self, action: str, key: str, value: str, *, of_directory: bool = False) -> None:
        if action == "expire":
            self.index += 1
        self._history.append(_Change(Event(action, key, value, self.index), of_directory))
        del self._history[:-HISTORY]

    def _check_path(self, key: str) -> None:
        for parent in _above(key):
            node = self._nodes.get(parent)
            if node is not None and not node.is_directory:
                raise StoreError(f"reach {key}", "a key is on the way")


class MemoryStore:
    """One client. The same methods, with the same meaning, as `ratchet_child.store.Store`."""

    def __init__(self, etcd: MemoryEtcd, before: Before = lambda name, key: None) -> None:
        self._etcd = etcd
        self._before = before

    @property
    def cluster(self) -> str:
        return self._etcd.cluster

    def get(self, key: str) -> Entry | None:
        self._before("get", key)
        node = self._etcd.find(key)
        if node is not None and node.is_directory:
            raise StoreError(f"get {key}", "it is a directory")
        return _entry(node)

    def tree(self, key: str, *, recursive: bool = False) -> tuple[dict[str, Entry], int]:
        self._before("tree recursively" if recursive else "tree", key)
        self._etcd.find(key)
        entries = {}
        for name, node in self._etcd.below(key):
            entry = _entry(node)
            if entry is not None and (recursive or "/" not in name):
                entries[name] = entry
        return entries, self._etcd.index

    def set(self, key: str, value: str, ttl_s: int | None = None) -> str | None:
        self._before("set", key)
        before = self._etcd.find(key)
        if before is not None and before.is_directory:
            raise StoreError(f"set {key}", "it is a directory")
        # A key that is set is a new one, also when there was one before.
        self._etcd.write("set", key, value, ttl_s, 0)
        return None if before is None else before.value

    def create(self, key: str, value: str) -> Entry | None:
        self._before("create", key)
        if self._etcd.find(key) is not None:
            return None
        return self._etcd.write("create", key, value, None, 0)

    def swap(self, key: str, value: str, modified: int, ttl_s: int | None = None) -> Entry | None:
        self._before("swap", key)
        node = self._etcd.find(key)
        if node is None or node.is_directory or node.modified != modified:
            return None
        return self._etcd.write("compareAndSwap", key, value, ttl_s, node.created)

    def expire_value(self, key: str, value: str, ttl_s: int) -> bool:
        self._before("expire_value", key)
        node = self._etcd.find(key)
        if node is None or node.value != value:
            return False
        self._etcd.write("compareAndSwap", key, value, ttl_s, node.created)
        return True

    def remove(self, key: str, modified: int) -> bool:
        self._before("remove", key)
        node = self._etcd.find(key)
        if node is None or node.is_directory or node.modified != modified:
            return False
        self._etcd.delete("compareAndDelete", key)
        return True

    def remove_value(self, key: str, value: str) -> bool:
        self._before("remove_value", key)
        node = self._etcd.find(key)
        if node is None or node.value != value:
            return False
        self._etcd.delete("compareAndDelete", key)
        return True

    def prune(self, key: str) -> bool:
        self._before("prune", key)
        node = self._etcd.find(key)
        if node is None or next(self._etcd.below(key), None) is not None:
            return False
        self._etcd.delete("delete", key)
        return True

    def remove_tree(self, key: str) -> bool:
        self._before("remove_tree", key)
        if self._etcd.find(key) is None:
            return False
        self._etcd.delete("delete", key)
        return True

    def together(self, *requests: Request) -> list[Any]:
        results, errors = [], []
        for one in requests:
            try:
                results.append(one.by(self))
            except StoreError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return results

    def watch(self, key: str, index: int) -> Event | None:
        """The next change at or after `index`; None at once when there is none yet."""
        self._before(f"watch from {index}", key)
        return self._etcd.next_change(key, index)


@functools.cache
def _above(key: str) -> tuple[str, ...]:
    """The directories on the way to a key."""
    parts = key.split("/")
    return tuple("/".join(parts[:length]) for length in range(1, len(parts)))


def _entry(node: _Node | None) -> Entry | None:
    if node is None or node.value is None:
        return None
    return Entry(node.value, node.modified, node.created)
