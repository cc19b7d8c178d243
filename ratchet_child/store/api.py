"""What the child asks of the database that its nodes share: the Store, whatever stands behind it.

Keys are relative to the prefix, without a leading slash. Every request is a quorum read or a write,
is sent once, and raises StoreError when it cannot be carried out. A compare-and-swap whose answer
was lost may have been carried out, so its caller looks again.
"""

from __future__ import annotations

from typing import Any, Protocol

from ratchet.cni.dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's value with the indices that the store keeps of it."""

    value: str
    modified: int
    created: int


@dataclass(frozen=True, slots=True)
class Event:
    """A change heard by a watch."""

    action: str  # set, create, update, delete, expire, compareAndSwap, compareAndDelete
    key: str  # relative to the prefix
    value: str
    index: int  # continue the watch at the next one


class HistoryLostError(Exception):
    """The watch cannot be continued: list the keys and look again."""


# Requests ---------------------------------------------------------------------------------------
# Each is what the method of `Store` of that name asks, for `Store.together`.


@dataclass(frozen=True, slots=True)
class Get:
    key: str

    def by(self, store: Store) -> Entry | None:
        return store.get(self.key)


@dataclass(frozen=True, slots=True)
class Tree:
    key: str
    recursive: bool = False

    def by(self, store: Store) -> tuple[dict[str, Entry], int]:
        return store.tree(self.key, recursive=self.recursive)


@dataclass(frozen=True, slots=True)
class Set:
    key: str
    value: str
    ttl_s: int | None = None

    def by(self, store: Store) -> str | None:
        return store.set(self.key, self.value, self.ttl_s)


@dataclass(frozen=True, slots=True)
class Create:
    key: str
    value: str

    def by(self, store: Store) -> Entry | None:
        return store.create(self.key, self.value)


@dataclass(frozen=True, slots=True)
class Swap:
    key: str
    value: str
    modified: int
    ttl_s: int | None = None

    def by(self, store: Store) -> Entry | None:
        return store.swap(self.key, self.value, self.modified, self.ttl_s)


@dataclass(frozen=True, slots=True)
class ExpireValue:
    key: str
    value: str
    ttl_s: int

    def by(self, store: Store) -> bool:
        return store.expire_value(self.key, self.value, self.ttl_s)


@dataclass(frozen=True, slots=True)
class Remove:
    key: str
    modified: int

    def by(self, store: Store) -> bool:
        return store.remove(self.key, self.modified)


@dataclass(frozen=True, slots=True)
class RemoveValue:
    key: str
    value: str

    def by(self, store: Store) -> bool:
        return store.remove_value(self.key, self.value)


@dataclass(frozen=True, slots=True)
class Prune:
    key: str

    def by(self, store: Store) -> bool:
        return store.prune(self.key)


@dataclass(frozen=True, slots=True)
class RemoveTree:
    key: str

    def by(self, store: Store) -> bool:
        return store.remove_tree(self.key)


Request = Get | Tree | Set | Create | Swap | ExpireValue | Remove | RemoveValue | Prune | RemoveTree


class Store(Protocol):
    """Used from many threads at once. Every request raises StoreError."""

    @property
    def cluster(self) -> str | None:
        """The ID of the cluster that answered this thread last, None when none has.

        Another one than before is another database at that address, or one restored from a backup:
        indices of before mean nothing there.
        """

    def get(self, key: str) -> Entry | None:
        """Return one key, None when there is none. A directory is an error."""

    def tree(self, key: str, *, recursive: bool = False) -> tuple[dict[str, Entry], int]:
        """Return the keys below a directory by their relative names, and the index at that moment.

        A missing directory is an empty one. A watch from the next index on misses nothing that the
        listing does not show.
        """

    def set(self, key: str, value: str, ttl_s: int | None = None) -> str | None:
        """Write a key whatever it was; return its previous value, None when it had none."""

    def create(self, key: str, value: str) -> Entry | None:
        """Write a key that is not there; return None when it is."""

    def swap(self, key: str, value: str, modified: int, ttl_s: int | None = None) -> Entry | None:
        """Compare-and-swap by modified index; return None when the key has changed or is gone.

        With `ttl_s` the key expires after so many seconds, without it never.
        """

    def expire_value(self, key: str, value: str, ttl_s: int) -> bool:
        """Have a key expire if it has that value; return False when it has another or is gone."""

    def remove(self, key: str, modified: int) -> bool:
        """Compare-and-delete by modified index; return False when it has changed or is gone."""

    def remove_value(self, key: str, value: str) -> bool:
        """Compare-and-delete by value; return False when the key has another value or is gone."""

    def prune(self, key: str) -> bool:
        """Remove a directory if it is empty; return False when it is not, or is gone."""

    def remove_tree(self, key: str) -> bool:
        """Remove a key or directory with all below it; return False when there is none."""

    def together(self, *requests: Request) -> list[Any]:
        """Carry out requests one after the other, in one go; return what each alone would return.

        Each is carried out whatever becomes of those before it, so none may depend on another. If
        one of them cannot be carried out, the error is raised after the last one.
        """

    def watch(self, key: str, index: int) -> Event | None:
        """Return the next change below `key` at or after `index`, None after a quiet while.

        One at a time. *Raises* HistoryLostError, and StoreError when another request finds that the
        database does not answer.
        """
