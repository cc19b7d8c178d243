"""Which pod is looked at next. Each pod is at work in one thread at most.

What only etcd remembers of this node is looked at behind everything else, and by a part of the
threads: whoever can write there could otherwise have the node's real pods wait.
"""

from __future__ import annotations

import heapq
import threading
import time
from typing import Generic, TypeVar

Item = TypeVar("Item")

_MOST_BEHIND = 2  # of those that may wait, at work at a time


class Schedule(Generic[Item]):
    """Items with the moment at which each is due; the earliest of several moments counts."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: dict[Item, float] = {}
        self._behind: set[Item] = set()  # of what is due
        self._heaps: tuple[list[tuple[float, int, Item]], ...] = ([], [])  # the others, and these
        self._number = 0
        self._busy: set[Item] = set()
        self._busy_behind: set[Item] = set()
        self._stopped = False

    def put(self, item: Item, delay_s: float = 0.0, *, behind: bool = False) -> None:
        """Have an item taken after a delay, again if it is being worked on now.

        `behind`: when nothing else is due. Who has put it without that is not put behind again.
        """
        due = time.monotonic() + delay_s
        with self._changed:
            before = self._due.get(item)
            is_behind = behind and (before is None or item in self._behind)
            if before is not None and before <= due and is_behind == (item in self._behind):
                return
            self._due[item] = due = due if before is None else min(before, due)
            (self._behind.add if is_behind else self._behind.discard)(item)
            self._push(due, item)
            self._changed.notify()

    def take(self) -> Item | None:
        """Return the next item that is due; None when the schedule has been stopped. *Blocks.*"""
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                may_be_behind = len(self._busy_behind) < _MOST_BEHIND
                heaps = self._heaps if may_be_behind else self._heaps[:1]
                for heap in heaps:
                    item = self._pop(heap, now)
                    if item is not None:
                        return item
                next_due = min((heap[0][0] for heap in heaps if heap), default=None)
                self._changed.wait(None if next_due is None else next_due - now)
            return None

    def _pop(self, heap: list[tuple[float, int, Item]], now: float) -> Item | None:
        is_behind = heap is self._heaps[1]
        while heap and heap[0][0] <= now:
            due, _, item = heapq.heappop(heap)
            if self._due.get(item) != due or (item in self._behind) != is_behind:
                continue  # it was moved to an earlier moment, or to the front
            if item in self._busy:
                continue  # `done` puts it back
            del self._due[item]
            self._behind.discard(item)
            self._busy.add(item)
            if is_behind:
                self._busy_behind.add(item)
            return item
        return None

    def done(self, item: Item) -> None:
        """Note that the work on an item has ended: it may be taken again."""
        with self._changed:
            self._busy.discard(item)
            was_behind = item in self._busy_behind
            self._busy_behind.discard(item)
            due = self._due.get(item)
            if due is not None:
                self._push(due, item)
            if due is not None or was_behind:
                self._changed.notify()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _push(self, due: float, item: Item) -> None:
        self._number += 1  # items need no order of their own
        heapq.heappush(self._heaps[item in self._behind], (due, self._number, item))
