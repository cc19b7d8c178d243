"""What has become of each link of a pod, noted at the moment it does, and shown later.

How a link is can be computed at any time; since when, and what was wrong before, cannot. So that is
kept here, apart from what decides about ends: nothing in here is ever asked what to do.
"""

from __future__ import annotations

from ratchet.cni.dataclasses import dataclass
from ratchet_child.model.clock import Clock
from ratchet_child.model.links import Side, UplinkSide
from ratchet_child.model.plan import Wanted

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
    """The history of one pod's links. Whoever calls these methods holds the pod's lock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._notes: dict[tuple[str, str, str], LinkState] = {}

    def get(self, side: Side | UplinkSide) -> LinkState | None:
        return self._notes.get(_key(side))

    def note(self, side: Side | UplinkSide, state: str, error: str | None = None) -> LinkState:
        """Note how a link is, at the moment it comes to be so."""
        note = self._notes.get(_key(side))
        if note is None:
            note = self._notes[_key(side)] = LinkState(state, self._clock.time())
        elif note.state != state:
            note.state, note.since, note.is_told = state, self._clock.time(), False
        elif error in (None, note.error):
            return note
        if error is not None:
            note.error, note.error_at = error, self._clock.time()
        return note

    def note_up(self, side: Side | UplinkSide, came_at: float | None, *, is_new: bool) -> float:
        """Note that a link is up; return the seconds since it was not, or since its pod came.

        `is_new`: its end was made at this moment. The link may have been unknown for a while.
        """
        before = self._notes.get(_key(side))
        now = self._clock.time()
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
        kept = _keys(wanted)
        self._notes = {key: note for key, note in self._notes.items() if key in kept}

    def note_unknown(self, wanted: Wanted) -> None:
        """Note that links which are not wanted are up no more, as nobody declares them now."""
        known = _keys(wanted)
        for key, note in self._notes.items():
            if note.state != WAITING and key not in known:
                note.state, note.since, note.is_told = WAITING, self._clock.time(), False

    def clear(self) -> None:
        self._notes.clear()


def _keys(wanted: Wanted) -> set[tuple[str, str, str]]:
    return {_key(end.side) for end in wanted.ends} | {_key(one.side) for one in wanted.waiting}


def _key(side: Side | UplinkSide) -> tuple[str, str, str]:
    return side.ifname, side.far, side.peer_ifname
