"""Since when a link is up: also one of which nothing was known for a while."""

from __future__ import annotations

from ratchet.links import Link
from ratchet_child.model.keys import PodKey
from ratchet_child.model.links import DeclaredLink, Side
from ratchet_child.model.plan import Waiting, Wanted
from ratchet_child.pods.history import UP, WAITING, History

A, B = PodKey("default", "a"), PodKey("default", "b")
SIDE = Side.of(DeclaredLink(A, Link("in1", None, "b", "in2", None)), B)
NOTHING = Wanted((), ())


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


def test_a_link_that_nobody_declares_for_a_while_is_as_young_as_its_return() -> None:
    clock = Clock()
    history = History(clock)
    history.note_up(SIDE, 90.0, is_new=True)
    clock.now = 110.0
    history.note_unknown(NOTHING)
    clock.now = 130.0
    history.note_unknown(NOTHING)
    assert history.note_up(SIDE, 90.0, is_new=False) == 20.0
    note = history.get(SIDE)
    assert note is not None
    assert (note.state, note.since) == (UP, 130.0)


def test_a_link_that_waits_has_waited_since_it_did() -> None:
    clock = Clock()
    history = History(clock)
    history.note(SIDE, WAITING)
    clock.now = 110.0
    history.note_unknown(Wanted((), (Waiting(SIDE),)))
    history.note_unknown(NOTHING)
    assert history.note_up(SIDE, 90.0, is_new=False) == 10.0
