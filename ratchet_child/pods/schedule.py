"""Which pod is looked at next. Each pod is at work in one thread at most."""

from __future__ import annotations

import heapq
import threading
import time
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Schedule(Generic[Item]):
    """Items with the moment at which each is due; the earliest of several moments counts."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: dict[Item, float] = {}
        self._heap: list[tuple[float, int, Item]] = []
        self._number = 0
        self._busy: set[Item] = set()
        self._stopped = False

    def put(self, item: Item, delay_s: float = 0.0) -> None:
        """Have an item taken after a delay, again if it is being worked on now."""
        due = time.monotonic() + delay_s
        with self._changed:
            if self._due.get(item, due + 1) <= due:
                return
            self._due[item] = due
            self._push(due, item)
            self._changed.notify()

    def take(self) -> Item | None:
        """Return the next item that is due; None when the schedule has been stopped. *Blocks.*"""
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                while self._heap and self._heap[0][0] <= now:
                    due, _, item = heapq.heappop(self._heap)
                    if self._due.get(item) != due:
                        continue  # it was moved to an earlier moment
                    if item in self._busy:
                        continue  # `done` puts it back
                    del self._due[item]
                    self._busy.add(item)
                    return item
                self._changed.wait(self._heap[0][0] - now if self._heap else None)
            return None

    def done(self, item: Item) -> None:
        """Note that the work on an item has ended: it may be taken again."""
        with self._changed:
            self._busy.discard(item)
            due = self._due.get(item)
            if due is not None:
                self._push(due, item)
                self._changed.notify()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _push(self, due: float, item: Item) -> None:
        self._number += 1  # items need no order of their own
        heapq.heappush(self._heap, (due, self._number, item))
