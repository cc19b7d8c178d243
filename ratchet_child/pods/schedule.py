"""Which pod is looked at next. Each pod is at work in one thread at most.

Work on a pod with hundreds of links takes seconds, and whoever may create pods may create many of
these; so a pod with few links goes first, and has threads that the others cannot have. What only
etcd remembers of this node is looked at behind everything else, and by a part of the threads as
well: whoever can write there could otherwise have the node's real pods wait.
"""

from __future__ import annotations

import enum
import heapq
import threading
import time
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Rank(enum.IntEnum):
    """Which items go first when several are due."""

    FIRST = 0
    LARGE = 1
    TRACE = 2


_MOST_AT_WORK = {Rank.LARGE: 2, Rank.TRACE: 2}  # at a time; all others as many as there are threads


class Schedule(Generic[Item]):
    """Items with the moment at which each is due; the earliest of several moments counts."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: dict[Item, float] = {}
        self._ranks: dict[Item, Rank] = {}  # of what is due
        self._heaps: dict[Rank, list[tuple[float, int, Item]]] = {rank: [] for rank in Rank}
        self._number = 0
        self._busy: dict[Item, Rank] = {}
        self._stopped = False

    def put(self, item: Item, delay_s: float = 0.0, *, rank: Rank = Rank.FIRST) -> None:
        """Have an item taken after a delay, again if it is being worked on now.

        Of several ranks the first one counts: an item is not put behind again.
        """
        due = time.monotonic() + delay_s
        with self._changed:
            before = self._due.get(item)
            if before is not None:
                rank = min(rank, self._ranks[item])
                if before <= due and rank == self._ranks[item]:
                    return
                due = min(before, due)
            self._due[item] = due
            self._ranks[item] = rank
            self._push(due, item)
            self._changed.notify()

    def take(self) -> Item | None:
        """Return the next item that is due; None when the schedule has been stopped. *Blocks.*"""
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                busy = list(self._busy.values())
                open_ = [
                    rank
                    for rank in Rank
                    if busy.count(rank) < _MOST_AT_WORK.get(rank, len(busy) + 1)
                ]
                for rank in open_:
                    item = self._pop(rank, now)
                    if item is not None:
                        return item
                heaps = [self._heaps[rank] for rank in open_]
                next_due = min((heap[0][0] for heap in heaps if heap), default=None)
                self._changed.wait(None if next_due is None else next_due - now)
            return None

    def _pop(self, rank: Rank, now: float) -> Item | None:
        heap = self._heaps[rank]
        while heap and heap[0][0] <= now:
            due, _, item = heapq.heappop(heap)
            if self._due.get(item) != due or self._ranks[item] is not rank:
                continue  # it was moved to an earlier moment, or to the front
            if item in self._busy:
                continue  # `done` puts it back
            del self._due[item], self._ranks[item]
            self._busy[item] = rank
            return item
        return None

    def done(self, item: Item) -> None:
        """Note that the work on an item has ended: it may be taken again."""
        with self._changed:
            rank = self._busy.pop(item)
            due = self._due.get(item)
            if due is not None:
                self._push(due, item)
            if due is not None or rank in _MOST_AT_WORK:
                self._changed.notify()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _push(self, due: float, item: Item) -> None:
        self._number += 1  # items need no order of their own
        heapq.heappush(self._heaps[self._ranks[item]], (due, self._number, item))
