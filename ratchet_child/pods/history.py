"""What has become of each link of a pod, noted at the moment it does, and shown later.

How a link is can be computed at any time; since when, and what was wrong before, cannot. So that is
kept here, apart from what decides about ends: nothing in here is ever asked what to do.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from ratchet_child.model.keys import PodKey
from ratchet_child.model.plan import Side, Wanted

UP, WAITING, ERROR = "up", "waiting", "error"
_SPARE = 16  # notes of links that are no longer wanted do no harm while they are few


@dataclass(slots=True)
class LinkState:
    """What has become of a link: its state, since when, and its last error, also when it is over.

    Times are seconds since the epoch.
    """

    state: str
    since: float
    error: str | None = None
    error_at: float | None = None  # when that error began
    is_told: bool = False  # that it waits


class History:
    """Those of one pod's links. Whoever calls these methods holds the ends' lock."""

    def __init__(self) -> None:
        self._notes: dict[tuple[str, PodKey, str], LinkState] = {}

    def get(self, side: Side) -> LinkState | None:
        return self._notes.get(_key(side))

    def note(self, side: Side, state: str, error: str | None = None) -> LinkState:
        """LinkState how a link is, at the moment it comes to be so."""
        note = self._notes.get(_key(side))
        if note is None:
            note = self._notes[_key(side)] = LinkState(state, time.time())
        elif note.state != state:
            note.state, note.since, note.is_told = state, time.time(), False
        elif error in (None, note.error):
            return note
        if error is not None:
            note.error, note.error_at = error, time.time()
        return note

    def note_up(self, side: Side, came_at: float | None, *, is_new: bool) -> float:
        """LinkState that a link is up; the seconds since it was not, or since its pod came.

        `is_new`: its end was made at this moment. The link may have been unknown for a while.
        """
        before = self._notes.get(_key(side))
        now = time.time()
        since = now if came_at is None else came_at
        if before is not None:
            since = now if before.state == UP else before.since
        note = self.note(side, UP)
        if is_new:
            note.since = now
        return max(now - since, 0.0)

    def keep(self, wanted: Wanted) -> None:
        """Let go of what was noted of links that are no longer wanted, when that is a lot."""
        if len(self._notes) <= 2 * (len(wanted.ends) + len(wanted.waiting)) + _SPARE:
            return
        kept = {_key(one.side) for one in (*wanted.ends, *wanted.waiting)}
        self._notes = {key: note for key, note in self._notes.items() if key in kept}

    def clear(self) -> None:
        self._notes.clear()


def _key(side: Side) -> tuple[str, PodKey, str]:
    return side.ifname, side.peer, side.peer_ifname
